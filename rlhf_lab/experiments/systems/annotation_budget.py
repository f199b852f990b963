"""What a budget of labels buys: preference by the number of comparisons, and what they cost at a price for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.evaluation import rate, reward_model_report
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, population, simulated_labels
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    num_labels: tuple[int, ...]
    rl_labels: tuple[int, ...]
    """Those budgets whose reward model trains a policy too."""
    rl_steps: int
    """Of PPO."""
    num_posts: int
    n: int
    """Of best-of-n."""
    num_held_out: int
    """Comparisons to test the reward models on."""


SIZES = {
    "tiny": Sizes((16, 48), (48,), 2, 8, 4, 16),
    "laptop": Sizes((100, 300, 1000), (100, 1000), 12, 96, 8, 400),
}
NUM_RL_SAMPLES = 4
"""For each post, of a policy that RL trained."""
DOLLARS_PER_LABEL = 1.0
SECONDS_PER_LABEL = 60.0
"""Of one comparison. Examples, not anybody's wages or pace: `cost` takes any."""


def cost(
    num_labels: int, *, dollars_per_label: float = DOLLARS_PER_LABEL, seconds_per_label: float = SECONDS_PER_LABEL
) -> dict[str, float]:
    """What comparisons cost.

    Raises:
        ValueError: A number, a price or a time is negative.

    Example:
        >>> cost(300, dollars_per_label=0.5, seconds_per_label=60.0)
        {'dollars': 150.0, 'hours': 5.0}
    """
    if min(num_labels, dollars_per_label, seconds_per_label) < 0:
        raise ValueError(
            f"num_labels ({num_labels}), dollars_per_label ({dollars_per_label}) and seconds_per_label "
            f"({seconds_per_label}) must be 0 or more."
        )
    return {"dollars": num_labels * dollars_per_label, "hours": num_labels * seconds_per_label / 3600}


def rows(job: Job) -> list[dict[str, Any]]:
    """Win rate over the posters' own summaries by the number of labels, of best-of-n and of RL."""
    sizes, config = SIZES[job.scale], ppo_config(job.scale)
    data = load_tldr(scale=job.scale, seed=job.seed)
    # Any size learns what people say of one policy's summaries (section b), so the cheaper one does.
    policy, smaller = load_trained("supervised"), load_trained("supervised", "medium")
    assert isinstance(policy, Policy) and isinstance(smaller, Policy)
    posts = data.validation.select(range(sizes.num_posts))
    held_out = load_shipped_comparisons("held_out").select(range(sizes.num_held_out))
    samples = Samples.of(policy, posts, sizes.n, config.sampling, seed=job.seed)
    people = population(seed=job.seed)
    labels = simulated_labels(
        policy, data.prompts, num_pairs=sizes.num_labels[-1], people=people, sampling=config.sampling, seed=job.seed + 1
    )
    start = samples.won.mean(1)
    found = [_row("supervised", 0, 1, start, start, 0.5)]
    for number in sizes.num_labels:
        reward_model = _reward_model(smaller, labels.select(range(number)), job)
        report = reward_model_report(reward_model, held_out)
        accuracy = report["accuracy"]["mean"]
        best = samples.best_of(samples.scores(LearnedReward(reward_model)), sizes.n)
        found.append(_row("best_of_n", number, sizes.n, best, start, accuracy))
        if number in sizes.rl_labels:
            run = Run(job.folder / f"rl-{number}", seed=job.seed, checkpoint_every=5)
            tuned = ppo(policy, reward_model, data.prompts, config, run=run, num_steps=sizes.rl_steps)
            won = Samples.of(tuned, posts, NUM_RL_SAMPLES, config.sampling, seed=job.seed).won.mean(1)
            found.append(_row("rl", number, 1, won, start, accuracy))
    return found


def _reward_model(start: Policy, labels: Dataset, job: Job) -> RewardModel:
    """Batches of 16, so that a hundred labels are some updates too."""
    run = Run(job.folder / f"reward_model-{len(labels)}", seed=job.seed, checkpoint_every=20)
    return train_reward_model(start, labels, reward_model_config(job.scale), run=run, batch_size=16)


def _row(
    method: str, num_labels: int, n: int, values: np.ndarray, start: np.ndarray, accuracy: float
) -> dict[str, Any]:
    """A win rate with its interval, and how far it is above the supervised policy's on the same posts."""
    one, above = rate(values), values - start
    return {
        "method": method,
        "num_labels": num_labels,
        "n": n,
        **{"mean": one.mean, "low": one.low, "high": one.high},
        **{"above": float(above.mean()), "above_se": float(above.std(ddof=1) / math.sqrt(len(above)))},
        "accuracy": accuracy,
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    points = []
    for method in ("best_of_n", "rl"):
        for number in sorted({row["num_labels"] for row in where(rows, method=method)}):
            found = where(rows, method=method, num_labels=number)
            # Seeds have posts of their own, so their errors are independent.
            error = math.hypot(*(row["above_se"] for row in found)) / len(found)
            point = {key: mean(found, key) for key in ("mean", "above", "accuracy", "n")} | {"above_se": error}
            seeds = [row["mean"] for row in found]
            points.append(
                {"method": method, "num_labels": number, "lowest": min(seeds), "highest": max(seeds)}
                | point
                | cost(number)
            )
    start = mean(where(rows, method="supervised"), "mean")
    return {"points": points, "start": start, "price": DOLLARS_PER_LABEL, "pace": SECONDS_PER_LABEL}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Preference by labels, with what they cost at the example's price above."""
    axes = plots.new_axes("What ten times the labels buy", "comparisons", "win rate over the posters' own [%]")
    for method, label, color, style in (
        ("best_of_n", f"best-of-{max(row['n'] for row in rows)}", plots.PROXY, "o-"),
        ("rl", "RL", plots.POLICY, "s--"),
    ):
        points = [point for point in summary(rows)["points"] if point["method"] == method]
        at = [point["num_labels"] for point in points]
        axes.plot(at, [100 * point["mean"] for point in points], style, color=color, label=label)
        low, high = ([100 * point[key] for point in points] for key in ("lowest", "highest"))
        axes.fill_between(at, low, high, color=color, alpha=0.15)
    start = 100 * mean(where(rows, method="supervised"), "mean")
    axes.axhline(start, color=plots.REFERENCE, linestyle=":", label="no labels")
    numbers = sorted({row["num_labels"] for row in rows} - {0})
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.minorticks_off()
    above = axes.secondary_xaxis("top", functions=(_dollars, _labels))
    above.set_xticks([_dollars(number) for number in numbers], [f"${_dollars(number):,.0f}" for number in numbers])
    above.minorticks_off()
    above.set_xlabel(f"at ${DOLLARS_PER_LABEL:g} a comparison")
    axes.legend(frameon=False, **plots.BESIDE)
    return {"annotation_budget": axes}


def _dollars(num_labels: Any) -> Any:
    return DOLLARS_PER_LABEL * num_labels


def _labels(dollars: Any) -> Any:
    return dollars / DOLLARS_PER_LABEL
