"""What is to be done in a benchmark, as files that any library can read: a model, a reward model, rows, settings.

The rows come from the embedded world. Prompts are cut to between 50 and 90 tokens, so that they are about 70 long and
of different lengths, as real ones are; `*_in_order.jsonl` holds the rows in the order in which our stages take them, so
that a peer that reads them one after the other trains on the very same batches, and must get the same losses.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_lab import load_base, load_tldr
from rlhf_lab.data.batching import query_tokens
from rlhf_lab.models import MODEL_SIZES, Policy, RewardModel, new_reward_model
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained

PYTHIA = {
    name: {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 50304,
    }
    for name, width, layers, heads in (("pythia-14m", 128, 6, 4), ("pythia-1b", 2048, 16, 8))
}
"""Biderman et al. 2023, arXiv:2304.01373, table 1, and the configuration on the Hub; with random weights. The small one
tries on a CPU what the large one is for."""
SHAPES: dict[str, dict[str, int]] = (
    MODEL_SIZES
    | {"wide": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4}}
    | PYTHIA
)
"""`large` has hidden size 128 and ships trained; `wide` has twice that, and random weights."""
STAGES = ("sft", "reward", "dpo", "ppo", "generate", "best_of_n")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Shared by ours and every peer."""

    stage: str
    size: str = "large"
    dtype: str = "float32"
    num_steps: int = 8
    """Updates of SFT, reward model and DPO; rollouts of PPO; batches that are written."""
    batch_size: int = 32
    """Examples, pairs, or episodes of a rollout."""
    num_candidates: int = 1
    num_epochs: int = 2
    num_minibatches: int = 2
    learning_rate: float = 1e-5
    prompt_tokens: tuple[int, int] = (50, 90)
    """Each prompt is cut to a length between these."""
    max_response_tokens: int = 64
    temperature: float = 0.7
    seed: int = 0

    @property
    def max_prompt_tokens(self) -> int:
        """With room for a cut that has one token more when it is read again."""
        return self.prompt_tokens[1] + 6

    @property
    def num_rows(self) -> int:
        """Prompts, demonstrations or comparisons that a run reads."""
        return self.num_steps * self.batch_size // self.num_candidates


def models(settings: Settings) -> tuple[Policy, RewardModel]:
    """A policy and a reward model: the trained ones that ship, or random ones of a shape that does not."""
    if settings.size in MODEL_SIZES:
        return load_trained("supervised", settings.size), load_trained("reward_model", settings.size)  # type: ignore[return-value]
    tokenizer = load_base("laptop").tokenizer
    torch.manual_seed(settings.seed)
    kind = "gpt_neox" if settings.size in PYTHIA else "llama"
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    shape = {"vocab_size": len(tokenizer), "tie_word_embeddings": kind == "llama"} | SHAPES[settings.size]
    policy = Policy(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **ids, **shape)), tokenizer)
    if kind == "gpt_neox":
        _rule_out(policy.network, len(tokenizer))
    return policy, new_reward_model(policy, generator=torch.Generator().manual_seed(settings.seed))


@torch.no_grad()
def _rule_out(network: Any, first: int) -> None:
    """Let tokens from `first` on, which the tokenizer does not have, be written by nobody.

    The last norm adds 100 in a direction that these tokens, and no others, point against.
    """
    network.base_model.final_layer_norm.bias[0] = 100.0
    weight = network.get_output_embeddings().weight
    weight[:, 0] = 0.0
    weight[first:, 0] = -1.0


def rows(settings: Settings, tokenizer: Any) -> list[dict[str, str]]:
    """As many rows as a run reads, with their prompts cut."""
    if settings.stage in ("reward", "dpo"):
        columns, data = ("prompt", "chosen", "rejected"), load_shipped_comparisons()
    else:
        columns, data = ("prompt", "completion"), load_tldr(scale="laptop").demonstrations
    rng = random.Random(settings.seed)
    chosen = data.select(range(settings.num_rows))
    cut = []
    for row in chosen:
        prompt, more = row["prompt"], {name: row[name] for name in columns}  # type: ignore[index]
        if settings.size in PYTHIA:
            prompt = _longer(prompt, times=settings.prompt_tokens[1] // 20)
            more = {name: 2 * text for name, text in more.items()}
        ids = query_tokens(tokenizer, prompt, max_tokens=rng.randint(*settings.prompt_tokens))
        cut.append(more | {"prompt": tokenizer.decode(ids)})
    return cut


def _longer(prompt: str, times: int) -> str:
    """With its post said again and again, in one paragraph, so that it can be cut anywhere."""
    head, rest = prompt.split("POST: ", 1)
    words = rest.removesuffix("\n\nTL;DR:").split()
    return f"{head}POST: {' '.join(words * times)}\n\nTL;DR:"


def write(settings: Settings, folder: Path) -> None:
    """Everything that a run needs, below `folder`."""
    folder.mkdir(parents=True)
    policy, reward = models(settings)
    policy.save(folder / "policy")
    reward.save(folder / "reward")
    # Where our reward model starts, for a peer that is to start there too.
    new_reward_model(policy, generator=Run(seed=settings.seed).rng("head")).save(folder / "start")
    table = rows(settings, policy.tokenizer)
    run, number = Run(seed=settings.seed), settings.batch_size // settings.num_candidates
    order = [row for step in range(settings.num_steps) for row in run.batch_rows(step, len(table), number)]
    _write_lines(folder / "rows.jsonl", table)
    _write_lines(folder / "rows_in_order.jsonl", [table[row] for row in order])
    record = asdict(settings) | {"max_prompt_tokens": settings.max_prompt_tokens}
    (folder / "settings.json").write_text(json.dumps(record))


def read(folder: Path) -> Settings:
    """The settings of a run."""
    record = json.loads((folder / "settings.json").read_text())
    del record["max_prompt_tokens"]
    return Settings(**record | {"prompt_tokens": tuple(record["prompt_tokens"])})


def _write_lines(path: Path, table: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
