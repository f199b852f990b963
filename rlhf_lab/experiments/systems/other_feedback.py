"""Ratings, thumbs, comparisons, rankings, edits and written feedback, each for the same minutes of a person's time."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.revising import refining_demonstrations, refining_prompt
from rlhf_lab.experiments.systems.people_time import (
    DECISION,
    NUM_PEOPLE,
    POST_WORDS,
    SECONDS,
    SUMMARY_WORDS,
    WORDS_READ,
    WORDS_TYPED,
    WORK,
    asked,
    labels_in,
    minutes_of,
    temperature_of,
    words_written,
)
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, gold_judge, population
from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.labeling.learning import comparison_rows
from rlhf_lab.labeling.single import comment_rows, edit_rows, rating_rows, thumb_rows
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.ratings import centered, rating_model_config, train_rating_model
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.supervised import sft, sft_config


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    size: str
    """Of the policy; reward models have the smallest, as any size learns what is said of one policy (section b)."""
    minutes: tuple[float, ...]
    rl_steps: int
    """Of PPO."""
    num_posts: int
    num_refinements: int
    """Examples of following feedback, which the world writes."""


SIZES = {"tiny": Sizes("small", (8.0,), 1, 8, 64), "laptop": Sizes("large", (15.0, 60.0, 240.0), 10, 128, 12_000)}
ASKED = SamplingConfig(max_response_tokens=48, temperature=0.7)
"""How the answers are drawn about which people are asked."""
CAREFUL = ("edit", "comment")
"""Kinds for which people hold each fact against the post, which takes them longer."""
NUM_RANKED = 4
BATCH = 16
NUM_SPREAD = 256
"""Answers over which a reward's spread is taken."""
REFINING = SamplingConfig(max_response_tokens=48, temperature=0.3)
"""How refinements are drawn: the surer ones add less of their own accord, which is mostly wrong."""
REFINING_TOKENS = 320
"""Of a post, a draft and feedback; nothing is cut."""
NUM_SAMPLES = 2
"""For each post, of a policy that is judged."""
NUM_TRIED = 4
"""Refinements of a draft, of which the reward model keeps one."""
KL_PRICE = 0.4
"""Of a nat, in standard deviations of the reward over the answers that were asked about: each kind of reward has a unit
of its own, and at one price for all of them some would go far and others stay."""
NUM_EPOCHS, RATE = 2.0, 1e-3
"""Of every reward model, as in `rating_scales`."""
IMITATION = {"num_epochs": 3.0, "batch_size": 16}
IMITATION_RATE = 2e-4
"""Chosen on seed 10: at three times as much, policies of a few dozen refinements were hardly better than nobody's."""
NAMES = {
    "rate": ("ratings", plots.REFERENCE, "o:"),
    "thumbs": ("thumbs", "#56B4E9", "v:"),
    "compare": ("comparisons", plots.PROXY, "s-"),
    "rank": (f"rankings of {NUM_RANKED}", "#CC79A7", "D-"),
    "edit": ("edits, imitated", plots.GOLD, "^--"),
    "edit, compared": ("edits, compared", "#D55E00", "<-."),
    "comment": ("written feedback", plots.POLICY, "P--"),
}
"""By the way that people are asked and learnt from: label, colour, style."""


@dataclass(frozen=True)
class _Lab:
    """What all ways of asking share in one seed."""

    job: Job
    policy: Policy
    prompts: Dataset
    pool: dict[str, list[dict[str, Any]]]
    """Labels of each kind, as many as the longest time buys."""
    test: Dataset

    @property
    def sizes(self) -> Sizes:
        return SIZES[self.job.scale]

    def run(self, name: str) -> Run:
        return Run(self.job.folder / name, seed=self.job.seed, checkpoint_every=20)

    def labels(self, kind: str, minutes: float) -> list[dict[str, Any]]:
        return self.pool[kind][: labels_in(kind, minutes)]


def rows(job: Job) -> list[dict[str, Any]]:
    """The gold grade of the policy that comes of each kind of feedback, by the number of labels."""
    data = load_tldr(scale=job.scale, seed=job.seed)
    policy, start = load_trained("supervised", SIZES[job.scale].size), load_trained("supervised", "small")
    assert isinstance(policy, Policy) and isinstance(start, Policy)
    pool = _pool(job, policy, column(data.prompts, "prompt"))
    lab = _Lab(job, policy, data.prompts, pool, data.validation.select(range(SIZES[job.scale].num_posts)))
    refiner = _refiner(lab)
    nobody = {"way": "supervised", "kind": "", "num_labels": 0, "num_comparisons": 0, "words": 0.0}
    ungraded = {"draft_gold": math.nan, "kept_gold": math.nan}
    found = [nobody | ungraded | _judged(lab, policy)]
    for minutes, way in itertools.product(lab.sizes.minutes, NAMES):
        kind, name = way.partition(",")[0], f"{way.replace(', ', '-')}-{minutes:g}"
        # Of written feedback half of the time goes into comparisons, for the reward model that keeps refinements.
        labels = lab.labels(kind, minutes / 2 if kind == "comment" else minutes)
        grades = ungraded
        compared = lab.labels("compare", minutes / 2) if kind == "comment" else []
        if way == "edit":
            tuned = _imitated(lab, edit_rows(labels), name)
        elif way == "comment":
            model = _reward_model(lab, start, "compare", compared, name)
            kept = _refined(lab, refiner, model, labels)
            tuned = _imitated(lab, Dataset.from_list(kept), name) if kept else policy
            grades = {"draft_gold": _grade(comment_rows(labels), "response"), "kept_gold": _grade(kept, "completion")}
        else:
            tuned = _rewarded(lab, _reward_model(lab, start, kind, labels, name), labels, name)
        known = {"way": way, "kind": kind, "num_labels": len(labels), "num_comparisons": len(compared)}
        found.append(known | {"words": words_written(labels)} | grades | _judged(lab, tuned))
    return found


def _pool(job: Job, policy: Policy, prompts: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The same people on the same policy's answers, in every way that they can be asked."""
    most = {kind: labels_in(kind, SIZES[job.scale].minutes[-1]) for kind in WORK}
    number = int(1.2 * max(most.values()))
    agreement = 0.6 if job.scale == "tiny" else 0.73
    people = population(num_labelers=NUM_PEOPLE, seed=job.seed, agreement=agreement)
    rng = torch.Generator().manual_seed(job.seed)
    groups = generate(policy, prompts[:number], ASKED, num_candidates=NUM_RANKED, rng=rng)
    distinct = [list(dict.fromkeys(text for text in group if text.strip())) for group in groups]
    items = {
        kind: [
            (prompt, texts[:wanted]) for prompt, texts in zip(prompts, distinct, strict=False) if len(texts) >= wanted
        ]
        for kind, (_, wanted, _, _) in WORK.items()
    }
    pairs = items["compare"]
    # Whatever they are asked, an answer is felt with the same noise.
    temperature = temperature_of(people, [prompt for prompt, _ in pairs], [(one, two) for _, (one, two) in pairs])
    how: dict[str, Any] = {"temperature": temperature, "seed": job.seed}
    return {
        kind: asked(
            kind,
            people,
            [prompt for prompt, _ in chosen[: most[kind]]],
            [texts for _, texts in chosen[: most[kind]]],
            careful=kind in CAREFUL,
            **how,
        )
        for kind, chosen in items.items()
    }


def _refiner(lab: _Lab) -> Policy:
    """The policy, taught to follow feedback by the world; what a large model knows already, so nobody's minutes."""
    examples = refining_demonstrations(lab.sizes.num_refinements, judge=gold_judge())
    config = sft_config(lab.job.scale)
    return sft(lab.policy, examples, config, run=lab.run("refiner"), max_prompt_tokens=REFINING_TOKENS)


def _reward_model(lab: _Lab, start: Policy, kind: str, labels: Sequence[dict[str, Any]], name: str) -> RewardModel:
    """What these labels teach about reward."""
    optimizer = replace(reward_model_config(lab.job.scale).optimizer, learning_rate=RATE)
    settings: dict[str, Any] = {"run": lab.run(f"reward-{name}"), "num_epochs": NUM_EPOCHS, "optimizer": optimizer}
    if kind in ("rate", "thumbs"):
        # Each person's own use of the scale is taken off: `rating_scales` measures what that is worth.
        rows = centered(rating_rows(labels)) if kind == "rate" else thumb_rows(labels)
        settings |= {"loss": "squared_error" if kind == "rate" else "cross_entropy", "batch_size": BATCH}
        return train_rating_model(start, rows, rating_model_config(lab.job.scale), **settings)
    # A ranking is an element of six pairs.
    settings["batch_size"] = BATCH // 2 if kind == "rank" else BATCH
    return train_reward_model(start, comparison_rows(labels), reward_model_config(lab.job.scale), **settings)


def _rewarded(lab: _Lab, model: RewardModel, labels: Sequence[dict[str, Any]], name: str) -> Policy:
    """PPO against what was learnt, shortened."""
    texts = [(label["prompt"], answer) for label in labels for answer in label["answers"]][:NUM_SPREAD]
    spread = float(np.std(LearnedReward(model)(*map(list, zip(*texts, strict=True)))))
    settings: dict[str, Any] = {"num_steps": lab.sizes.rl_steps, "kl_coef": KL_PRICE * spread}
    return ppo(lab.policy, model, lab.prompts, ppo_config(lab.job.scale), run=lab.run(f"rl-{name}"), **settings)


def _imitated(lab: _Lab, rows: Dataset, name: str) -> Policy:
    config = sft_config(lab.job.scale)
    config = replace(config, **IMITATION, optimizer=replace(config.optimizer, learning_rate=IMITATION_RATE))
    return sft(lab.policy, rows, config, run=lab.run(f"imitation-{name}"))


def _refined(lab: _Lab, refiner: Policy, model: RewardModel, labels: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Of several refinements of each draft the one that the reward model likes best, if more than the draft."""
    rows, kept = comment_rows(labels).to_list(), []
    told = [refining_prompt(row["prompt"], row["response"], row["feedback"]) for row in rows]
    rng = torch.Generator().manual_seed(lab.job.seed)
    groups = generate(refiner, told, REFINING, num_candidates=NUM_TRIED, rng=rng, max_prompt_tokens=REFINING_TOKENS)
    for row, group in zip(rows, groups, strict=True):
        texts = [row["response"], *group]
        best = int(np.argmax(LearnedReward(model)([row["prompt"]] * len(texts), texts)))
        if best and texts[best].strip():
            kept.append({"prompt": row["prompt"], "completion": texts[best]})
    return kept


def _grade(rows: Iterable[Any], name: str) -> float:
    """The gold judge's mean of the texts of that name; NaN of none."""
    texts = [(row["prompt"], row[name]) for row in rows]
    return float(np.mean(gold_judge()(*map(list, zip(*texts, strict=True))))) if texts else math.nan


def _judged(lab: _Lab, policy: Policy) -> dict[str, float]:
    """Gold grade and win rate over the posters' own, on held-out posts."""
    samples = Samples.of(policy, lab.test, NUM_SAMPLES, ppo_config(lab.job.scale).sampling, seed=lab.job.seed)
    grades = gold_judge()([prompt for prompt in samples.prompts for _ in range(NUM_SAMPLES)], samples.texts)
    words = float(np.mean([len(text.split()) for text in samples.texts]))
    return {"gold": float(np.mean(grades)), "win_rate": float(samples.won.mean()), "length": words}


def summary(rows: Sequence[Mapping[str, Any]], seconds: Mapping[str, float] = SECONDS) -> dict[str, Any]:
    """What the template says, beside the rows."""
    start = mean(where(rows, way="supervised"), "gold")
    points = [
        point | {"name": NAMES[way][0], "above": point["gold"] - start}
        for way in NAMES
        for point in points_of(rows, way, seconds)
    ]
    best = {}
    for place in range(1 + max(point["place"] for point in points)):
        here = sorted((point for point in points if point["place"] == place), key=lambda point: -point["gold"])
        best[f"{max(point['minutes'] for point in here):.0f}"] = here
    told = where(rows, way="comment")
    told = where(told, num_labels=max(row["num_labels"] for row in told))
    typed = {kind: mean([row for row in rows if row["kind"] == kind], "words") for kind in ("edit", "comment")}
    return {
        "points": points,
        "best": best,
        "start": start,
        "start_win_rate": mean(where(rows, way="supervised"), "win_rate"),
        "work": {kind: (*work, seconds[kind]) for kind, work in WORK.items()},
        "pace": {"read": 60 * WORDS_READ, "typed": 60 * WORDS_TYPED, "decision": DECISION},
        "words": {"post": POST_WORDS, "summary": SUMMARY_WORDS},
        "typed": typed,
        "refined": {key: mean(told, key) for key in ("draft_gold", "kept_gold")},
        "num_people": NUM_PEOPLE,
        "num_tried": NUM_TRIED,
        "num_refinements": SIZES["laptop"].num_refinements,
        "rl_steps": SIZES["laptop"].rl_steps,
    }


def points_of(rows: Sequence[Mapping[str, Any]], way: str, seconds: Mapping[str, float] = SECONDS) -> list[dict]:
    """Minutes and grades of one way of asking, by the number of labels.

    Args:
        seconds: Of one label, by kind; any pace that one likes. See `people_time.minutes_of`.

    Raises:
        ValueError: An unknown way, or a kind without a time.
    """
    if way not in NAMES:
        raise ValueError(f"a way of asking is one of {'; '.join(NAMES)}, not {way!r}.")
    points = []
    for place, number in enumerate(sorted({row["num_labels"] for row in where(rows, way=way)})):
        found = where(rows, way=way, num_labels=number)
        compared = found[0]["num_comparisons"]
        minutes = minutes_of(found[0]["kind"], number, seconds)
        minutes += minutes_of("compare", compared, seconds) if compared else 0.0
        grades = [row["gold"] for row in found]
        known = {"way": way, "place": place, "num_labels": number, "num_comparisons": compared, "minutes": minutes}
        means = {key: mean(found, key) for key in ("gold", "win_rate", "length")}
        points.append(known | means | {"lowest": min(grades), "highest": max(grades)})
    return points


def figures(rows: Sequence[Mapping[str, Any]], seconds: Mapping[str, float] = SECONDS) -> dict[str, Axes]:
    """Gold grade by minutes, a line for each way of asking; at another pace with other `seconds` of a label."""
    title = "What a person's minutes buy, by what is asked"
    axes = plots.new_axes(title, "minutes of people's time", "gold grade, 1 to 7")
    for way, (label, color, style) in NAMES.items():
        points = points_of(rows, way, seconds)
        at, low, high = ([point[key] for point in points] for key in ("minutes", "lowest", "highest"))
        axes.plot(at, [point["gold"] for point in points], style, color=color, label=label)
        axes.fill_between(at, low, high, color=color, alpha=0.08)
    start = mean(where(rows, way="supervised"), "gold")
    axes.axhline(start, color="black", linewidth=0.8, linestyle=":", label="nobody asked")
    axes.set_xscale("log")
    ticks = sorted({round(point["minutes"]) for point in points_of(rows, "compare", seconds)})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, **plots.BESIDE)
    return {"other_feedback": axes}
