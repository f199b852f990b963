"""InstructGPT's PPO-ptx: pretraining text beside the responses keeps what PPO forgets, at no price in win rate.

From the supervised policy, PPO at a weak penalty, with raw posts mixed into each update and without. What is measured
is the loss on other raw posts, which the base models were pretrained on, and the win rate of the summaries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.world import World
from rlhf_lab.evaluation import NORMAL_95, rate, wins, write_summaries
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import Policy, RewardModel, load_base
from rlhf_lab.plots import SHADES, new_axes
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.ppo import PPOConfig, ppo, ppo_config
from rlhf_lab.training.supervised import text_loss

SETTINGS = {
    "tiny": {"size": "small", "num_steps": 2, "num_texts": 64, "held_out": 16, "num_posts": 16},
    "laptop": {"size": "large", "num_steps": 12, "num_texts": 1024, "held_out": 256, "num_posts": 256},
}
PRETRAINING_COEF, PRETRAINING_ROWS, KL_COEF, RATE = 0.05, 8, 0.05, 2.5
"""Weight of the text, and texts in an update; a weak penalty; and the learning rate, in units of the preset's: so that
there is something to forget within a dozen steps."""
MAX_TOKENS = 192
POLICIES = {"pretrained": "base", "supervised": "supervised", "ppo": "PPO", "mixed": "PPO and\npretraining text"}


def rows(job: Job) -> list[dict[str, Any]]:
    """One row a policy: its loss on raw posts, and its win rate against the reference."""
    settings = SETTINGS[job.scale]
    supervised, reward_model = (load_trained(stage, settings["size"]) for stage in ("supervised", "reward_model"))
    assert isinstance(supervised, Policy) and isinstance(reward_model, RewardModel)
    policies = {"pretrained": load_base(settings["size"]), "supervised": supervised}
    policies |= tuned(supervised, reward_model, job, num_steps=settings["num_steps"], num_texts=settings["num_texts"])
    texts = raw_posts("held out", settings["held_out"], job.seed)
    posts = load_tldr(scale=job.scale).validation.select(range(settings["num_posts"]))
    prompts, judge = column(posts, "prompt"), gold_judge()
    references = judge(prompts, column(posts, "completion"))
    outcomes = {
        name: wins(judge(prompts, write_summaries(policy, posts)), references) for name, policy in policies.items()
    }
    return [
        {
            "policy": name,
            **settings,
            "loss": text_loss(policy, texts, max_tokens=MAX_TOKENS),
            **rate(outcomes[name]).to_dict(),
            **difference(outcomes[name], outcomes["ppo"]),
        }
        for name, policy in policies.items()
    ]


def tuned(policy: Policy, reward_model: RewardModel, job: Job, *, num_steps: int, num_texts: int) -> dict[str, Policy]:
    """PPO without the mix and with it, otherwise alike."""
    config, prompts = forgetful(job.scale), load_tldr(scale=job.scale).prompts
    texts = raw_posts("mix", num_texts, job.seed)
    mixed = {"pretraining": texts, "pretraining_coef": PRETRAINING_COEF, "pretraining_rows": PRETRAINING_ROWS}
    return {
        name: ppo(policy, reward_model, prompts, config, run=Run(seed=job.seed), num_steps=num_steps, **mix)
        for name, mix in (("ppo", {}), ("mixed", mixed))
    }


def forgetful(scale: str) -> PPOConfig:
    """The preset of a scale at a weaker penalty and a higher, constant rate."""
    preset = ppo_config(scale)
    steady = replace(preset.optimizer, learning_rate=RATE * preset.optimizer.learning_rate, schedule="constant")
    return replace(preset, kl_coef=KL_COEF, optimizer=steady)


def raw_posts(split: str, number: int, seed: int) -> list[str]:
    """The world's posts without anything behind them."""
    posts = World().posts(seed, f"pretraining mix, {split}", number)
    return [post.query.removesuffix("\n\nTL;DR:") for post in posts]


def difference(outcomes: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Mean difference of two policies' outcomes on the same posts, with its 95 % interval."""
    differences = outcomes - others
    half = NORMAL_95 * float(differences.std()) / len(differences) ** 0.5
    middle = float(differences.mean())
    return {"above_ppo": middle, "above_ppo_low": middle - half, "above_ppo_high": middle + half}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Each policy's loss on raw posts, a dot a seed."""
    axes = new_axes("Pretraining text in the update keeps what PPO forgets", "", "loss on raw posts [nats a token]")
    colors = (SHADES["pretrained"], SHADES["supervised"], SHADES["human feedback"], SHADES["human feedback"])
    for place, (policy, color) in enumerate(zip(POLICIES, colors, strict=True)):
        mine = where(rows, policy=policy)
        axes.bar(place, mean(mine, "loss"), 0.6, color=color, hatch="//" if policy == "mixed" else None)
        axes.plot([place] * len(mine), [row["loss"] for row in mine], "o", color="black", markersize=3)
    axes.set_xticks(range(len(POLICIES)), list(POLICIES.values()))
    axes.grid(axis="x", visible=False)
    return {"pretraining_mix": axes}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that its section names."""
    settings = {"pretraining_coef": PRETRAINING_COEF, "num_texts": PRETRAINING_ROWS}
    return settings | {"kl_coef": KL_COEF, "rate": RATE}
