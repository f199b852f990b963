"""InstructGPT's batch element: all pairs of a ranking at once, against the same pairs one by one.

Simulated people rank K summaries of each post. Three reward models go once through the same pairs: as elements, as lone
pairs in batches of as many elements (an answer is then met in K - 1 updates, as Ouyang et al. describe), and as lone
pairs in batches of as many pairs, so that the number of updates is the same too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.equations.preference import bradley_terry_loss
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, Population, population
from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.plots import POLICY, PROXY, REFERENCE, new_axes
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.rankings import ranking_rows
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

SETTINGS = {
    "tiny": {"size": "small", "num_answers": 4, "num_prompts": 16, "held_out": 16, "batch_size": 4},
    "laptop": {"size": "large", "num_answers": 4, "num_prompts": 256, "held_out": 256, "batch_size": 8},
}
ARMS = {
    "one element": "all pairs in one element",
    "shuffled": "pairs shuffled,\nas many elements a batch",
    "shuffled, same updates": "pairs shuffled,\nas many updates",
}


def rows(job: Job) -> list[dict[str, Any]]:
    """One row an arm: loss and accuracy on the rankings that were learnt and on others."""
    settings = SETTINGS[job.scale]
    policy = load_trained("supervised", settings["size"])
    writer = load_trained("supervised", "small" if job.scale == "tiny" else "large")
    assert isinstance(policy, Policy) and isinstance(writer, Policy)
    data = load_tldr(scale=job.scale)
    people = population(seed=job.seed, agreement=0.6 if job.scale == "tiny" else 0.73)
    train, held_out = (
        ranked(writer, posts.shuffle(seed=job.seed), settings[number], settings["num_answers"], people, seed=job.seed)
        for posts, number in ((data.prompts, "num_prompts"), (data.validation, "held_out"))
    )
    return [
        {"arm": arm, **settings, **measured(policy, train, held_out, arm, settings["batch_size"], job)} for arm in ARMS
    ]


def ranked(
    writer: Policy, posts: Dataset, num_prompts: int, num_answers: int, people: Population, *, seed: int
) -> Dataset:
    """What people say about the writer's summaries, as comparisons; posts without K different ones are left out."""
    prompts = column(posts, "prompt")[:num_prompts]
    sampling = SamplingConfig(max_response_tokens=48, temperature=1.0)
    rng = torch.Generator().manual_seed(seed)
    written = generate(writer, prompts, sampling, num_candidates=num_answers, rng=rng)
    asked = [
        (prompt, answers)
        for prompt, answers in zip(prompts, written, strict=True)
        if len({answer.strip() for answer in answers} - {""}) == num_answers
    ]
    prompts, written = [prompt for prompt, _ in asked], [answers for _, answers in asked]
    return ranking_rows(prompts, written, people.rank(prompts, written, seed=seed))


def measured(
    policy: Policy, train: Dataset, held_out: Dataset, arm: str, batch_size: int, job: Job
) -> dict[str, float | int]:
    """A reward model that has seen each pair once, on what it has learnt and on other posts."""
    groups = len(set(train["group"]))
    lone = train if arm == "one element" else train.remove_columns("group")
    size = batch_size * len(train) // groups if arm == "shuffled, same updates" else batch_size
    config = reward_model_config(job.scale)
    model = train_reward_model(policy, lone, config, run=Run(seed=job.seed), num_epochs=1.0, batch_size=size)
    (train_loss, train_accuracy), (loss, accuracy) = (fit_to(model, rows) for rows in (train, held_out))
    return {
        "rankings": groups,
        "pairs": len(train),
        "updates": len(model.history),
        "train_loss": train_loss,
        "held_out_loss": loss,
        "gap": loss - train_loss,
        "train_accuracy": train_accuracy,
        "held_out_accuracy": accuracy,
    }


def fit_to(model: RewardModel, comparisons: Dataset) -> tuple[float, float]:
    """Loss [nats] and accuracy of a pair."""
    prompts = [prompt for prompt in comparisons["prompt"] for _ in range(2)]
    pairs = zip(comparisons["chosen"], comparisons["rejected"], strict=True)
    scores = torch.tensor(LearnedReward(model)(prompts, [text for pair in pairs for text in pair]))
    chosen, rejected = scores[::2], scores[1::2]
    return bradley_terry_loss(chosen, rejected).mean().item(), (chosen > rejected).float().mean().item()


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Loss on the pairs that were learnt and on others, an arm a pair of bars."""
    axes = new_axes("Pairs of one ranking belong in one update", "", "loss of a pair [nats]")
    for shift, key, color, label in (
        (-0.18, "train_loss", PROXY, "rankings that were learnt"),
        (0.18, "held_out_loss", POLICY, "rankings of other posts"),
    ):
        for place, arm in enumerate(ARMS):
            mine = where(rows, arm=arm)
            axes.bar(place + shift, mean(mine, key), 0.34, color=color, label=label if place == 0 else None)
            seeds = np.array([row[key] for row in mine])
            axes.plot(np.full(len(seeds), place + shift), seeds, "o", color="black", markersize=3)
    axes.axhline(float(np.log(2)), color=REFERENCE, linestyle="--", linewidth=1, label="a coin")
    axes.set_xticks(range(len(ARMS)), list(ARMS.values()))
    axes.set_ylim(0, 1.35 * max(row["held_out_loss"] for row in rows))
    axes.legend(loc="upper left", frameon=False, ncols=2, fontsize=9)
    axes.grid(axis="x", visible=False)
    return {"rankings": axes}
