"""PPO against the labels of people who like what sounds sure, and of people who check: how many facts are made up."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from rlhf_lab import plots
from rlhf_lab.aggregation import standardized
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.judge import Judgement
from rlhf_lab.evaluation import wins, write_summaries
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import Population, Reward, gold_judge, population, scores_of
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    size: str
    """Of the reward models."""
    num_pairs: int
    """That each crowd compares."""
    num_posts: int


SIZES = {"tiny": Sizes("small", 48, 16), "laptop": Sizes("medium", 1400, 400)}
CROWDS = {
    "impressed": ("who like what sounds sure", plots.PROXY),
    "careful": ("who check", plots.GOLD),
    "asked": ("who check, asked each time", plots.POLICY),
}
"""What the labelers are called, and their color. Those who are asked are the careful again: without a reward model
between, they look at every rollout, and into its post."""
PRICES = (0.4, 0.0)
"""Of a nat: the laptop's, and none. Where people are asked about every rollout, only the last one is tried."""


@dataclass(frozen=True)
class Written:
    """A policy's answers to the held-out posts, and what the gold judge finds in each."""

    prompts: list[str]
    texts: list[str]
    judged: list[Judgement]

    @classmethod
    def by(cls, policy: Policy, posts: Dataset) -> "Written":
        """The policy's likeliest answers."""
        prompts, texts = column(posts, "prompt"), write_summaries(policy, posts)
        return cls(prompts, texts, [gold_judge().judge(*pair) for pair in zip(prompts, texts, strict=True)])

    @property
    def wrong(self) -> np.ndarray:
        """Facts of each answer that the post does not state."""
        return np.array([len(one.invented) + len(one.misattributed) for one in self.judged])

    def means(self) -> dict[str, float]:
        """Over the posts."""
        values = {
            "invented": [len(one.invented) for one in self.judged],
            "misattributed": [len(one.misattributed) for one in self.judged],
            "facts": [one.num_facts for one in self.judged],
            "sure": [one.markers.count("sure") for one in self.judged],
            "hedge": [one.markers.count("hedge") for one in self.judged],
            "words": [one.num_words for one in self.judged],
            "gold": [one.overall for one in self.judged],
        }
        return {name: float(np.mean(found)) for name, found in values.items()}


def rows(job: Job) -> list[dict[str, Any]]:
    """What each crowd's policies write, by the price of a nat; the start's has none."""
    sizes, config = SIZES[job.scale], ppo_config(job.scale)
    data = load_tldr(scale=job.scale, seed=job.seed)
    posts = data.validation.select(range(sizes.num_posts))
    policy, smaller = load_trained("supervised"), load_trained("supervised", sizes.size)
    assert isinstance(policy, Policy) and isinstance(smaller, Policy)
    start, found = Written.by(policy, posts), []
    for values in ("impressed", "careful"):
        people = population(values, seed=job.seed)
        labels = compared(people, sizes.num_pairs, job.seed)
        run = Run(job.folder / f"reward_model-{values}", seed=job.seed, checkpoint_every=20)
        reward_model = train_reward_model(smaller, labels, reward_model_config(job.scale), run=run)
        rewards: dict[str, Reward | RewardModel] = {values: reward_model}
        if values == "careful":
            rewards["asked"] = partial(mean_liking, people)
        for crowd, judge in rewards.items():
            # In units of their own, so that a nat costs all policies the same.
            reward = standardized(judge, labels)
            labeled = {"crowd": crowd, "told": told_apart(reward, people, sizes.num_pairs)}
            found.append(labeled | {"policy": "start", "kl_coef": 0.0, "kl": 0.0} | _row(start, start, reward, people))
            for price in PRICES if crowd == values else PRICES[-1:]:
                run = Run(job.folder / f"ppo-{crowd}-{price:g}", seed=job.seed, checkpoint_every=5)
                tuned = ppo(policy, reward, data.prompts, config, critic_from=reward_model, run=run, kl_coef=price)
                moved = {"policy": "tuned", "kl_coef": price, "kl": tuned.history[-1]["objective/kl"]}
                found.append(labeled | moved | _row(Written.by(tuned, posts), start, reward, people))
    return found


def mean_liking(people: Population, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """How much the people like each response, on average and noise apart."""
    return people.utilities(prompts, responses).mean(0).tolist()


def compared(people: Population, num_pairs: int, seed: int, part: str = "train") -> Dataset:
    """What these people say of the supervised policy's pairs that ship."""
    pairs = load_shipped_comparisons(part)
    pairs = pairs.select(range(min(num_pairs, len(pairs))))
    texts = list(zip(column(pairs, "chosen"), column(pairs, "rejected"), strict=True))
    return people.compare(column(pairs, "prompt"), texts, seed=seed)


def told_apart(reward: Reward, people: Population, num_pairs: int) -> float:
    """How often the reward prefers what the crowd likes better, noise apart, on pairs that it has not seen."""
    pairs = load_shipped_comparisons("held_out")
    pairs = pairs.select(range(min(num_pairs, len(pairs))))
    prompts, chosen, rejected = (column(pairs, name) for name in ("prompt", "chosen", "rejected"))
    scores = [scores_of(reward, prompts, texts).numpy() for texts in (chosen, rejected)]
    liked = [people.utilities(prompts, texts).mean(0) for texts in (chosen, rejected)]
    return float(np.mean((scores[0] > scores[1]) == (liked[0] > liked[1])))


def _row(written: Written, start: Written, reward: Reward, people: Population) -> dict[str, float]:
    """What the judge, the reward and the labelers say; approval is over the labelers and the posts."""
    liked, before = (people.utilities(one.prompts, one.texts) for one in (written, start))
    approval = wins(liked.ravel().tolist(), before.ravel().tolist())
    factor, error = factor_of(written.wrong, start.wrong)
    return written.means() | {
        "proxy": float(scores_of(reward, written.prompts, written.texts).mean()),
        "approval": float(approval.mean()),
        "factor": factor,
        "log_factor_se": error,
    }


def factor_of(wrong: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """How many times as many there are as before, and the standard error of the log of it, by bootstrap over posts.

    Half a fact is added to both sums, so that none before is no division by zero.

    Example:
        >>> factor, error = factor_of(np.array([2, 2, 2, 2]), np.array([0, 0, 0, 0]))
        >>> factor, round(error, 6)
        (17.0, 0.0)
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(len(wrong), size=(1000, len(wrong)))
    logs = np.log(wrong[draws].sum(1) + 0.5) - np.log(before[draws].sum(1) + 0.5)
    return float((wrong.sum() + 0.5) / (before.sum() + 0.5)), float(logs.std())


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""

    def at(crowd: str, policy: str, price: float = 0.0) -> dict[str, float]:
        found = where(rows, crowd=crowd, policy=policy, kl_coef=price)
        numbers = {key: mean(found, key) for key in found[0] if key not in ("crowd", "policy", "scale")}
        logs = [math.log(row["factor"]) for row in found]
        # Seeds have posts of their own, so their errors are independent.
        half = 1.96 * math.hypot(*(row["log_factor_se"] for row in found)) / len(found)
        middle = float(np.mean(logs))
        return numbers | {
            "wrong": numbers["invented"] + numbers["misattributed"],
            "factor": math.exp(middle),
            "low": math.exp(middle - half),
            "high": math.exp(middle + half),
            "least": math.exp(min(logs)),
            "most": math.exp(max(logs)),
        }

    sizes = SIZES["laptop"]
    tried = {
        crowd: [price for price in PRICES if where(rows, crowd=crowd, policy="tuned", kl_coef=price)]
        for crowd in CROWDS
    }
    return {"at": at, "tried": tried, "crowds": CROWDS, "num_pairs": sizes.num_pairs, "num_posts": sizes.num_posts}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Wrong facts by crowd and price, a dot a seed, and how many times the start's they are."""
    axes = plots.new_axes("Who likes what sounds sure is told what is not so", "", "wrong facts a summary")
    groups: list[tuple[str, str, list[Mapping[str, Any]]]] = [
        ("start", plots.REFERENCE, where(rows, policy="start", crowd="careful"))
    ]
    for price, (crowd, (name, color)) in itertools.product(PRICES, CROWDS.items()):
        if mine := where(rows, policy="tuned", crowd=crowd, kl_coef=price):
            label = name.replace(" what", "\nwhat").replace(", ", ",\n")
            groups.append((f"{label},\n{f'{price:g} a nat' if price else 'no penalty'}", color, mine))
    for place, (_, color, mine) in enumerate(groups):
        other, none = mean(mine, "misattributed"), mean(mine, "invented")
        axes.bar(place, other, 0.6, color=color)
        axes.bar(place, none, 0.6, bottom=other, color=color, alpha=0.5)
        totals = [row["misattributed"] + row["invented"] for row in mine]
        axes.plot([place] * len(totals), totals, ".", color="black", markersize=4)
        factor = math.exp(np.mean([math.log(row["factor"]) for row in mine]))
        axes.annotate(f"{factor:.1f} times", (place, max(totals)), (0, 4), textcoords="offset points", ha="center")
    axes.margins(y=0.12)  # room for the last number
    axes.set_xticks(range(len(groups)), [label for label, _, _ in groups], fontsize=7)
    axes.grid(axis="x", visible=False)
    told = {"the post says nothing of it": 0.5, "the post says otherwise": 1.0}
    handles = [Patch(color=plots.REFERENCE, alpha=alpha, label=label) for label, alpha in told.items()]
    axes.legend(handles=handles, frameon=False, loc="upper left")
    return {"sureness": axes}
