"""Anthropic's question: by how much a preference model beats imitation, where better is by degree and where it is not.

Askell et al. 2021 find that it does by much where good and bad differ by degree (ranked), and hardly where an answer is
right or wrong (binary). Here comparisons of both kinds are of the same answers: ranked ones of any two of them, binary
ones of the best and another. There are two tasks, since it matters too what better means: that a summary tells more of
its post, which makes it longer, or that it is nearer to its post, which makes it likelier.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from rlhf_lab.data.batching import completion_text, encode_candidates
from rlhf_lab.data.world import FAITHFUL, World, WorldPost, Writer
from rlhf_lab.evaluation import reward_model_report, wins
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import Policy, load_base
from rlhf_lab.plots import BESIDE, POLICY, PROXY, REFERENCE, new_axes
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.supervised import sft, sft_config


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    size: str
    numbers: tuple[int, ...]
    """Comparisons to learn from."""
    held_out: int
    batch_size: int
    """Comparisons in an update, or the better answers of as many."""


SIZES = {
    "tiny": Sizes("small", (16,), 16, 8),
    "laptop": Sizes("medium", (150, 600, 2400), 400, 16),
}
LEARNING_RATE = 3e-3
"""Of both methods: for each, 1e-3, 3e-3 and 1e-2 were tried with a seed that is not among the results'."""
TASKS = {"told": "more is told", "near": "nearer to the post"}
KINDS = ("ranked", "binary")
METHODS = {
    "preference": ("preference model", POLICY),
    "mean": ("imitation", PROXY),
    "ratio": ("imitation, less the base model", REFERENCE),
}
"""Label and color of what is drawn."""
LIMITS: dict[str, Any] = {"max_prompt_tokens": 192, "max_response_tokens": 48}


def rows(job: Job) -> list[dict[str, Any]]:
    """Each method's accuracy on held-out comparisons of its kind; after 0 comparisons, that of the base model."""
    sizes, found = SIZES[job.scale], []
    start = load_base(sizes.size)
    for task, kind in itertools.product(TASKS, KINDS):
        train, held_out = (
            comparisons(task, kind, number, split, job.seed)
            for split, number in (("train", max(sizes.numbers)), ("held out", sizes.held_out))
        )
        before = answer_logprobs(start, held_out)
        measured = {0: {name: accuracy(imitation_scores(before, before)[name]) for name in ("mean", "sum")}}
        for number in sizes.numbers:
            few = train.select(range(number))
            measured[number] = accuracies(start, few, held_out, before, sizes.batch_size, job)
        common = {"task": task, "kind": kind, "size": sizes.size, "held_out": sizes.held_out}
        found += [
            {**common, "comparisons": number, "method": method, "accuracy": value}
            for number, values in measured.items()
            for method, value in values.items()
        ]
    return found


def comparisons(task: str, kind: str, number: int, split: str, seed: int) -> Dataset:
    """One comparison a post: of any two of its answers, or of the best and another."""
    world, rows = World(), []
    for index, post in enumerate(world.posts(seed, f"{task} {split}", 2 * number)):
        rng = random.Random(f"{seed}/{task}/{split}/{index}")
        graded = answers(world, post, task, rng)
        pair = rng.sample(graded, 2) if kind == "ranked" else [graded[0], rng.choice(graded[1:])]
        (worse, rejected), (better, chosen) = sorted(pair)
        if better > worse and len(rows) < number:
            rows.append({"prompt": post.query, "chosen": chosen, "rejected": rejected})
    return Dataset.from_list(rows)


def answers(world: World, post: WorldPost, task: str, rng: random.Random) -> list[tuple[float, str]]:
    """Answers to a post with their grades, the best one first."""
    if task == "told":
        writers = [Writer((share,), wrong_prob=0.0, pad_prob=0.0) for share in (1.0, 0.7, 0.35, 0.0)]
        texts = [completion_text(world.summary(rng, post, writer)) for writer in writers]
        return [(gold_judge().judge(post.query, text).coverage, text) for text in texts]
    # Summaries of it, of another such event, and of any event.
    posts = (post, world.post(rng, (post.frame,)), world.post(rng, world.lexicon.training))
    return [(-float(place), completion_text(world.summary(rng, one, FAITHFUL))) for place, one in enumerate(posts)]


def accuracies(
    start: Policy, train: Dataset, held_out: Dataset, before: Float[Tensor, "pairs 2 2"], batch_size: int, job: Job
) -> dict[str, float]:
    """Each method's accuracy after one pass through the comparisons, in as many updates.

    Args:
        start: What both methods start from.
        train: A preference model reads both answers, imitation the chosen one.
        held_out: What is measured on.
        before: `answer_logprobs` of the start there.
        batch_size: Of both methods.
        job: Its seed and scale.
    """
    rankings, imitated = reward_model_config(job.scale), sft_config(job.scale)
    model = train_reward_model(
        start,
        train,
        rankings,
        run=Run(seed=job.seed),
        batch_size=batch_size,
        optimizer=replace(rankings.optimizer, learning_rate=LEARNING_RATE),
    )
    policy = sft(
        start,
        train.remove_columns("rejected").rename_column("chosen", "completion"),
        imitated,
        run=Run(seed=job.seed),
        batch_size=batch_size,
        optimizer=replace(imitated.optimizer, learning_rate=LEARNING_RATE),
    )
    scores = imitation_scores(answer_logprobs(policy, held_out), before)
    return {
        "preference": reward_model_report(model, held_out)["accuracy"]["mean"],
        **{name: accuracy(values) for name, values in scores.items()},
    }


@torch.no_grad()
def answer_logprobs(policy: Policy, pairs: Dataset) -> Float[Tensor, "pairs 2 2"]:
    """Of each chosen and each rejected answer, the log-prob [nats] and the number of tokens, EOS included."""
    parts = []
    for start in range(0, len(pairs), 64):
        part = pairs[start : start + 64]
        texts = [list(pair) for pair in zip(part["chosen"], part["rejected"], strict=True)]
        batch = encode_candidates(policy.tokenizer, part["prompt"], texts, **LIMITS)
        logprobs = candidate_logprobs(policy.network, batch)
        parts.append(torch.stack([logprobs.sum(-1), batch.response_mask.sum(-1).float()], dim=-1))
    return torch.cat(parts)


def imitation_scores(
    after: Float[Tensor, "pairs 2 2"], before: Float[Tensor, "pairs 2 2"]
) -> dict[str, Float[Tensor, "pairs 2"]]:
    """What a policy's log-probs of answers, and those before it learnt, can say about which one is better."""
    return {
        "mean": after[..., 0] / after[..., 1],
        "sum": after[..., 0],
        "ratio": after[..., 0] - before[..., 0],
    }


def accuracy(scores: Float[Tensor, "pairs 2"]) -> float:
    """Share of the pairs whose chosen answer scores higher; ties count half."""
    return float(wins(scores[:, 0].tolist(), scores[:, 1].tolist()).mean())


def gains(rows: Sequence[Mapping[str, Any]], task: str, kind: str, number: int) -> list[float]:
    """Of preference modeling over imitation (mean log-prob), by seed."""
    preference, imitation = (
        where(rows, task=task, kind=kind, comparisons=number, method=method) for method in ("preference", "mean")
    )
    return [one["accuracy"] - other["accuracy"] for one, other in zip(preference, imitation, strict=True)]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    numbers = sorted({row["comparisons"] for row in rows})

    def at(task: str, kind: str, number: int, method: str) -> float:
        return mean(where(rows, task=task, kind=kind, comparisons=number, method=method), "accuracy")

    gain = partial(gains, rows)
    seeds = {task: zip(*(gain(task, kind, numbers[-1]) for kind in KINDS), strict=True) for task in TASKS}
    in_order = {task: sum(ranked > binary for ranked, binary in pairs) for task, pairs in seeds.items()}
    known = {"numbers": numbers[1:], "tasks": TASKS, "kinds": KINDS, "in_order": in_order}
    return {**known, "at": at, "gain": gain}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Accuracy by the number of comparisons, a figure for each meaning of better."""
    titles = {"told": "Where better is longer", "near": "Where better is likelier"}
    return {f"ranked_or_binary_{task}": _figure(where(rows, task=task), title) for task, title in titles.items()}


def _figure(rows: Sequence[Mapping[str, Any]], title: str) -> Axes:
    axes = new_axes(title, "comparisons", "held-out accuracy [%]")
    styles = dict(zip(KINDS, ("o-", "s--"), strict=True))
    for (method, (label, color)), (kind, style) in itertools.product(METHODS.items(), styles.items()):
        mine = where(rows, method=method, kind=kind)
        numbers = sorted({row["comparisons"] for row in mine} - {0})
        values = [[100 * row["accuracy"] for row in where(mine, comparisons=number)] for number in numbers]
        means = [np.mean(seeds) for seeds in values]
        axes.plot(numbers, means, style, color=color, markersize=4, label=f"{label}: {kind}")
        axes.fill_between(numbers, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.12)
    numbers = sorted({row["comparisons"] for row in rows} - {0})
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.minorticks_off()
    axes.axhline(50, color=REFERENCE, linestyle=":", linewidth=1)
    axes.legend(frameon=False, fontsize=8, **BESIDE)
    return axes
