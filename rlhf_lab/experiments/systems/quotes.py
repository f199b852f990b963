"""GopherCite's claim: answers that quote their evidence, and the share of them that is supported if one may abstain."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.quotes import judge_quote, quoting_demonstrations, split_quote
from rlhf_lab.equations.selective import selective_rate
from rlhf_lab.evaluation import wins
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, gold_judge, population
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.quoting import write_with_quotes
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.supervised import sft, sft_config


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    num_demonstrations: int
    num_judged: int
    """Posts of whose answers somebody says which are supported."""
    num_ranked: int
    """The first of them, of whose answers people say which they like."""
    num_posts: int
    n: int
    """Of best-of-n."""


SIZES = {"tiny": Sizes(64, 16, 16, 16, 2), "laptop": Sizes(1500, 800, 400, 256, 4)}
NUM_LABELED_ANSWERS = 2
"""To each post."""
NO_ANSWER = " I cannot tell."
"""Judged worse than a supported answer and better than others, so scores above its own compare across posts."""
LEARNING_RATE = 1e-3
"""Of what is supported: there is more to learn than what people like."""
RESPONSE_TOKENS = 96
SAMPLING = SamplingConfig(max_response_tokens=40, temperature=0.5)
COVERAGES = tuple(round(0.1 * tenths, 1) for tenths in range(2, 11))
NAMES = {
    "both": ("both reward models", plots.POLICY, "o-"),
    "supported": ("the one for supported", plots.GOLD, "s--"),
    "preferred": ("the one for preferred", plots.PROXY, "^-."),
    "random": ("at random", plots.REFERENCE, ":"),
}
"""By what is answered or abstained: label, colour, style."""


def rows(job: Job) -> list[dict[str, Any]]:
    """What share of the answers is supported, and better than the poster's own, by who chooses and by coverage."""
    sizes = SIZES[job.scale]
    data = load_tldr(scale=job.scale, seed=job.seed)
    start = load_trained("supervised")
    assert isinstance(start, Policy)
    policy = _quoting_policy(start, sizes, job)
    preferred, supported = _reward_models(policy, data.prompts, sizes, job)
    posts = data.validation.select(range(sizes.num_posts))
    groups = _answers(policy, posts, sizes.n, job.seed)
    outcomes = _outcomes(posts, groups)
    scores = {"preferred": _scores(preferred, posts, groups), "supported": _scores(supported, posts, groups)}
    scores["supported"] -= _scores(supported, posts, [[NO_ANSWER]] * len(groups))
    # The mean of the two, each in its own standard deviations.
    scores["both"] = 0.5 * (
        scores["preferred"] / scores["preferred"].std() + scores["supported"] / scores["supported"].std()
    )
    rng, found = np.random.default_rng(job.seed), []
    for by in NAMES:
        for n in (1, sizes.n):
            # Abstaining at random is the ablation of the last step alone: its answers are those of both models.
            chosen = scores["both" if by == "random" else by][:, :n].argmax(1)
            told = {key: values[np.arange(len(chosen)), chosen] for key, values in outcomes.items()}
            sure = rng.random(len(chosen)) if by == "random" else scores[by][np.arange(len(chosen)), chosen]
            found += [{"by": by, "n": n, **point} for point in _curve(sure, told, rng)]
    return found


def _quoting_policy(start: Policy, sizes: Sizes, job: Job) -> Policy:
    """The same for every seed, as the policy is that it starts from."""
    demonstrations = load_tldr(scale=job.scale).demonstrations.select(range(sizes.num_demonstrations))
    run = Run(job.folder / "supervised", checkpoint_every=20)
    quoting = quoting_demonstrations(demonstrations, gold_judge())
    return sft(start, quoting, sft_config(job.scale), run=run, max_response_tokens=RESPONSE_TOKENS)


def _answers(policy: Policy, posts: Dataset, number: int, seed: int) -> list[list[str]]:
    rng = torch.Generator().manual_seed(seed)
    return write_with_quotes(policy, column(posts, "prompt"), SAMPLING, num_candidates=number, rng=rng)


def _reward_models(policy: Policy, prompts: Dataset, sizes: Sizes, job: Job) -> tuple[RewardModel, RewardModel]:
    """Of what people prefer, and of what is supported: two judgements of the same answers."""
    posts, ranked = prompts.select(range(sizes.num_judged)), prompts.select(range(sizes.num_ranked))
    groups = [list(dict.fromkeys(group)) for group in _answers(policy, posts, NUM_LABELED_ANSWERS, job.seed + 1)]
    preset = reward_model_config(job.scale)
    judging = replace(preset, optimizer=replace(preset.optimizer, learning_rate=LEARNING_RATE))
    labels = {
        "preferred": (_preferences(ranked, groups[: len(ranked)], job.seed), preset),
        "supported": (_support(posts, groups), judging),
    }
    settings: dict[str, Any] = {"batch_size": 16, "max_response_tokens": RESPONSE_TOKENS}
    models = [
        train_reward_model(
            policy, Dataset.from_list(pairs), config, run=Run(job.folder / name, seed=job.seed), **settings
        )
        for name, (pairs, config) in labels.items()
    ]
    return models[0], models[1]


def _preferences(posts: Dataset, groups: Sequence[Sequence[str]], seed: int) -> list[dict[str, Any]]:
    """People rank the summaries; they do not look at the quotes."""
    prompts = column(posts, "prompt")
    ranks = population(seed=seed).rank(
        prompts, [[split_quote(text)[0] for text in group] for group in groups], seed=seed
    )
    worth = [[-float(rank) for rank in ranking] for ranking in ranks]
    return _pairs(prompts, groups, worth)


def _support(posts: Dataset, groups: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Those who look at the evidence say which of the answers are supported: better than none, or worse."""
    prompts = column(posts, "prompt")
    judged = [
        [float(judge_quote(gold_judge(), prompt, text).supported) for text in group] + [0.5]
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    return _pairs(prompts, [[*group, NO_ANSWER] for group in groups], judged)


def _pairs(
    prompts: Sequence[str], groups: Sequence[Sequence[str]], worth: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Every two answers to a post of which one is worth more."""
    return [
        {"prompt": prompt, "chosen": group[better], "rejected": group[worse], "group": str(index)}
        for index, (prompt, group, values) in enumerate(zip(prompts, groups, worth, strict=True))
        for better, worse in itertools.permutations(range(len(group)), 2)
        if values[better] > values[worse]
    ]


def _scores(model: RewardModel, posts: Dataset, groups: Sequence[Sequence[str]]) -> np.ndarray:
    """(posts, answers)."""
    repeated = [prompt for prompt, group in zip(column(posts, "prompt"), groups, strict=True) for _ in group]
    return np.array(LearnedReward(model)(repeated, list(itertools.chain(*groups)))).reshape(len(groups), -1)


def _outcomes(posts: Dataset, groups: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Of each answer, (posts, answers): whether it is supported, and whether it beats the poster's summary."""
    told: dict[str, list[list[float]]] = {"supported": [], "win_rate": []}
    for prompt, reference, group in zip(column(posts, "prompt"), column(posts, "completion"), groups, strict=True):
        judged = [judge_quote(gold_judge(), prompt, text) for text in group]
        truth = gold_judge().judge(prompt, reference).overall
        told["supported"].append([float(one.supported) for one in judged])
        told["win_rate"].append(wins([one.summary.overall for one in judged], [truth] * len(group)).tolist())
    return {key: np.array(values) for key, values in told.items()}


def _curve(sure: np.ndarray, told: Mapping[str, np.ndarray], rng: np.random.Generator) -> list[dict[str, float]]:
    """A row for each coverage; the gain over answering everything has a bootstrap's error, over posts."""
    coverages = np.array(COVERAGES)
    curves = {key: selective_rate(sure, values, coverages) for key, values in told.items()}
    draws = [rng.integers(len(sure), size=len(sure)) for _ in range(500)]
    resampled = np.array([selective_rate(sure[draw], told["supported"][draw], coverages) for draw in draws])
    errors = (resampled - resampled[:, -1:]).std(0, ddof=1)
    return [
        {"coverage": coverage}
        | {key: float(curve[index]) for key, curve in curves.items()}
        | {"gain": float(curves["supported"][index] - curves["supported"][-1]), "gain_se": float(errors[index])}
        for index, coverage in enumerate(COVERAGES)
    ]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    largest = max(row["n"] for row in rows)

    def at(by: str, n: int, coverage: float) -> dict[str, float]:
        found = where(rows, by=by, n=n, coverage=coverage)
        # Seeds have posts of their own, so their errors are independent.
        error = math.hypot(*(row["gain_se"] for row in found)) / len(found)
        return {key: mean(found, key) for key in ("supported", "win_rate", "gain")} | {"gain_se": error}

    return {"at": at, "largest": largest, "names": NAMES}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Supported answers by coverage."""
    axes = plots.new_axes("Answering only when sure", "posts that are answered [%]", "answers that are supported [%]")
    largest = max(row["n"] for row in rows)
    at = [100 * coverage for coverage in COVERAGES]
    for by, (label, color, style) in NAMES.items():
        by_coverage = [
            [100 * row["supported"] for row in where(rows, by=by, n=largest, coverage=coverage)]
            for coverage in COVERAGES
        ]
        axes.plot(at, [float(np.mean(seeds)) for seeds in by_coverage], style, color=color, label=label, markersize=4)
        if by in ("both", "random"):
            low, high = ([end(seeds) for seeds in by_coverage] for end in (min, max))
            axes.fill_between(at, low, high, color=color, alpha=0.15)
    axes.invert_xaxis()
    axes.legend(frameon=False, title="chosen and abstained by", **plots.BESIDE)
    return {"quotes": axes}
