"""Notebook 08: where did it come from? Credit for late feedback, what an end gives away, and reading the curve."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.origins_clips import DISAGREEMENT, OWN_ZERO, SEGMENT_LOSS
from rlhf_lab.equations.preference import feedback_credit


def _credit_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, length: float, steps: int, said_at: float, earliest: float, latest: float) -> Case:
        starts = length * torch.arange(steps, dtype=torch.float64)
        kwargs = {"earliest": earliest, "latest": latest}
        return Case(title=title, args=(starts, starts + length, said_at), kwargs=kwargs)

    late = float(rng.uniform(0.05, 0.2))
    return [
        case("half a step, and half of the one before", 0.5, 4, 1.75, 0.25, 0.75),
        case("ten steps a second", 0.1, 15, 1.2 + late / 4, 0.2, 0.8),
        case("a step that is longer than the window", 2.0, 3, 3.0 + late, 0.2, 0.8),
        case("a press so soon that much of the window lies before the first step", 0.2, 5, 0.3 + late, 0.2, 0.8),
        case("steps of which some began after the press", 0.3, 8, 1.0 + late, 0.1, 0.7 + late),
    ]


def _seconds(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    """These are seconds, not shares: f is a density, of height 1 / (latest - earliest), so that its integral is 1."""
    return feedback_credit(starts, ends, said_at, earliest=earliest, latest=latest) * (latest - earliest)


def _of_the_future(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    """The window lies after the press here.

    A person answers what they have seen: the delay is the time of the press, less the time of what it is about.
    """
    return feedback_credit(-ends, -starts, -said_at, earliest=earliest, latest=latest)


def _debts(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    """A step that does not meet the window has no credit; yours has less than none, and learns the opposite."""
    overlap = (said_at - starts).clamp(max=latest) - (said_at - ends).clamp(min=earliest)
    return overlap / (latest - earliest)


def _always_one(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    """You have made the credits add up to 1.

    If part of the window lies before the first step, or its steps are forgotten, that part of the press is about
    nothing that the agent knows, and it is to learn the less.
    """
    credits = feedback_credit(starts, ends, said_at, earliest=earliest, latest=latest)
    return credits / credits.sum()


def _at_that_moment(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    """All goes to the step that was running when the person pressed. Nobody is that fast: look back by the delay."""
    return feedback_credit(starts, ends, said_at, earliest=0.0, latest=0.0)


def _all_or_none(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    """A step counts in full, or not at all; one that only reaches into the window deserves that part of it."""
    inside = feedback_credit(starts, ends, said_at, earliest=earliest, latest=latest) > 0
    return inside * (ends - starts).clamp(max=latest - earliest) / (latest - earliest)


def _by_distribution(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    def by_then(delay: Tensor) -> Tensor:
        return ((delay - earliest) / (latest - earliest)).clamp(0.0, 1.0)

    return by_then(said_at - starts) - by_then(said_at - ends)


def _step_by_step(starts: Tensor, ends: Tensor, said_at: float, *, earliest: float, latest: float) -> Tensor:
    credits = torch.zeros_like(starts)
    for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        first, last = max(start, said_at - latest), min(end, said_at - earliest)
        credits[place] = max(last - first, 0.0) / (latest - earliest)
    return credits


FEEDBACK_CREDIT = Exercise(
    id="feedback-credit",
    title="What was that about?",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=feedback_credit,
    cases=_credit_cases,
    mistakes=(_seconds, _of_the_future, _debts, _always_one, _at_that_moment, _all_or_none),
    variants=(_by_distribution, _step_by_step),
)


def _told_of_ends() -> list[str]:
    return ["longer", "shorter", "as before"]


def _only_the_sign() -> list[str]:
    """Where nobody is told of ends, every step of your reward is worth the same: there is nothing to choose."""
    return ["longer", "shorter", "longer"]


def _nothing_without_a_judge() -> list[str]:
    """A constant says nothing about behavior; but an end says a lot: after it there are no more of these constants."""
    return ["as before", "as before", "as before"]


def _a_fine_changes_nothing() -> list[str]:
    """If each step costs 1, and the end is free, what is the cheapest thing to do?"""
    return ["longer", "longer", "as before"]


def _a_fine_stops() -> list[str]:
    """A fine for each step is a reason to act: there is a way to make it stop."""
    return ["longer", "as before", "as before"]


TOLD_OF_ENDS = Exercise(
    id="told-of-ends",
    title="What an end gives away",
    kind="predict",
    points=2,
    minutes=6,
    difficulty=2,
    reference=_told_of_ends,
    cases=lambda rng: [Case(title="your three answers")],
    mistakes=(_only_the_sign, _nothing_without_a_judge, _a_fine_changes_nothing, _a_fine_stops),
    variants=(lambda: ["longer", "shorter", "as before"], lambda: [*_told_of_ends()]),
)

FROM_CLIPS_TO_TEXTS = Written(
    id="from-clips-to-texts",
    title="From clips to texts",
    points=3,
    minutes=12,
    difficulty=3,
    rubric={
        "Says from the two figures when the pendulum turns, and what most labels had been spent on by then.": 1,
        "Names what stands for the segment, the learnt reward and the policy with text, and what is new there.": 1,
        "Names something of 2017 that notebooks 03 and 04 do without, and what that costs, as in notebook 06.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    FEEDBACK_CREDIT,
    SEGMENT_LOSS,
    OWN_ZERO,
    DISAGREEMENT,
    TOLD_OF_ENDS,
    FROM_CLIPS_TO_TEXTS,
)
