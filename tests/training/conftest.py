"""A small policy with random weights and a few rows of the world, for tests of the trainers' arithmetic."""

import pytest
from datasets import Dataset

from rlhf_lab.data.datasets import TLDR, load_tldr
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.feedback import population
from rlhf_lab.models import Policy, new_policy


@pytest.fixture(scope="session")
def data() -> TLDR:
    return load_tldr(scale="tiny")


@pytest.fixture(scope="session")
def policy(data: TLDR) -> Policy:
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations]
    return new_policy("small", train_tokenizer(texts, 512))


@pytest.fixture(scope="session")
def comparisons(data: TLDR) -> Dataset:
    """Each post's reference against another post's: a difference that anything can learn."""
    rows = data.demonstrations
    prompts, texts = rows["prompt"], rows["completion"]
    pairs = [(text, other) for text, other in zip(texts, texts[1:] + texts[:1], strict=True)]
    return population().compare(list(prompts), pairs)
