"""Notebook 11: what came after? DPO, RLOO and GRPO, and a model that is asked in place of people."""

from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.successors_direct import DIRECT_PREFERENCE, WHERE_IT_RESTS
from rlhf_lab.course.exercises.successors_groups import LEAVE_ONE_OUT, LONG_AND_WRONG, WHOSE_GRADIENT


def _rightness(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """How often a judge is right who agrees with a person so often, where two people agree so often."""
    person = (1.0 + np.sqrt(2.0 * among_people - 1.0)) / 2.0
    return (with_people - (1.0 - person)) / (2.0 * person - 1.0)


def _agreement_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, person: list[float], judge: list[float]) -> Case:
        """By how often a person and the judge are right."""
        p, m = np.array(person), np.array(judge)
        return Case(title=title, args=(m * p + (1 - m) * (1 - p), p**2 + (1 - p) ** 2))

    drawn = [list(rng.uniform(low, 0.95, size=5)) for low in (0.6, 0.5)]
    return [
        case("people who are right in three of four, and one more of them", [0.75], [0.75]),
        case("a judge who is always right", [0.75, 0.9], [1.0, 1.0]),
        case("a judge who guesses", [0.75, 0.9], [0.5, 0.5]),
        case("people who are never wrong", [1.0, 1.0], [0.8, 0.3]),
        case("any", *drawn),
    ]


def _as_it_agrees(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """Agreement with people who err is not being right: a judge who is always right disagrees with their errors."""
    return with_people


def _share_of_theirs(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """Divided by the people's agreement: a judge who guesses would be right in more than half."""
    return with_people / among_people


def _people_always_right(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """How often is a *person* right? Not as often as two agree: they also agree where both are wrong."""
    return (with_people - (1.0 - among_people)) / (2.0 * among_people - 1.0)


def _never_wrong_together(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """Two people agree where both are right, and where both are wrong too: p^2 + (1 - p)^2, not p^2."""
    person = np.sqrt(among_people)
    return (with_people - (1.0 - person)) / (2.0 * person - 1.0)


def _judge_never_wrong_with_them(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """The judge and a person agree where both are wrong, too: m p + (1 - m)(1 - p), not m p."""
    return with_people / ((1.0 + np.sqrt(2.0 * among_people - 1.0)) / 2.0)


def _the_persons(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """That is how often a person is right. The question is about the judge."""
    return (1.0 + np.sqrt(2.0 * among_people - 1.0)) / 2.0 + 0.0 * with_people


def _other_root(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    """The other root of the equation: people who are wrong more often than right. Take the one above a half."""
    person = (1.0 - np.sqrt(2.0 * among_people - 1.0)) / 2.0
    return (with_people - (1.0 - person)) / (2.0 * person - 1.0)


def _above_chance(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * (2.0 * with_people - 1.0) / np.sqrt(2.0 * among_people - 1.0)


def _one_by_one(with_people: np.ndarray, among_people: np.ndarray) -> np.ndarray:
    found = []
    for agreed, theirs in zip(with_people, among_people, strict=True):
        person = max(np.roots([2.0, -2.0, 1.0 - theirs]).real)
        found.append((agreed + person - 1.0) / (2.0 * person - 1.0))
    return np.array(found)


HOW_RIGHT = Exercise(
    id="how-right",
    title="How right is somebody who agrees?",
    kind="implement",
    points=2,
    minutes=10,
    difficulty=2,
    reference=_rightness,
    cases=_agreement_cases,
    mistakes=(
        _as_it_agrees,
        _share_of_theirs,
        _people_always_right,
        _never_wrong_together,
        _judge_never_wrong_with_them,
        _the_persons,
        _other_root,
    ),
    variants=(_above_chance, _one_by_one),
)

WHICH_METHOD = Written(
    id="which-method",
    title="Your own help line, again",
    points=3,
    minutes=15,
    difficulty=3,
    rubric={
        "Chooses a method from what the figures show per nat and per second, and says what they do not show.": 1,
        "Says who gives the feedback, people or a model, with the figures of agreement, cost and what came of it.": 1,
        "Says how to find out that it goes wrong: what is measured that the method does not optimize.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    DIRECT_PREFERENCE,
    WHERE_IT_RESTS,
    LEAVE_ONE_OUT,
    LONG_AND_WRONG,
    WHOSE_GRADIENT,
    HOW_RIGHT,
    WHICH_METHOD,
)
