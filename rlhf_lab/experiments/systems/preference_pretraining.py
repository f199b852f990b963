"""Anthropic's preference-model pretraining: many cheap comparisons first, then a few of the people who matter.

The cheap source is another crowd, on summaries that writers of the world made: no model has to write them. The
comparisons that count are those that ship with the course: of the supervised policy's summaries, by other people.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.world import CAREFUL, CARELESS, PERSON, World
from rlhf_lab.evaluation import reward_model_report
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import population
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.plots import POLICY, REFERENCE, new_axes
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

CROWD = "thorough+warm+trusting"
SETTINGS = {
    "tiny": {"size": "small", "pretraining_pairs": 64, "numbers": (16, 32), "held_out": 32},
    "laptop": {"size": "medium", "pretraining_pairs": 3000, "numbers": (200, 1400), "held_out": 400},
}
GENTLE = 1e-4
"""Learning rate that keeps what is known; the preset's is three times as high, and the better one for a new head."""
ARMS = {
    "policy": "from the supervised policy",
    "policy, faster": "the same at the preset's rate",
    "pretrained": "after preference-model pretraining",
}


def rows(job: Job) -> list[dict[str, Any]]:
    """Accuracy on held-out comparisons, with and without pretraining, by the number that was learnt from; 0 is none."""
    settings = SETTINGS[job.scale]
    policy = load_trained("supervised", settings["size"])
    assert isinstance(policy, Policy)
    config = reward_model_config(job.scale)
    pretrained = train_reward_model(
        policy, cheap_comparisons(settings["pretraining_pairs"], job.seed), config, run=Run(seed=job.seed)
    )
    train = load_shipped_comparisons("train").shuffle(seed=job.seed)
    held_out = load_shipped_comparisons("held_out").select(range(settings["held_out"]))
    common = {name: settings[name] for name in ("size", "pretraining_pairs", "held_out")}
    found = [{"start": "pretrained", "comparisons": 0, **common, "accuracy": accuracy(pretrained, held_out)}]
    for number in settings["numbers"]:
        few = train.select(range(min(number, len(train))))
        for name in ARMS:
            start, gently = pretrained if name == "pretrained" else policy, name != "policy, faster"
            rate = replace(config.optimizer, learning_rate=GENTLE) if gently else config.optimizer
            model = train_reward_model(start, few, config, run=Run(seed=job.seed), batch_size=8, optimizer=rate)
            found.append({"start": name, "comparisons": len(few), **common, "accuracy": accuracy(model, held_out)})
    return found


def accuracy(model: RewardModel, comparisons: Dataset) -> float:
    """Share of the comparisons on which it chooses as the labeler did."""
    return reward_model_report(model, comparisons)["accuracy"]["mean"]


def cheap_comparisons(number: int, seed: int) -> Dataset:
    """Two summaries of a post by different kinds of writers, compared by the cheap crowd."""
    world, prompts, pairs = World(), [], []
    for index, post in enumerate(world.posts(seed, "preference pretraining", 2 * number)):
        rng = random.Random(f"{seed}/preference pretraining/{index}/summaries")
        writers = rng.sample([CAREFUL, PERSON, CARELESS], 2)
        first, second = (completion_text(world.summary(rng, post, writer)) for writer in writers)
        if first != second and len(pairs) < number:
            prompts.append(post.query)
            pairs.append((first, second))
    return population(CROWD, seed=seed).compare(prompts, pairs, seed=seed)


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Accuracy by the number of comparisons, with and without pretraining; bands over seeds."""
    axes = new_axes("Cheap preferences help most where labels are few", "comparisons", "held-out accuracy [%]")
    styles = ((REFERENCE, "--"), (REFERENCE, ":"), (POLICY, "-"))
    for (start, label), (color, style) in zip(ARMS.items(), styles, strict=True):
        numbers = sorted({row["comparisons"] for row in where(rows, start=start) if row["comparisons"]})
        values = [[100 * row["accuracy"] for row in where(rows, start=start, comparisons=n)] for n in numbers]
        axes.plot(numbers, [sum(group) / len(group) for group in values], style, marker="o", color=color, label=label)
        axes.fill_between(numbers, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.15)
    axes.axhline(
        100 * mean(where(rows, comparisons=0), "accuracy"), color=POLICY, linestyle="-.", label="pretraining alone"
    )
    axes.set_xscale("log")
    numbers = sorted({row["comparisons"] for row in rows if row["comparisons"]})
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.minorticks_off()
    axes.legend(loc="best", frameon=False)
    return {"preference_pretraining": axes}
