"""SFT, reward model, DPO, A2C, RLOO, GRPO and PPO on as many processes as start it; writes losses and weights.

python -m tests.training.many_processes OUT [STOP]      STOP is the step after which every stage is cut off
"""

import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from rlhf_lab import scoring
from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.feedback import population
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import new_policy
from rlhf_lab.runs import Run
from rlhf_lab.training import supervised
from rlhf_lab.training.a2c import a2c
from rlhf_lab.training.dpo import dpo
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.grpo import grpo
from rlhf_lab.training.ppo import ppo
from rlhf_lab.training.reward_model import train_reward_model
from rlhf_lab.training.rloo import rloo

LIMITS = {"max_prompt_tokens": 96, "max_response_tokens": 24}
STEADY = OptimizerConfig(learning_rate=1e-4, schedule="constant")
STEPS = 4


class Cut(Exception):
    """Stands for a kill between two steps."""


def stages(out: Path) -> dict[str, Any]:
    """What each stage makes, in order; a stage starts from fresh weights or from the reward model."""
    data = load_tldr(scale="tiny")
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations]
    policy = new_policy("small", train_tokenizer(texts, 512))
    prompts, answers = list(data.demonstrations["prompt"]), list(data.demonstrations["completion"])
    pairs = list(zip(answers, answers[1:] + answers[:1], strict=True))
    labels: Dataset = population().compare(prompts[:32], pairs[:32])
    common = {"batch_size": 8, "optimizer": STEADY, **LIMITS}
    scoring.targets_at_once = lambda network: 32  # The logits of others are made in chunks, and again in the backward.
    run = {
        name: Run(out / name, checkpoint_every=1)
        for name in ("sft", "lora", "reward", "dpo", "a2c", "rloo", "grpo", "ppo")
    }
    made = {"sft": supervised.sft(policy, data.demonstrations.select(range(32)), run=run["sft"], **common)}
    # Adapters, and activations that are computed again in the backward.
    supervised.check_memory = lambda *args, **settings: True  # type: ignore[assignment]
    made["lora"] = supervised.sft(
        policy, data.demonstrations.select(range(32)), run=run["lora"], lora=LoRAConfig(rank=2), **common
    )
    made["reward"] = train_reward_model(policy, labels, run=run["reward"], **common)
    made["dpo"] = dpo(policy, labels, run=run["dpo"], micro_batch_size=2, **common)
    acting: dict[str, Any] = {
        "num_steps": STEPS,
        "prompts_per_step": 8,
        "num_candidates": 2,
        "max_prompt_tokens": 96,
        "sampling": SamplingConfig(max_response_tokens=12, temperature=1.0),
        "optimizer": STEADY,
    }
    made["rloo"] = rloo(policy, made["reward"], data.prompts, run=run["rloo"], **acting)
    made["grpo"] = grpo(policy, made["reward"], data.prompts, run=run["grpo"], **acting, minibatch_size=4)
    acting["critic_optimizer"] = STEADY
    made["a2c"] = a2c(policy, made["reward"], data.prompts, run=run["a2c"], entropy_coef=0.1, **acting)
    updates: dict[str, Any] = {"num_epochs": 1, "minibatch_size": 4}
    mixed: dict[str, Any] = {"pretraining": answers[:32], "pretraining_coef": 0.5, "pretraining_rows": 4}
    made["ppo"] = ppo(policy, made["reward"], data.prompts, run=run["ppo"], **acting, **updates, **mixed)
    return made


def main() -> None:
    out = Path(sys.argv[1])
    if len(sys.argv) > 2:
        log, stop = Run.log, int(sys.argv[2])

        def cut(run: Run, step: int, metrics: dict[str, Any]) -> None:
            # After the checkpoint of `stop` steps and a step more; only PPO, the last and longest, is cut.
            if step == stop and "ppo/policy_loss" in metrics:
                raise Cut
            log(run, step, metrics)

        Run.log = cut  # type: ignore[method-assign]
    try:
        made = stages(out)
    except Cut:
        return
    if Run().is_main:
        for name, model in made.items():
            torch.save(model.network.state_dict(), out / f"{name}.pt")


if __name__ == "__main__":
    main()
