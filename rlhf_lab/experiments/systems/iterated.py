"""Iterated RLHF: as many labels, asked at once or in rounds, each round about the policy that the last one made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.evaluation import wins
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, gold_judge, population, simulated_labels
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    num_labels: int
    """In all, of each method."""
    num_steps: int
    """Of PPO, which starts from the supervised policy each time."""
    num_posts: int
    num_samples: int


SIZES = {"tiny": Sizes(48, 2, 8, 2), "laptop": Sizes(1200, 22, 96, 4)}
NUM_ROUNDS = {"once": 1, "rounds": 3}
KL_COEF = 0.1
"""A quarter of the preset's price: the policy leaves what the first labels were about, so asking again can help."""


def rows(job: Job) -> list[dict[str, Any]]:
    """Both methods, a row for each round: the policy by the truth, and how well its reward model orders its answers."""
    return [row for method, number in NUM_ROUNDS.items() for row in _rounds(job, method, number)]


def _rounds(job: Job, method: str, num_rounds: int) -> list[dict[str, Any]]:
    sizes, config = SIZES[job.scale], ppo_config(job.scale)
    data = load_tldr(scale=job.scale, seed=job.seed)
    start, smaller = load_trained("supervised"), load_trained("supervised", "medium")
    assert isinstance(start, Policy) and isinstance(smaller, Policy)
    posts, people = data.validation.select(range(sizes.num_posts)), population(seed=job.seed)
    writer, labels, found = start, [], []
    for number in range(1, num_rounds + 1):
        asked = {"people": people, "sampling": config.sampling, "seed": 10 * job.seed + number}
        labels.append(simulated_labels(writer, data.prompts, num_pairs=sizes.num_labels // num_rounds, **asked))
        reward_model = _reward_model(smaller, concatenate_datasets(labels), job, f"{method}-{number}")
        run = Run(job.folder / f"ppo-{method}-{number}", seed=job.seed, checkpoint_every=5)
        settings = {"num_steps": sizes.num_steps, "kl_coef": KL_COEF, "run": run}
        writer = ppo(start, reward_model, data.prompts, config, **settings)
        samples = [Samples.of(one, posts, sizes.num_samples, config.sampling, seed=job.seed) for one in (start, writer)]
        learnt = LearnedReward(reward_model)
        before, after = (one.scores(gold_judge()) for one in samples)
        found.append(
            {"method": method, "round": number, "num_labels": sum(map(len, labels))}
            | {"kl": float(writer.history[-1]["objective/kl"]), "start": float(before.mean())}
            | {"gold": float(after.mean()), "won": float(samples[1].won.mean())}
            | {"proxy": float(samples[1].scores(learnt).mean() - samples[0].scores(learnt).mean())}
            | {"orders_start": _in_order(samples[0].scores(learnt), before)}
            | {"orders_own": _in_order(samples[1].scores(learnt), after)}
        )
    return found


def _reward_model(start: Policy, labels: Dataset, job: Job, name: str) -> RewardModel:
    run = Run(job.folder / f"reward_model-{name}", seed=job.seed, checkpoint_every=50)
    return train_reward_model(start, labels, reward_model_config(job.scale), run=run, batch_size=16)


def _in_order(scores: np.ndarray, truth: np.ndarray) -> float:
    """How often two answers to one post stand in the order of the truth, where the truth has one: (posts, samples)."""
    first, second = np.triu_indices(scores.shape[1], 1)
    right = wins(scores[:, first].ravel().tolist(), scores[:, second].ravel().tolist())
    better = (truth[:, first] - truth[:, second]).ravel()
    return float(np.where(better > 0, right, 1.0 - right)[better != 0].mean())


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    last = {method: where(rows, method=method, round=number) for method, number in NUM_ROUNDS.items()}
    gains = [two["gold"] - one["gold"] for one, two in zip(*last.values(), strict=True)]
    return {"last": last, "gains": gains, "num_rounds": NUM_ROUNDS["rounds"], "kl_coef": KL_COEF}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Gold against the labels given so far, one line a seed."""
    axes = plots.new_axes("As many labels, at once or in rounds", "comparisons so far", "gold score [1 to 7]")
    for method, color, style, label in (
        ("rounds", plots.POLICY, "o-", "asked in rounds"),
        ("once", plots.PROXY, "s", "asked once"),
    ):
        mine = where(rows, method=method)
        for seed in sorted({row["seed"] for row in mine}):
            one = where(mine, seed=seed)
            axes.plot([row["num_labels"] for row in one], [row["gold"] for row in one], style, color=color, alpha=0.35)
        numbers = sorted({row["num_labels"] for row in mine})
        means = [mean(where(mine, num_labels=number), "gold") for number in numbers]
        axes.plot(numbers, means, style, color=color, linewidth=2.5, markersize=9, label=label)
    axes.axhline(mean(rows, "start"), color=plots.REFERENCE, linestyle=":", label="the supervised policy")
    axes.set_xticks(sorted({row["num_labels"] for row in rows}))
    axes.legend(frameon=False, **plots.BESIDE)
    return {"iterated": axes}
