"""Exercises of notebook 02 on many people: each has a scale of their own, and a majority errs less than one."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise


def _rating_cases(rng: np.random.Generator) -> list[Case]:
    def table(labelers: int, items: int, hidden: float = 0.0) -> np.ndarray:
        offset, scale = rng.normal(size=(labelers, 1)), np.exp(rng.normal(scale=0.5, size=(labelers, 1)))
        ratings = np.clip(np.round(4 + offset + scale * rng.normal(size=(labelers, items))), 1, 7)
        ratings[:, :3] = rng.permuted(np.tile([2.0, 5.0, 6.0], (labelers, 1)), axis=1)  # Nobody is constant by chance.
        ratings[:, 3:][rng.random((labelers, items - 3)) < hidden] = np.nan
        return ratings

    constant = table(3, 7, 0.3)
    constant[1] = np.where(np.isnan(constant[1]), np.nan, 6.0)
    single = table(3, 6)
    single[2, 1:] = np.nan
    return [
        Case(title="three labelers, seven items", args=(table(3, 7),), part="scale"),
        Case(title="one labeler", args=(table(1, 6),), part="scale"),
        Case(title="not everyone rated everything (nan)", args=(table(5, 9, 0.4),), part="scale"),
        Case(title="a labeler who gave every summary a 6", args=(constant,), part="constant"),
        Case(title="a labeler with a single rating", args=(single,), part="constant"),
    ]


def _own_scale(ratings: np.ndarray) -> np.ndarray:
    mean = np.nanmean(ratings, axis=1, keepdims=True)
    spread = np.nanstd(ratings, axis=1, keepdims=True)
    return (ratings - mean) / np.where(spread > 0, spread, 1.0)


def _over_everybody(ratings: np.ndarray) -> np.ndarray:
    """One mean and one spread for everybody: whoever was strict before is as strict as ever. Whose are they?"""
    return (ratings - np.nanmean(ratings)) / np.nanstd(ratings)


def _over_items(ratings: np.ndarray) -> np.ndarray:
    """You normalize each summary over its labelers. That takes away what is asked, which summaries are better."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, spread = _of_columns(ratings, np.nanmean), _of_columns(ratings, np.nanstd)
        return (ratings - mean) / np.where(spread > 0, spread, 1.0)


def _of_columns(ratings: np.ndarray, of: Callable[..., np.ndarray]) -> np.ndarray:
    known = ~np.isnan(ratings).all(0)  # NumPy warns of the mean of nothing.
    values = np.full(ratings.shape[1], np.nan)
    values[known] = of(ratings[:, known], axis=0)
    return values


def _offset_alone(ratings: np.ndarray) -> np.ndarray:
    """The means are alike now, the spreads are not: who uses 1 to 7 still counts more than who uses 3 to 5."""
    return ratings - np.nanmean(ratings, axis=1, keepdims=True)


def _spread_alone(ratings: np.ndarray) -> np.ndarray:
    """The spreads are alike now, the means are not: take off what each labeler gives on average, first."""
    spread = np.nanstd(ratings, axis=1, keepdims=True)
    return ratings / np.where(spread > 0, spread, 1.0)


def _zero_over_zero(ratings: np.ndarray) -> np.ndarray:
    """Who gives every summary the same grade has a spread of 0: such ratings tell nothing, and are 0 above the mean."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.nanstd(ratings, axis=1, keepdims=True)
        return (ratings - np.nanmean(ratings, axis=1, keepdims=True)) / spread


def _missing_as_zero(ratings: np.ndarray) -> np.ndarray:
    """A summary that was not rated is not rated 0: its nan must neither enter the mean nor become a number."""
    return _own_scale(np.nan_to_num(ratings))


def _filled_in(ratings: np.ndarray) -> np.ndarray:
    """The numbers are right where somebody rated. Where nobody did nothing is known: leave nan there."""
    return np.nan_to_num(_own_scale(ratings))


def _spoilt_by_nan(ratings: np.ndarray) -> np.ndarray:
    """One summary that a labeler did not rate makes all their ratings nan: NumPy has nanmean and nanstd."""
    mean, spread = ratings.mean(axis=1, keepdims=True), ratings.std(axis=1, keepdims=True)
    return (ratings - mean) / np.where(spread == 0, 1.0, spread)


def _one_less(ratings: np.ndarray) -> np.ndarray:
    """Your spread divides by n - 1; the statement's by n (NumPy's default), which also knows a single rating."""
    with np.errstate(invalid="ignore", divide="ignore"):
        counts = (~np.isnan(ratings)).sum(1, keepdims=True)
        return _own_scale(ratings) * np.sqrt((counts - 1) / counts)


def _labeler_by_labeler(ratings: np.ndarray) -> np.ndarray:
    scaled = np.full(ratings.shape, np.nan)
    for row, mine in enumerate(ratings):
        known = mine[~np.isnan(mine)]
        spread = known.std()
        scaled[row, ~np.isnan(mine)] = 0.0 if spread == 0 else (known - known.mean()) / spread
    return scaled


def _by_sums(ratings: np.ndarray) -> np.ndarray:
    known = ~np.isnan(ratings)
    counts = known.sum(1)[:, None]
    centered = np.where(known, ratings, 0.0)
    centered = np.where(known, ratings - centered.sum(1)[:, None] / counts, 0.0)
    spread = np.sqrt((centered**2).sum(1)[:, None] / counts)
    return np.where(known, centered / np.maximum(spread, 1e-9), np.nan)


OWN_SCALE = Exercise(
    id="own-scale",
    title="Everyone has a scale of their own",
    kind="find the bug",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_own_scale,
    cases=_rating_cases,
    mistakes=(
        _over_everybody,
        _over_items,
        _offset_alone,
        _spread_alone,
        _zero_over_zero,
        _missing_as_zero,
        _filled_in,
        _spoilt_by_nan,
        _one_less,
    ),
    variants=(_labeler_by_labeler, _by_sums),
    parts={"scale": 2, "constant": 1},
)


def _vote_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, probs: list[float] | np.ndarray, num_labelers: int, part: str) -> Case:
        return Case(title=title, args=(torch.tensor(np.array(probs)), num_labelers), part=part)

    return [
        case("one labeler", rng.uniform(0.05, 0.95, size=4), 1, "odd"),
        case("three labelers", [0.83, 0.6, 0.3], 3, "odd"),
        case("five labelers, among them some who know, and some who guess", [1.0, 0.5, 0.0, 0.9], 5, "odd"),
        case("fifty-one labelers", rng.uniform(0.4, 0.6, size=3), 51, "odd"),
        case("two labelers", [0.83, 0.6, 0.3], 2, "even"),
        case("six labelers", rng.uniform(0.05, 0.95, size=5), 6, "even"),
    ]


def _vote(prob_right: Tensor, num_labelers: int, tie: float = 0.5) -> Tensor:
    total = torch.zeros_like(prob_right)
    for right in range(num_labelers + 1):
        wins = 1.0 if 2 * right > num_labelers else tie if 2 * right == num_labelers else 0.0
        total = total + wins * _exactly(prob_right, num_labelers, right)
    return total


def _exactly(prob_right: Tensor, num_labelers: int, right: int) -> Tensor:
    return math.comb(num_labelers, right) * prob_right**right * (1 - prob_right) ** (num_labelers - right)


def _ties_lost(prob_right: Tensor, num_labelers: int) -> Tensor:
    """You count a tie as wrong. Where an even number splits in halves a coin decides, and is right half of the time."""
    return _vote(prob_right, num_labelers, tie=0.0)


def _ties_won(prob_right: Tensor, num_labelers: int) -> Tensor:
    """You count a tie as right. Where an even number splits in halves a coin decides, and is right half of the time."""
    return _vote(prob_right, num_labelers, tie=1.0)


def _unanimous(prob_right: Tensor, num_labelers: int) -> Tensor:
    """That is the probability that *all* are right. A majority needs more than half of them."""
    return prob_right**num_labelers


def _anyone(prob_right: Tensor, num_labelers: int) -> Tensor:
    """That is the probability that *somebody* is right. A majority needs more than half of them."""
    return 1 - (1 - prob_right) ** num_labelers


def _one_order(prob_right: Tensor, num_labelers: int) -> Tensor:
    """Two of three can be right in three ways: the first two, the last two, or the first and the last. Count them."""
    total = torch.zeros_like(prob_right)
    for right in range(num_labelers + 1):
        share = 1.0 if 2 * right > num_labelers else 0.5 if 2 * right == num_labelers else 0.0
        total = total + share * prob_right**right * (1 - prob_right) ** (num_labelers - right)
    return total


def _minority(prob_right: Tensor, num_labelers: int) -> Tensor:
    """Your sum starts too early: of three labelers one is no majority. From which number on is it more than half?"""
    return torch.stack(
        [_exactly(prob_right, num_labelers, right) for right in range(num_labelers // 2, num_labelers + 1)]
    ).sum(0)


def _just_enough(prob_right: Tensor, num_labelers: int) -> Tensor:
    """You count the smallest majority alone. Three of three is one as well: add up all of them."""
    least = _exactly(prob_right, num_labelers, num_labelers // 2 + 1)
    return least + (0.5 * _exactly(prob_right, num_labelers, num_labelers // 2) if num_labelers % 2 == 0 else 0.0)


def _wrong_instead(prob_right: Tensor, num_labelers: int) -> Tensor:
    """That is the probability that the majority is wrong: did the two powers change places?"""
    return 1 - _vote(prob_right, num_labelers)


def _by_scipy(prob_right: Tensor, num_labelers: int) -> Tensor:
    half = num_labelers / 2
    return torch.tensor(binom.sf(half, num_labelers, prob_right) + 0.5 * binom.pmf(half, num_labelers, prob_right))


def _one_after_the_other(prob_right: Tensor, num_labelers: int) -> Tensor:
    """Let the labelers vote in turn, and keep the probability of each number of right votes."""
    count = torch.zeros(num_labelers + 1, len(prob_right), dtype=prob_right.dtype)
    count[0] = 1.0
    for _ in range(num_labelers):
        count = count * (1 - prob_right) + torch.cat([torch.zeros_like(count[:1]), count[:-1] * prob_right])
    votes = torch.arange(num_labelers + 1)
    return ((2 * votes > num_labelers).double() + 0.5 * (2 * votes == num_labelers)) @ count


MAJORITY_VOTE = Exercise(
    id="majority-vote",
    title="The majority of k",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=_vote,
    cases=_vote_cases,
    mistakes=(
        _ties_lost,
        _ties_won,
        _unanimous,
        _anyone,
        _one_order,
        _minority,
        _just_enough,
        _wrong_instead,
    ),
    variants=(_by_scipy, _one_after_the_other),
    parts={"odd": 2, "even": 1},
)
