"""SFT, reward model and PPO on real posts, with small models of the shapes that people use."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from rlhf_lab.data.batching import encode_prompts
from rlhf_lab.data.datasets import load_comparisons, load_tldr
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ppo import ppo
from rlhf_lab.training.reward_model import train_reward_model
from rlhf_lab.training.supervised import sft
from tests.capabilities import ROOT

pytestmark = [pytest.mark.needs("real_data"), pytest.mark.slow]
MAX_PROMPT = 512
FAST = OptimizerConfig(learning_rate=1e-3)


@pytest.fixture(scope="module")
def source() -> Path:
    return Path(os.environ.get("RLHF_LAB_REAL_DATA", ROOT.parent / "shared" / "data" / "tldr_real.jsonl"))


@pytest.fixture(scope="module")
def comparisons(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Each post's summary against another post's, in TRL's schema on disk."""
    rows = load_tldr(str(source)).demonstrations
    path = tmp_path_factory.mktemp("real") / "comparisons.jsonl"
    others = rows["completion"][1:] + rows["completion"][:1]
    lines = [
        json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        for prompt, chosen, rejected in zip(rows["prompt"], rows["completion"], others, strict=True)
    ]
    path.write_text("\n".join(lines))
    return load_comparisons(str(path))


@pytest.fixture(scope="module")
def tokenizer(source: Path) -> PreTrainedTokenizerBase:
    rows = load_tldr(str(source)).demonstrations
    return train_tokenizer([row["prompt"] + row["completion"] for row in rows], 2000)


def network(shape: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    ends: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    size = {"vocab_size": len(tokenizer), "bos_token_id": None, **ends}
    if shape == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=1024, **size))
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    if shape == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(max_position_embeddings=1024, **small, **size))
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=1024, **small, **size))


def test_the_longest_posts_keep_their_end(source: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = load_tldr(str(source)).demonstrations["prompt"]
    long = [prompt for prompt in prompts if len(prompt.split()) >= 400]
    assert len(long) >= 5
    tokens, mask = encode_prompts(tokenizer, long, max_prompt_tokens=MAX_PROMPT)
    assert int(mask.sum(1).max()) <= MAX_PROMPT
    for row, kept in zip(tokens, mask, strict=True):
        text = tokenizer.decode(row[kept])
        assert text.startswith("SUBREDDIT: r/")
        assert text.endswith("\n\nTL;DR:")


@pytest.mark.parametrize("shape", ["gpt2", "neox", "llama"])
def test_the_whole_path(
    shape: str, source: Path, comparisons: Dataset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    Policy(network(shape, tokenizer), tokenizer).save(tmp_path / "base")
    base = Policy.load(str(tmp_path / "base"))
    data = load_tldr(str(source))
    longest_first = sorted(range(len(data.prompts)), key=lambda row: -len(data.prompts[row]["prompt"]))
    sizes = {"max_prompt_tokens": MAX_PROMPT, "micro_batch_size": 4}
    policy = sft(
        base, data.demonstrations.select(longest_first[:96]), batch_size=8, num_epochs=2.0, optimizer=FAST, **sizes
    )
    first, last = policy.history[0]["sft/loss"], policy.history[-1]["sft/loss"]
    assert last < first - 0.1
    model = train_reward_model(policy, comparisons.select(range(64)), batch_size=8, optimizer=FAST, **sizes)
    model.save(tmp_path / "rm")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").config.num_labels == 1
    tuned = ppo(
        policy,
        model,
        data.prompts.select(longest_first[:16]),
        num_steps=2,
        prompts_per_step=4,
        minibatch_size=4,
        sampling=SamplingConfig(max_response_tokens=16),
        optimizer=FAST,
        **sizes,
    )
    assert len(tuned.history) == 2
    assert tuned.history[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert tuned.history[1]["objective/kl"] != 0.0
