"""Notebook 07: answering only when sure, and when training is paid back."""

from typing import Any

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.selective import selective_rate


def _sure_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, scores: Any, outcomes: Any, coverage: list[float], part: str) -> Case:
        args = tuple(np.array(one, dtype=float) for one in (scores, outcomes, coverage))
        return Case(title=title, args=args, part=part)

    scores, outcomes = rng.normal(size=10), rng.integers(0, 2, size=10)
    steps = rng.integers(0, 3, size=20)
    return [
        case("four questions, in order", [0.9, 0.6, 0.3, 0.1], [1, 0, 1, 0], [0.25, 0.5, 0.75, 1.0], "distinct"),
        case("out of order", [0.1, 0.9, 0.3, 0.6], [0, 1, 1, 0], [0.25, 0.5, 0.75, 1.0], "distinct"),
        case("scores below 0", scores - 5, outcomes, [0.1, 0.3, 0.5, 1.0], "distinct"),
        case("all equally sure", [0.5] * 4, [1, 1, 1, 0], [0.25, 0.5, 1.0], "ties"),
        case("three steps", steps, rng.integers(0, 2, size=20), [0.2, 0.45, 0.8, 1.0], "ties"),
    ]


def _kept(scores: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    return np.round(coverage * len(scores)).astype(int)


def _unsorted(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """These are the first questions of the list; answer those of the highest scores."""
    return np.array([outcomes[:number].mean() for number in _kept(scores, coverage)])


def _least_sure(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """You answer where the score is lowest: `argsort` begins with the smallest."""
    return selective_rate(-scores, outcomes, coverage)


def _of_all(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """You divide by all questions; the rate is of those that are answered."""
    return selective_rate(scores, outcomes, coverage) * coverage


def _of_the_rest(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Those are the ones that were left out. Coverage is the share that is answered."""
    answered = selective_rate(scores, outcomes, coverage) * coverage
    return (outcomes.mean() - answered) / np.maximum(1.0 - coverage, 1.0 / len(scores))


def _above_a_share(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """You take the coverage for a threshold on the score; the threshold follows from the share to be answered."""
    return np.array([outcomes[scores >= 1 - share].mean() if (scores >= 1 - share).any() else 0 for share in coverage])


def _running_risk(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """That is the risk, the share that is wrong; the rate of good ones is 1 less that."""
    return 1.0 - selective_rate(scores, outcomes, coverage)


def _by_group(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    even = np.array([outcomes[scores == score].mean() for score in np.sort(scores)[::-1]])
    return np.array([even[:number].mean() for number in _kept(scores, coverage)])


def _by_sums(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    rates = []
    for number in _kept(scores, coverage):
        last = np.sort(scores)[len(scores) - number]
        sure, tied = scores > last, scores == last
        share = (number - sure.sum()) / tied.sum()
        rates.append((outcomes[sure].sum() + share * outcomes[tied].sum()) / number)
    return np.array(rates)


def _first_come(scores: np.ndarray, outcomes: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Equal scores: you take those that stand first in the list, and its order says nothing.

    Give each question of a tie the tie's mean outcome.
    """
    in_order = outcomes[np.argsort(-scores, kind="stable")]
    return np.array([in_order[:number].mean() for number in _kept(scores, coverage)])


ANSWER_WHEN_SURE = Exercise(
    id="answer-when-sure",
    title="Answer only when sure",
    kind="implement",
    points=3,
    minutes=15,
    difficulty=2,
    reference=selective_rate,
    cases=_sure_cases,
    mistakes=(_unsorted, _least_sure, _of_all, _of_the_rest, _above_a_share, _running_risk, _first_come),
    variants=(_by_group, _by_sums),
    parts={"distinct": 2, "ties": 1},
)


def _paid_back(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    """Answers after which training is paid back, beside each other way; infinite beside one that is no dearer."""
    saved = other_answers - answer
    return np.where(saved > 0, training / np.where(saved > 0, saved, 1.0), np.inf)


def _paid_cases(rng: np.random.Generator) -> list[Case]:
    drawn = rng.uniform(1.0, 4.0, size=6)
    return [
        Case(title="1,000 once, 1 an answer, and another way at 3", args=(1000.0, 1.0, np.array([3.0]))),
        Case(title="ways that are cheaper, as cheap, and dearer", args=(600.0, 2.0, np.array([1.0, 2.0, 5.0]))),
        Case(title="six ways, all dearer", args=(1e6, float(drawn.min() - 0.5), drawn)),
        Case(title="training for nothing", args=(0.0, 1.0, np.array([2.0, 4.0]))),
    ]


def _own_answers_free(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    """The trained policy's answers cost something too; paid back is what each answer saves."""
    return training / other_answers


def _below_zero(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    """A way that is cheaper at every answer is never overtaken: that is infinity, and no negative number."""
    saved = other_answers - answer
    return np.divide(training, saved, out=np.full_like(saved, np.inf), where=saved != 0)


def _either_way(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    """Whether an answer costs more or less is not the same: only what is saved can pay for training."""
    saved = np.abs(other_answers - answer)
    return np.divide(training, saved, out=np.full_like(saved, np.inf), where=saved != 0)


def _upside_down(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    """Upside down: what training costs, divided by what an answer saves."""
    return (other_answers - answer) / max(training, 1.0)


def _never_before(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    """You have added the trained policy's cost to the saving; each of its answers costs, so it is taken away."""
    return training / (other_answers + answer)


def _where_dearer(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    found = np.full(len(other_answers), np.inf)
    dearer = other_answers > answer
    found[dearer] = training / (other_answers[dearer] - answer)
    return found


def _one_by_one(training: float, answer: float, other_answers: np.ndarray) -> np.ndarray:
    return np.array([training / (other - answer) if other > answer else float("inf") for other in other_answers])


PAID_BACK = Exercise(
    id="paid-back",
    title="Paid back",
    kind="implement",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_paid_back,
    cases=_paid_cases,
    mistakes=(_own_answers_free, _below_zero, _either_way, _upside_down, _never_before),
    variants=(_where_dearer, _one_by_one),
)
