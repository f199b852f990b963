"""Notebook 05: does it work? Win rates, their intervals, and what length has to do with them."""

import math
from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.summaries_length import EQUAL_LENGTH, EQUAL_LENGTH_PREDICTION
from rlhf_lab.evaluation import rate, wins

Z = 1.96


def _outcomes(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    return wins(scores.tolist(), reference_scores.tolist())


def _outcome_cases(rng: np.random.Generator) -> list[Case]:
    grades = rng.integers(1, 8, size=(2, 40)).astype(float)
    return [
        Case(title="a win, a tie, a loss", args=(np.array([5.5, 4.0, 1.0]), np.array([2.0, 4.0, 7.0]))),
        Case(title="whole grades, with many ties", args=(grades[0], grades[1])),
        Case(title="grades with decimals", args=(rng.uniform(1, 7, size=12), rng.uniform(1, 7, size=12))),
        Case(title="a single post, tied", args=(np.array([6.0]), np.array([6.0]))),
    ]


def _ties_lose(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    """A tie is no loss: it is half a win. A policy that copied every reference would get 0 % from you."""
    return (scores > reference_scores).astype(float)


def _ties_win(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    """A tie is no win: it is half of one. A policy that copied every reference would get 100 % from you."""
    return (scores >= reference_scores).astype(float)


def _ties_dropped(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    """One outcome for each post: a tie is left in, and counts one half."""
    return (scores > reference_scores)[scores != reference_scores].astype(float)


def _reference_wins(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    """Who won? These are the reference's wins, not the policy's."""
    return _outcomes(reference_scores, scores)


def _by_where(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    return np.where(scores > reference_scores, 1.0, np.where(scores < reference_scores, 0.0, 0.5))


def _by_sign(scores: np.ndarray, reference_scores: np.ndarray) -> np.ndarray:
    return (1.0 + np.sign(scores - reference_scores)) / 2.0


WIN_RATE = Exercise(
    id="win-rate",
    title="Who wins, and what is a tie worth?",
    kind="implement",
    points=2,
    minutes=5,
    difficulty=1,
    reference=_outcomes,
    cases=_outcome_cases,
    mistakes=(_ties_lose, _ties_win, _ties_dropped, _reference_wins),
    variants=(_by_where, _by_sign),
    masked=("rlhf_lab.evaluation.wins", "rlhf_lab.evaluation.calibration"),
)


def _both_orders(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first + 1.0 - second) / 2.0


def _order_cases(rng: np.random.Generator) -> list[Case]:
    def asked(lean: float) -> tuple[np.ndarray, np.ndarray]:
        better = rng.normal(0.5, 1.0, size=30)
        return ((better + lean > 0).astype(float), (-better + lean > 0).astype(float))

    every = (np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    return [
        Case(title="the four pairs of answers", args=every),
        Case(title="a judge who leans to what is shown first", args=asked(0.6)),
        Case(title="a judge who leans to what is shown second", args=asked(-0.6)),
        Case(title="a judge who always takes the first", args=(np.ones(5), np.ones(5))),
    ]


def _not_turned(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """In the second order a 1 is a vote for the reference.

    The mean of both as they are says how often the first place wins, and that tells nothing about the policy.
    """
    return (first + second) / 2.0


def _one_order(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The second asking is lost: a judge who leans to the first place still decides for the policy."""
    return first


def _disagreement_loses(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A judge who changes their mind with the order is undecided: that is a tie, not a loss."""
    return first * (1.0 - second)


def _reference_preferred(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Turn the other one: in the first order a 1 is a vote for the policy, in the second for the reference."""
    return (1.0 - first + second) / 2.0


def _by_votes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    votes = (first == 1).astype(float) + (second == 0).astype(float)
    return votes / 2.0


def _by_stack(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, 1.0 - second]).mean(axis=0)


BOTH_ORDERS = Exercise(
    id="both-orders",
    title="A judge who likes the first place",
    kind="find the bug",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_both_orders,
    cases=_order_cases,
    masked=("rlhf_lab.evaluation.preference_rate",),
    mistakes=(_not_turned, _one_order, _disagreement_loses, _reference_preferred),
    variants=(_by_votes, _by_stack),
)


def _interval(outcomes: np.ndarray) -> np.ndarray:
    found = rate(outcomes)
    return np.array([found.low, found.high])


def _interval_cases(rng: np.random.Generator) -> list[Case]:
    def outcomes(wins: int, losses: int, ties: int = 0) -> tuple[np.ndarray]:
        """About so many of each: the numbers are drawn too, so that no table of constants is an answer."""
        counts = [count and int(rng.integers(count, count + 6)) for count in (wins, losses, ties)]
        return (rng.permutation(np.repeat([1.0, 0.0, 0.5], counts)),)

    return [
        Case(title="nothing but wins", args=outcomes(8, 0)),
        Case(title="nothing but losses", args=outcomes(0, 10)),
        Case(title="wins and losses", args=outcomes(20, 7)),
        Case(title="with ties", args=outcomes(6, 4, 9)),
        Case(title="a single post", args=(np.array([1.0]),)),
    ]


def _textbook(outcomes: np.ndarray, z: float = Z) -> np.ndarray:
    """This is the mean plus and minus 1.96 standard errors.

    Ten wins of ten give it no width at all: are you that sure? Wilson's interval moves the center towards one half.
    """
    half = z * outcomes.std() / math.sqrt(len(outcomes))
    return np.array([outcomes.mean() - half, outcomes.mean() + half])


def _wilson(outcomes: np.ndarray, variance: float, z: float = Z) -> np.ndarray:
    n, p = len(outcomes), outcomes.mean()
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(variance / n + z**2 / (4 * n**2))
    return np.array([center - half, center + half])


def _no_ties(outcomes: np.ndarray) -> np.ndarray:
    """With ties the variance of the outcomes is less than p (1 - p), as a tie never misses the mean by much.

    Take the variance of the outcomes themselves.
    """
    return _wilson(outcomes, float(outcomes.mean() * (1 - outcomes.mean())))


def _old_center(outcomes: np.ndarray) -> np.ndarray:
    """The width is right, but the mean still lies in the middle of it: Wilson's center is nearer to one half."""
    low, high = _wilson(outcomes, float(outcomes.var()))
    half = (high - low) / 2
    return np.array([outcomes.mean() - half, outcomes.mean() + half])


def _single_outcomes(outcomes: np.ndarray) -> np.ndarray:
    """This is how far single outcomes scatter. The mean of n of them is surer than one: divide the variance by n."""
    n, p = len(outcomes), outcomes.mean()
    half = Z / (1 + Z**2 / n) * math.sqrt(float(outcomes.var()) + Z**2 / (4 * n**2))
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    return np.array([center - half, center + half])


def _as_roots(outcomes: np.ndarray) -> np.ndarray:
    # The ends are where (p - m)^2 = z^2 / n (v + (p - m)(m + p - 1) + ...) holds; with v = p (1 - p) + shift.
    n, p = len(outcomes), float(outcomes.mean())
    shift = float(outcomes.var()) - p * (1 - p)
    roots = np.roots([1 + Z**2 / n, -(2 * p + Z**2 / n), p**2 - Z**2 / n * shift / (1 + Z**2 / n)])
    return np.sort(roots.real)


def _by_counting(outcomes: np.ndarray) -> np.ndarray:
    n = len(outcomes)
    mean = sum(outcomes) / n
    variance = sum((x - mean) ** 2 for x in outcomes) / n
    pulled = (sum(outcomes) + Z * Z / 2) / (n + Z * Z)
    half = Z * math.sqrt(n * variance + Z * Z / 4) / (n + Z * Z)
    return np.array([pulled - half, pulled + half])


WILSON = Exercise(
    id="wilson",
    title="How sure is a win rate?",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_interval,
    cases=_interval_cases,
    mistakes=(_textbook, _no_ties, _old_center, _single_outcomes),
    variants=(_as_roots, _by_counting),
    tolerance=1e-4,  # 1.96 or 1.959964
    masked=("rlhf_lab.evaluation.rate",),
)


READ_THE_BARS = Written(
    id="read-the-bars",
    title="Read the bars",
    points=3,
    minutes=12,
    difficulty=2,
    rubric={
        "Names what the raw win rates show, at which size, and that the intervals do not overlap.": 1,
        "Uses the length-controlled rates: most of the lead over supervised is length; says what that means here.": 1,
        "Uses the axes: coverage is bought with wrong facts, because labelers do not check each one.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    WIN_RATE,
    BOTH_ORDERS,
    WILSON,
    EQUAL_LENGTH_PREDICTION,
    EQUAL_LENGTH,
    READ_THE_BARS,
)
