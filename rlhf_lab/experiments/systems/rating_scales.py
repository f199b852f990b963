"""Ratings against comparisons by the same people in the same time: what own scales cost, and what centring mends."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.equations.overoptimization import best_of_n_values
from rlhf_lab.evaluation import wins
from rlhf_lab.experiments.systems.people_time import NUM_PEOPLE, SECONDS, asked, labels_in, temperature_of
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, Population, gold_judge, population
from rlhf_lab.generation import distinct_pairs
from rlhf_lab.labeling.learning import comparison_rows
from rlhf_lab.labeling.single import rating_rows
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.ppo import ppo_config
from rlhf_lab.training.ratings import centered, rating_model_config, train_rating_model
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    minutes: tuple[float, ...]
    num_crowds: int
    """Of each seed: people, what they are asked, and reward models of their own."""
    num_posts: int
    n: int
    """Of best-of-n."""
    num_held_out: int
    """Pairs to test the reward models on."""


SIZES = {"tiny": Sizes((10.0,), 1, 8, 4, 16), "laptop": Sizes((60.0, 240.0), 8, 64, 8, 300)}
SCALES = {0.0: "one scale", 1.0: "own scales", 3.0: "three times as far apart"}
"""How far people's uses of the 7 points lie apart, in the spread that `population` draws."""
WAYS = {"raw": "ratings as they are", "centered": "centred", "scaled": "z-scores"}
NUM_EPOCHS, BATCH, RATE = 2.0, 8, 1e-3
"""Of every reward model: at the preset's lower one, ratings were hardly learnt in a few dozen updates."""
COLORS = {"compare": plots.PROXY, "raw": plots.REFERENCE, "centered": plots.POLICY, "scaled": plots.GOLD}


@dataclass(frozen=True)
class Test:
    """What reward models are tested on: pairs with their gold order and the people's, and samples to choose from."""

    prompts: list[str]
    texts: list[str]
    """The two answers to each prompt in turn."""
    gold: np.ndarray
    samples: Samples
    grades: np.ndarray
    """Of the samples, by the gold judge: (posts, samples)."""

    def told(self, model: RewardModel, people: Population) -> dict[str, float]:
        """How often the model orders a pair as the gold judge does and as the people do, and the grade of its best."""
        reward = LearnedReward(model, batch_size=256)
        margins = np.subtract(*np.reshape(reward(self.prompts, self.texts), (-1, 2)).T)
        liked = people.utilities(self.prompts, self.texts).mean(0)
        scores = self.samples.scores(reward)
        return {
            "gold_accuracy": _agreeing(margins, self.gold),
            "people_accuracy": _agreeing(margins, np.subtract(*liked.reshape(-1, 2).T)),
            "gold": float(best_of_n_values(scores, self.grades, scores.shape[1]).mean()),
        }


def _agreeing(margins: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs that are no ties in truth."""
    signed = (margins * np.sign(truth))[truth != 0]
    return float(wins(signed.tolist(), [0.0] * len(signed)).mean())


def rows(job: Job) -> list[dict[str, Any]]:
    """One row a reward model: from whom, in which time, by which labels."""
    sizes, data = SIZES[job.scale], load_tldr(scale=job.scale, seed=job.seed)
    # Any size learns what people say of one policy's summaries (section b), so the cheapest does.
    policy, start = load_trained("supervised"), load_trained("supervised", "small")
    assert isinstance(policy, Policy) and isinstance(start, Policy)
    test, found = _test(policy, data.validation, sizes, job), []
    nobody = {"crowd": 0, "minutes": 0.0, "scale": 0.0, "way": "supervised", "num_labels": 0}
    found.append(nobody | {"gold_accuracy": 0.5, "people_accuracy": 0.5, "gold": float(test.grades.mean())})
    for crowd in range(sizes.num_crowds):
        seed = job.seed * sizes.num_crowds + crowd
        most = labels_in("rate", sizes.minutes[-1])
        asked_of = column(data.prompts.shuffle(seed=seed), "prompt")
        drawn = distinct_pairs(policy, asked_of, int(1.1 * most), ppo_config(job.scale).sampling, seed=seed)
        # Nobody rates a post twice: the same answer might come again, and get another rating.
        items = list(dict(zip(*drawn, strict=True)).items())[:most]
        prompts, pairs = [prompt for prompt, _ in items], [pair for _, pair in items]
        agreement = 0.6 if job.scale == "tiny" else 0.73
        people = population(num_labelers=NUM_PEOPLE, seed=seed, agreement=agreement)
        for scale, way, labels in _labels(people, prompts, pairs, seed):
            for minutes in sizes.minutes:
                kind = "compare" if way == "compare" else "rate"
                # A pair that differs in white space only is no comparison.
                mine = labels.select(range(min(labels_in(kind, minutes), len(labels))))
                mine = mine if way in ("compare", "raw") else centered(mine, scaled=way == "scaled")
                model = _learnt(start, mine, job, job.folder / f"{crowd}-{scale:g}-{way}-{minutes:g}")
                known = {"crowd": crowd, "minutes": minutes, "scale": scale, "way": way, "num_labels": len(mine)}
                found.append(known | test.told(model, people))
    return found


def _test(policy: Policy, posts: Dataset, sizes: Sizes, job: Job) -> Test:
    sampling = ppo_config(job.scale).sampling
    samples = Samples.of(policy, posts.select(range(sizes.num_posts)), sizes.n, sampling, seed=job.seed)
    repeated = [prompt for prompt in samples.prompts for _ in range(sizes.n)]
    grades = np.reshape(gold_judge()(repeated, samples.texts), samples.won.shape)
    asked_of = column(posts, "prompt")[sizes.num_posts :] or column(posts, "prompt")
    prompts, pairs = distinct_pairs(policy, asked_of, sizes.num_held_out, sampling, seed=job.seed)
    repeated, texts = [prompt for prompt in prompts for _ in range(2)], [text for pair in pairs for text in pair]
    gold = np.subtract(*np.reshape(gold_judge()(repeated, texts), (-1, 2)).T)
    return Test(repeated, texts, gold, samples, grades)


def _labels(
    people: Population, prompts: list[str], pairs: list[tuple[str, str]], seed: int
) -> list[tuple[float, str, Dataset]]:
    """What these people say, compared and rated, with uses of the scale that lie differently far apart."""
    # Whatever they are asked, an answer is felt with the same noise.
    how: dict[str, Any] = {"temperature": temperature_of(people, prompts, pairs), "seed": seed}
    number = int(len(prompts) * SECONDS["rate"] / SECONDS["compare"])
    compared = asked("compare", people, prompts[:number], pairs[:number], **how)
    found = [(1.0, "compare", comparison_rows(compared))]
    for scale in SCALES:
        crowd = _spread(people, scale)
        rated = asked("rate", crowd, prompts, [pair[:1] for pair in pairs], **how)
        found += [(scale, way, rating_rows(rated)) for way in WAYS]
    return found


def _spread(people: Population, scale: float) -> Population:
    """The same people, their uses of the 7 points so many times as far apart."""
    labelers = tuple(
        replace(one, rating_offset=scale * one.rating_offset, rating_scale=one.rating_scale**scale)
        for one in people.labelers
    )
    return replace(people, labelers=labelers)


def _learnt(start: Policy, labels: Dataset, job: Job, folder: Path) -> RewardModel:
    run = Run(folder, seed=job.seed, checkpoint_every=20)
    settings: dict[str, Any] = {"run": run, "num_epochs": NUM_EPOCHS, "batch_size": BATCH}
    if "chosen" in labels.column_names:
        config = reward_model_config(job.scale)
        settings["optimizer"] = replace(config.optimizer, learning_rate=RATE)
        return train_reward_model(start, labels, config, **settings)
    config = rating_model_config(job.scale)
    settings["optimizer"] = replace(config.optimizer, learning_rate=RATE)
    return train_rating_model(start, labels, config, **settings)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    measures = ("gold_accuracy", "people_accuracy", "gold")
    points, back = [], []
    for minutes in sorted({row["minutes"] for row in rows} - {0.0}):
        at = where(rows, minutes=minutes)
        for scale, way in ((1.0, "compare"), *itertools.product(SCALES, WAYS)):
            found = where(at, scale=scale, way=way)
            point = {key: mean(found, key) for key in measures}
            behind = {f"{key}_behind": _ahead(where(at, way="compare"), found, key) for key in measures}
            known = {"minutes": minutes, "way": way, "name": WAYS.get(way, "comparisons"), "scale": SCALES[scale]}
            points.append(known | point | behind | {"num_labels": found[0]["num_labels"]})
        for scale in (1.0, 3.0):
            raw, mended = (where(at, scale=scale, way=way) for way in ("raw", "centered"))
            gaps = {
                key: {"gap": _ahead(where(at, way="compare"), raw, key), "back": _ahead(mended, raw, key)}
                for key in measures
            }
            back.append({"minutes": minutes, "scale": SCALES[scale]} | gaps)
    start = where(rows, way="supervised")
    times = sorted({row["minutes"] for row in rows} - {0.0})
    return {
        "points": points,
        "back": back,
        "times": times,
        "start": mean(start, "gold"),
        "num_people": NUM_PEOPLE,
        "num_crowds": len({row["crowd"] for row in rows if row["way"] == "compare"}),
        "seconds": SECONDS,
    }


def _ahead(some: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """How far some models are ahead of others of the same crowds: mean, and its standard error over the crowds."""
    gaps = []
    for row in some:
        (same,) = where(others, seed=row["seed"], crowd=row["crowd"])
        gaps.append(row[key] - same[key])
    error = float(np.std(gaps, ddof=1) / math.sqrt(len(gaps))) if len(gaps) > 1 else 0.0
    return float(np.mean(gaps)), error


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Accuracy in the gold order by how far people's scales lie apart, comparisons as a level; one for each time."""
    times = sorted({row["minutes"] for row in rows} - {0.0})
    return {f"rating_scales_{minutes:g}": _figure(where(rows, minutes=minutes), float(minutes)) for minutes in times}


def _figure(rows: Sequence[Mapping[str, Any]], minutes: float) -> Axes:
    title = f"Ratings and comparisons, {minutes:g} minutes of people's time"
    axes = plots.new_axes(title, "people's uses of the 7 points", "pairs in the gold order [%]")
    level = 100 * mean(where(rows, way="compare"), "gold_accuracy")
    axes.axhline(level, color=COLORS["compare"], label="comparisons")
    for offset, (way, label) in enumerate(WAYS.items()):
        places = np.arange(len(SCALES)) + 0.12 * (offset - 1)
        means = [100 * mean(where(rows, way=way, scale=scale), "gold_accuracy") for scale in SCALES]
        axes.plot(places, means, "o-", color=COLORS[way], label=label)
        for place, scale in zip(places, SCALES, strict=True):
            values = [100 * row["gold_accuracy"] for row in where(rows, way=way, scale=scale)]
            axes.plot([place] * len(values), values, ".", color=COLORS[way], alpha=0.4, markersize=4)
    axes.set_xticks(range(len(SCALES)), [name.replace(" as ", "\nas ", 1) for name in SCALES.values()])
    axes.legend(frameon=False, **plots.BESIDE)
    return axes
