"""One budget of labels, on many pairs once each or on fewer pairs several times: which teaches a reward model more?"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.aggregation import majority_vote
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.equations.overoptimization import best_of_n_values
from rlhf_lab.experiments.systems.sections import Job, where
from rlhf_lab.feedback import LearnedReward, Population, Reward, gold_judge, population, scores_of
from rlhf_lab.generation import generate
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    size: str
    """Of the reward models."""
    budgets: tuple[int, ...]
    """Labels."""
    num_held_out: int
    num_posts: int
    num_samples: int
    """For each post."""
    n: int
    """Of best-of-n."""


SIZES = {"tiny": Sizes("small", (30,), 16, 8, 4, 2), "laptop": Sizes("medium", (600,), 400, 96, 16, 8)}
AGREEMENTS = (0.73, 0.62)
"""How often two labelers choose alike: Stiennon et al.'s, and people who are less sure."""
WAYS = {
    "once": (1, False, "each pair once"),
    "vote of 3": (3, False, "three labels a pair, the majority's"),
    "vote of 5": (5, False, "five labels a pair, the majority's"),
    "share of 3": (3, True, "three labels a pair, their share"),
    "share of 5": (5, True, "five labels a pair, their share"),
}
"""Labels of a pair, whether the target is soft, and how it is called."""


def rows(job: Job) -> list[dict[str, Any]]:
    """How well the reward models know the gold order, and what best-of-n by them is worth."""
    sizes, config = SIZES[job.scale], ppo_config(job.scale)
    policy = load_trained("supervised")
    smaller = load_trained("supervised", sizes.size)
    assert isinstance(policy, Policy) and isinstance(smaller, Policy)
    held_out = load_shipped_comparisons("held_out").select(range(sizes.num_held_out))
    posts = column(load_tldr(scale=job.scale, seed=job.seed).validation.select(range(sizes.num_posts)), "prompt")
    rng = torch.Generator().manual_seed(job.seed)
    samples = generate(policy, posts, config.sampling, num_candidates=sizes.num_samples, rng=rng)
    gold, found = _scores(gold_judge(), posts, samples), []
    for agreement, budget, way in itertools.product(AGREEMENTS, sizes.budgets, WAYS):
        num_labels, soft, _ = WAYS[way]
        comparisons = bought(population(seed=job.seed, agreement=agreement), budget, num_labels, soft, job.seed)
        model = _reward_model(smaller, comparisons, num_labels, job, f"{agreement}-{budget}-{way}")
        reward = LearnedReward(model)
        found.append(
            {"agreement": agreement, "budget": budget, "way": way, "pairs": budget // num_labels, "n": sizes.n}
            | {"right": in_gold_order(comparisons), "accuracy": in_gold_order(held_out, reward)}
            | {"start": float(gold.mean())}
            | {"gold": float(best_of_n_values(_scores(reward, posts, samples), gold, sizes.n).mean())}
        )
    return found


def bought(people: Population, budget: int, num_labels: int, soft: bool, seed: int) -> Dataset:
    """Comparisons that a budget of labels buys at so many a pair."""
    pairs = load_shipped_comparisons("train").select(range(budget // num_labels))
    texts = list(zip(column(pairs, "chosen"), column(pairs, "rejected"), strict=True))
    labels = people.compare(column(pairs, "prompt"), texts, num_labels=num_labels, seed=seed)
    return majority_vote(labels, soft=soft)


def in_gold_order(comparisons: Dataset, reward: Reward | None = None) -> float:
    """How often the reward, or else the choice, orders two answers as the gold judge does, where it has an order."""
    prompts, chosen, rejected = (column(comparisons, name) for name in ("prompt", "chosen", "rejected"))

    def difference(judge: Reward) -> np.ndarray:
        return np.subtract(*(scores_of(judge, prompts, texts).numpy() for texts in (chosen, rejected)))

    truth = difference(gold_judge())
    said = difference(reward) if reward else np.ones(len(truth))
    return float(((said > 0) == (truth > 0))[truth != 0].mean())


def _reward_model(start: Policy, comparisons: Dataset, num_labels: int, job: Job, name: str) -> RewardModel:
    """As many updates for each way: fewer pairs are read as many times as each has labels."""
    run = Run(job.folder / name.replace(" ", "-"), seed=job.seed, checkpoint_every=40)
    settings: dict[str, Any] = {"batch_size": 16, "num_epochs": float(num_labels)}
    return train_reward_model(start, comparisons, reward_model_config(job.scale), run=run, **settings)


def _scores(reward: Reward, posts: Sequence[str], groups: Sequence[Sequence[str]]) -> np.ndarray:
    repeated = [post for post, group in zip(posts, groups, strict=True) for _ in group]
    return scores_of(reward, repeated, [text for group in groups for text in group]).numpy().reshape(len(posts), -1)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""

    def at(agreement: float, budget: int, way: str, key: str) -> tuple[float, float, float]:
        """Mean, least and most over seeds."""
        values = [row[key] for row in where(rows, agreement=agreement, budget=budget, way=way)]
        return float(np.mean(values)), float(min(values)), float(max(values))

    budgets, share = sorted({row["budget"] for row in rows}), float(np.mean([row["accuracy"] for row in rows]))
    # Of one seed's share, over the held-out pairs.
    error = math.sqrt(share * (1 - share) / SIZES["laptop"].num_held_out)
    return {"error": error, "at": at, "budgets": budgets, "ways": WAYS, "agreements": AGREEMENTS, "n": rows[0]["n"]}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Accuracy on the gold order by the labels of a pair, at the largest budget, for each agreement."""
    axes = plots.new_axes(
        "One budget of labels, on more pairs or more surely", "labels of a pair", "pairs in gold order [%]"
    )
    budget = max(row["budget"] for row in rows)
    for agreement, color in zip(AGREEMENTS, (plots.PROXY, plots.GOLD), strict=True):
        for soft, style in ((False, "o-"), (True, "s--")):
            ways = {number: way for way, (number, is_soft, _) in WAYS.items() if is_soft == soft or number == 1}
            values = [
                [100 * row["accuracy"] for row in where(rows, agreement=agreement, budget=budget, way=way)]
                for way in ways.values()
            ]
            label = f"{agreement:.0%} agree, {'shares' if soft else 'votes'}"
            axes.plot(list(ways), [np.mean(seeds) for seeds in values], style, color=color, label=label)
            axes.fill_between(list(ways), [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.12)
    axes.set_xticks(sorted({number for number, _, _ in WAYS.values()}))
    axes.legend(frameon=False, **plots.BESIDE)
    return {"noise": axes}
