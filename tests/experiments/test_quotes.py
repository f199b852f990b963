"""Abstaining gains where a reward model of support decides, and nothing where chance does."""

import random
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.data.quotes import quoting_demonstrations, sentences_of, split_quote, with_quote
from rlhf_lab.equations.selective import selective_rate
from rlhf_lab.experiments.systems import quotes
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import Policy
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


def test_pairs_are_all_that_differ_in_worth() -> None:
    pairs = quotes._pairs(["post", "other"], [["a", "b", "c"], ["d", "e"]], [[1.0, 0.0, 1.0], [2.0, 2.0]])
    assert [(row["prompt"], row["chosen"], row["rejected"], row["group"]) for row in pairs] == [
        ("post", "a", "b", "0"),
        ("post", "c", "b", "0"),
    ]


def test_an_answer_is_judged_against_none() -> None:
    few = load_tldr(scale="tiny").demonstrations.select(range(8))
    post = quoting_demonstrations(few, gold_judge())[0]
    told = post["completion"]
    untold = with_quote(split_quote(told)[0], "This is not in the post.")
    pairs = quotes._support(Dataset.from_list([post]), [[told, untold]])
    assert {(row["chosen"], row["rejected"]) for row in pairs} == {
        (told, untold),
        (told, quotes.NO_ANSWER),
        (quotes.NO_ANSWER, untold),
    }


def _answers(posts: Dataset, number: int, seed: int) -> list[list[str]]:
    """The poster's own summary with a sentence that chance has chosen, some times."""
    rng = random.Random(seed)
    return [
        [with_quote(row["completion"], quote) for quote in rng.sample(sentences_of(row["prompt"]), number)]
        for row in posts.to_list()
    ]


@pytest.mark.slow
def test_abstaining_raises_the_supported_share() -> None:
    data, policy, preset = load_tldr(), load_trained("supervised"), reward_model_config("laptop")
    assert isinstance(policy, Policy)
    posts, unseen = data.prompts.select(range(600)), data.validation.select(range(384))
    model = train_reward_model(
        policy,
        Dataset.from_list(quotes._support(posts, _answers(posts, 2, 0))),
        replace(preset, optimizer=replace(preset.optimizer, learning_rate=quotes.LEARNING_RATE)),
        run=Run(seed=0),
        batch_size=16,
        max_response_tokens=quotes.RESPONSE_TOKENS,
    )
    answers = _answers(unseen, 1, 1)
    supported = quotes._outcomes(unseen, answers)["supported"][:, 0]
    sure = quotes._scores(model, unseen, answers) - quotes._scores(model, unseen, [[quotes.NO_ANSWER]] * len(unseen))
    share = {coverage: float(selective_rate(sure[:, 0], supported, coverage)) for coverage in (0.5, 0.7, 1.0)}
    by_chance = selective_rate(np.random.default_rng(0).random(len(unseen)), supported, 0.7)
    assert share[0.7] > share[1.0] + 0.05
    assert share[0.5] > share[0.7] + 0.02
    assert by_chance < share[1.0] + 0.05
