"""Two groups with opposite tastes, one four times as large: what a reward made of all labels costs the smaller one.

Policies are made from each aggregation in two ways: as the best of several samples, which is cheap, for all of them,
and by PPO for the main ones. What a group thinks of a policy is what its people think of its answers, noise apart.
"""

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
from rlhf_lab.aggregation import aggregate, jury, standardized, worst
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.experiments.systems.sections import Job, mean, seeds_of, where
from rlhf_lab.feedback import Population, Reward, population, scores_of
from rlhf_lab.generation import generate
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

MAJORITY, MINORITY = "thorough", "brief"
SHARES = {MAJORITY: 0.8, MINORITY: 0.2}
AGREEMENT = 0.66
"""Of any two of all people. It makes two of the larger group agree on four pairs in five."""
VOTERS = 5
"""People who compare a pair, where the majority decides."""


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    size: str
    """Of the reward models."""
    num_labels: int
    num_posts: int
    n: int
    """Of best-of-n."""
    num_steps: int
    """Of PPO."""
    num_tuned_samples: int
    """For each post, of a policy that PPO trained."""


SIZES = {"tiny": Sizes("small", 60, 8, 4, 2, 1), "laptop": Sizes("medium", 1400, 96, 16, 16, 2)}
TUNED = ("blind", "per_group", "jury")
"""What PPO trains policies with; best-of-n chooses by every method."""


def rows(job: Job) -> list[dict[str, Any]]:
    """How much each group likes what it is given, by aggregation, and how much more it likes that than the start's."""
    sizes, config = SIZES[job.scale], ppo_config(job.scale)
    data = load_tldr(scale=job.scale, seed=job.seed)
    posts = column(data.validation.select(range(sizes.num_posts)), "prompt")
    policy = load_trained("supervised")
    assert isinstance(policy, Policy)
    people = population(SHARES, seed=job.seed, agreement=AGREEMENT)
    rewards, critics = _rewards(people, job)
    rng = torch.Generator().manual_seed(job.seed)
    samples = generate(policy, posts, config.sampling, num_candidates=sizes.n, rng=rng)
    liked = _liked(people, posts, samples)
    start = {group: values.mean(1) for group, values in liked.items()}
    found = [_row("start", "start", group, start[group], start[group], 0.0) for group in SHARES]
    for method, by_group in rewards.items():
        for group, reward in by_group.items():
            best = _scores(reward, posts, samples).argmax(1)[:, None]
            values = np.take_along_axis(liked[group], best, axis=1)[:, 0]
            found.append(_row(method, "best_of_n", group, values, start[group], math.log(sizes.n) - 1 + 1 / sizes.n))
    for method in TUNED:
        policies: dict[int, tuple[dict[str, np.ndarray], float]] = {}
        for group, reward in rewards[method].items():
            # One policy for all who share a reward.
            if id(reward) not in policies:
                run = Run(job.folder / f"ppo-{method}-{group}", seed=job.seed, checkpoint_every=5)
                settings: dict[str, Any] = {"num_steps": sizes.num_steps, "critic_from": critics[method, group]}
                tuned = ppo(policy, reward, data.prompts, config, run=run, **settings)
                rng = torch.Generator().manual_seed(job.seed)
                written = generate(tuned, posts, config.sampling, num_candidates=sizes.num_tuned_samples, rng=rng)
                policies[id(reward)] = _liked(people, posts, written), tuned.history[-1]["objective/kl"]
            values, kl = policies[id(reward)]
            found.append(_row(method, "ppo", group, values[group].mean(1), start[group], kl))
    return found


def _rewards(
    people: Population, job: Job
) -> tuple[dict[str, Mapping[str, Reward]], dict[tuple[str, str], RewardModel]]:
    """Each aggregation's reward for each group, and the reward model that a critic against it starts from."""
    sizes, made = SIZES[job.scale], []
    smaller = load_trained("supervised", sizes.size)

    def train(rows: Dataset) -> RewardModel:
        run = Run(job.folder / f"reward_model-{len(made)}", seed=job.seed, checkpoint_every=20)
        made.append(train_reward_model(smaller, rows, reward_model_config(job.scale), run=run, batch_size=16))
        return made[-1]

    pairs = load_shipped_comparisons("train").select(range(sizes.num_labels))
    prompts, texts = column(pairs, "prompt"), list(zip(column(pairs, "chosen"), column(pairs, "rejected"), strict=True))
    labels, voted = people.compare(prompts, texts, seed=job.seed), sizes.num_labels // VOTERS
    votes = people.compare(prompts[:voted], texts[:voted], num_labels=VOTERS, seed=job.seed)
    rewards = {
        method: aggregate(method, votes if method == "majority" else labels, people, train)
        for method in ("blind", "majority", "weighted", "per_group")
    }
    # The groups' own models again, so they are not learnt twice.
    own = rewards["per_group"]
    panels = {"jury": jury(own, seats=dict.fromkeys(own, 6)), "worst": worst(own)}
    rewards |= {method: dict.fromkeys(own, standardized(panel, labels)) for method, panel in panels.items()}
    critics = {("per_group", group): model for group, model in zip(own, made[3:], strict=True)}
    critics |= {(method, group): made[0] for method in ("blind", "jury") for group in own}
    return rewards, critics


def _liked(people: Population, posts: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """How much each group's people like each answer, on average [points]: (posts, samples)."""
    repeated = [post for post, group in zip(posts, groups, strict=True) for _ in group]
    utilities = people.utilities(repeated, list(itertools.chain(*groups)))
    is_in = {group: [one.values == group for one in people.labelers] for group in SHARES}
    return {group: utilities[mine].mean(0).reshape(len(posts), -1) for group, mine in is_in.items()}


def _scores(reward: Reward, posts: Sequence[str], groups: Sequence[Sequence[str]]) -> np.ndarray:
    repeated = [post for post, group in zip(posts, groups, strict=True) for _ in group]
    return scores_of(reward, repeated, list(itertools.chain(*groups))).numpy().reshape(len(posts), -1)


def _row(method: str, by: str, group: str, values: np.ndarray, start: np.ndarray, kl: float) -> dict[str, Any]:
    gain = values - start
    return {
        "method": method,
        "by": by,
        "group": group,
        "liking": float(values.mean()),
        "gain": float(gain.mean()),
        "gain_se": float(gain.std(ddof=1) / math.sqrt(len(gain))),
        "kl": kl,
    }


def losses(rows: Sequence[Mapping[str, Any]], by: str, group: str, seed: int) -> tuple[float, dict[str, float]]:
    """What a group misses with the blind reward beside its own model's, and what share each aggregation gives back."""
    gains = {row["method"]: row["gain"] for row in where(rows, by=by, group=group, seed=seed)}
    loss = gains["per_group"] - gains["blind"]
    return loss, {method: (gain - gains["blind"]) / loss for method, gain in gains.items()}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""

    def at(by: str, method: str, group: str) -> dict[str, float]:
        found = where(rows, by=by, method=method, group=group)
        # Seeds have posts of their own, so their errors are independent.
        error = math.hypot(*(row["gain_se"] for row in found)) / len(found)
        gains = [row["gain"] for row in found]
        return {key: mean(found, key) for key in ("liking", "gain", "kl")} | {
            "gain_se": error,
            "least": min(gains),
            "most": max(gains),
        }

    def loss(by: str, group: str) -> list[float]:
        return [losses(rows, by, group, seed)[0] for seed in seeds_of(rows)]

    def given_back(by: str, method: str, group: str) -> float:
        """Of the mean loss over seeds, as a single seed's may be near 0."""
        gains = {name: at(by, name, group)["gain"] for name in ("blind", "per_group", method)}
        return (gains[method] - gains["blind"]) / (gains["per_group"] - gains["blind"])

    methods = {by: list(dict.fromkeys(row["method"] for row in where(rows, by=by))) for by in ("best_of_n", "ppo")}
    known = {"minority": MINORITY, "majority": MAJORITY, "shares": SHARES, "voters": VOTERS, "agreement": AGREEMENT}
    return known | {"at": at, "loss": loss, "given_back": given_back, "methods": methods, "sizes": SIZES["laptop"]}


LABELS = {
    "blind": "all labels alike",
    "majority": "majority's vote",
    "weighted": "groups weigh alike",
    "jury": "jury, half the seats",
    "worst": "least content group",
    "per_group": "each group's own",
}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """What each group gains over the start, by aggregation."""
    axes = plots.new_axes("One reward for all is the majority's", "liking, above the start's [points]", "")
    offsets = {
        (by, group): (place - 1.5) * 0.2
        for place, (by, group) in enumerate(itertools.product(("best_of_n", "ppo"), SHARES))
    }
    colors = {MAJORITY: plots.REFERENCE, MINORITY: plots.POLICY}
    names = {"best_of_n": f"best-of-{SIZES['laptop'].n}", "ppo": "PPO"}
    for (by, group), offset in offsets.items():
        for place, method in enumerate(LABELS):
            gains = [row["gain"] for row in where(rows, by=by, method=method, group=group)]
            if not gains:
                continue
            label = f"{group} ({SHARES[group]:.0%}), {names[by]}" if method == "blind" else None
            alpha = 0.55 if by == "best_of_n" else 1.0
            axes.barh(place + offset, np.mean(gains), 0.18, color=colors[group], alpha=alpha, label=label)
            axes.plot(gains, [place + offset] * len(gains), ".", color="black", markersize=3)
    axes.set_yticks(range(len(LABELS)), list(LABELS.values()))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=8, **plots.BESIDE)
    return {"minority": axes}
