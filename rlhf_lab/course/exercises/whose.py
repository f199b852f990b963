"""Notebook 10: whose preferences? What one model makes of two groups, a jury's seats, and when a guess pays."""

import math
from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.whose_jury import JURY_SEATS


def _two_groups() -> list[float]:
    """Odds of all labels, of equally weighed groups, of votes by three, and what it gets right of the few's."""
    return [math.log(0.8 / 0.2), 0.0, math.log(0.896 / 0.104), 0.0]


def _a_mean_of_certainties() -> list[float]:
    """Question 1: each person is sure, but the labels are not alike: eight to two, so the odds are 4 to 1.

    The margin is their logarithm, which is 1.39.
    """
    return [math.inf, 0.0, math.log(0.896 / 0.104), 0.0]


def _a_share() -> list[float]:
    """Question 1 asks for a margin, a difference of scores: it is the logarithm of the odds, not the share."""
    return [0.8, 0.5, 0.896, 0.0]


def _weighing_changes_nothing() -> list[float]:
    """Question 2: with the minority's labels counted four times as often, as much speaks for A as for B."""
    return [math.log(4.0), math.log(4.0), math.log(0.896 / 0.104), 0.0]


def _a_vote_is_a_label() -> list[float]:
    """Question 3: a vote of three goes to A if two or three of them want it: 3 times 0.64 times 0.2, plus 0.512."""
    return [math.log(4.0), 0.0, math.log(4.0), 0.0]


def _a_vote_is_sure() -> list[float]:
    """Question 3: two of the three may be of the minority, in 10 % of the pairs. So even the vote is not always A."""
    return [math.log(4.0), 0.0, math.inf, 0.0]


def _a_fifth_is_heard() -> list[float]:
    """Question 4: a margin above 0 says A for everybody. Of the choices of those who always say B, how many are A?"""
    return [math.log(4.0), 0.0, math.log(0.896 / 0.104), 0.2]


ONE_MODEL_OF_TWO = Exercise(
    id="one-model-of-two",
    title="What one model makes of two groups",
    kind="predict",
    points=2,
    minutes=10,
    difficulty=2,
    reference=_two_groups,
    cases=lambda rng: [Case(title="your four numbers")],
    mistakes=(
        _a_mean_of_certainties,
        _a_share,
        _weighing_changes_nothing,
        _a_vote_is_a_label,
        _a_vote_is_sure,
        _a_fifth_is_heard,
    ),
    variants=(lambda: [1.386294, 0.0, 2.153589, 0.0], lambda: [*_two_groups()]),
    tolerance=1e-2,
)


def _worth_telling(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """How many facts are told by who earns the most, and how many of these are expected to be false."""
    told = probs * right - (1.0 - probs) * wrong > 0
    return np.array([told.sum(), (1.0 - probs[told]).sum()])


def _telling_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, probs: np.ndarray, right: float, wrong: float) -> Case:
        return Case(title=title, args=(probs,), kwargs={"right": right, "wrong": wrong})

    some = np.array([0.95, 0.75, 0.3, 0.1])
    return [
        case("people who do not look whether it is true", some, 1.0, 0.0),
        case("as much for a true fact as a false one costs", some, 1.0, 1.0),
        case("a false fact costs three times as much", some, 0.5, 1.5),
        case("nothing is worth telling", np.array([0.2, 0.4]), 1.0, 4.0),
        case("many facts", rng.uniform(0.02, 0.98, size=40), 1.0, 2.5),
        case("many facts, and cheap errors", rng.uniform(0.02, 0.98, size=40), 1.0, 0.3),
    ]


def _more_likely_than_not(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """Told if it is more likely than not: that pays only where an error costs what a true fact brings."""
    told = probs > 0.5
    return np.array([told.sum(), (1.0 - probs[told]).sum()])


def _cost_of_certainty(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """A false fact costs, and only where it is false: the cost is `wrong` times 1 - p, not all of `wrong`."""
    told = probs * right - wrong > 0
    return np.array([told.sum(), (1.0 - probs[told]).sum()])


def _all_told(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """Here everything is told, whatever an error costs. Silence brings 0: tell what brings more than that."""
    return np.array([float(len(probs)), (1.0 - probs).sum()])


def _true_ones(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """The second number is what is expected to be *true* of what is told; false is the rest."""
    told = probs * right - (1.0 - probs) * wrong > 0
    return np.array([told.sum(), probs[told].sum()])


def _of_all(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """You have counted facts as false that are not told. Who is silent is never wrong."""
    told = probs * right - (1.0 - probs) * wrong > 0
    return np.array([told.sum(), (1.0 - probs).sum()])


def _wrong_by_vote(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """A fact of which one is 90 % sure is false in one of ten: add up 1 - p, do not count those below a half."""
    told = probs * right - (1.0 - probs) * wrong > 0
    return np.array([told.sum(), (probs[told] < 0.5).sum()])


def _share_wrong(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    """A share: the number of facts that are expected to be false is wanted."""
    told = probs * right - (1.0 - probs) * wrong > 0
    return np.array([told.sum(), (1.0 - probs[told]).mean() if told.any() else 0.0])


def _by_threshold(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    told = probs[probs > wrong / (right + wrong)]
    return np.array([len(told), len(told) - told.sum()], dtype=float)


def _by_loop(probs: np.ndarray, *, right: float, wrong: float) -> np.ndarray:
    number, false = 0.0, 0.0
    for prob in probs:
        if (right + wrong) * prob > wrong:
            number, false = number + 1.0, false + 1.0 - prob
    return np.array([number, false])


WORTH_TELLING = Exercise(
    id="worth-telling",
    title="When does a guess pay?",
    kind="implement",
    points=2,
    minutes=10,
    difficulty=2,
    reference=_worth_telling,
    cases=_telling_cases,
    mistakes=(
        _more_likely_than_not,
        _cost_of_certainty,
        _all_told,
        _true_ones,
        _of_all,
        _wrong_by_vote,
        _share_wrong,
    ),
    variants=(_by_threshold, _by_loop),
)


def _given_back(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """What of its loss a group gets back: 0 is the blind model's, 1 that of a policy of its own."""
    return float((other.mean() - blind.mean()) / (own.mean() - blind.mean()))


def _back_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, number: int, back: float) -> Case:
        blind = rng.normal(size=number) + 3.0
        own = blind + rng.uniform(0.2, 2.0, size=number)
        other = blind + back * (own - blind) + 0.3 * rng.normal(size=number)
        return Case(title=title, args=(own, blind, other))

    by_hand = tuple(np.array(values) for values in ([5.0, 4.0], [3.0, 2.0], [4.0, 3.5]))
    return [
        Case(title="two people", args=by_hand),
        case("half of it", 5, 0.5),
        case("worse than the blind one", 6, -0.4),
        case("more than was lost", 4, 1.3),
    ]


def _mean_of_shares(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """A mean of each person's share: somebody who lost next to nothing would decide. Take the means first."""
    return float(((other - blind) / (own - blind)).mean())


def _of_everything(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """A share of all that they could have. What they had under the blind policy was never lost."""
    return float(other.mean() / own.mean())


def _still_lost(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """That is the share which is still lost."""
    return float((own.mean() - other.mean()) / (own.mean() - blind.mean()))


def _in_points(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """That is what they get back in points; as a share of what they lost?"""
    return float(other.mean() - blind.mean())


def _of_the_blind(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """Relative to what they have under the blind policy. The question is what part of the *loss* is gone."""
    return float((other.mean() - blind.mean()) / blind.mean())


def _cut_off(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    """You cut off at 0 and 1: a compromise may be worse for them than the blind model, and that must show."""
    return float(np.clip(_given_back(own, blind, other), 0.0, 1.0))


def _by_sums(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    return float(np.sum(other - blind) / np.sum(own - blind))


def _from_above(own: np.ndarray, blind: np.ndarray, other: np.ndarray) -> float:
    return float(1.0 - (own - other).mean() / (own - blind).mean())


GIVEN_BACK = Exercise(
    id="given-back",
    title="Lost, and given back",
    kind="implement",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_given_back,
    cases=_back_cases,
    mistakes=(_mean_of_shares, _of_everything, _still_lost, _in_points, _of_the_blind, _cut_off),
    variants=(_by_sums, _from_above),
)

WHO_LABELS = Written(
    id="who-labels",
    title="Who is asked?",
    points=4,
    minutes=20,
    difficulty=3,
    rubric={
        "Says whose preferences a described set of labels holds: who was chosen, by whom, and how that acts on it.": 1,
        "Connects pay, time or what labelers see with a failure that this notebook measured.": 1,
        "Chooses an aggregation for a case with two groups, with its figures: what it gives back, and who pays.": 1,
        "Names what is to be published of the labelers so that readers can judge the model, and what must not be.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    WORTH_TELLING,
    ONE_MODEL_OF_TWO,
    GIVEN_BACK,
    JURY_SEATS,
    WHO_LABELS,
)
