"""Notebook 02: how do we ask people? Agreement beyond chance, and the side on which an answer is shown.

Its other exercises, on ratings and on majorities, are in `asking_crowds`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.asking_crowds import MAJORITY_VOTE, OWN_SCALE

_OTHER_KAPPAS = ("rlhf_lab.labeling.agreement.cohens_kappas", "rlhf_lab.labeling.agreement._kappa")


def _kappa_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray, part: str) -> Case:
        return Case(title=title, args=(torch.tensor(np.array(first)), torch.tensor(np.array(second))), part=part)

    def drawn(num: int, values: int) -> tuple[np.ndarray, np.ndarray]:
        """Two who often agree, the second with a liking for the last value."""
        first = rng.integers(values, size=num)
        copied = rng.random(num) < 0.5
        second = np.where(copied, first, rng.choice(values, size=num, p=[*[0.2 / (values - 1)] * (values - 1), 0.8]))
        first[:values], second[:values] = range(values), range(values)
        return first, second

    first, second = drawn(60, 3)
    skipped = rng.random((2, 60)) < 0.3
    skipped[:, :3] = False
    first, second = np.where(skipped, -1, [first, second])
    return [
        case("ten items", [0, 0, 0, 0, 1, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1], "kappa"),
        case("two who hardly ever agree", [0, 1, 0, 1, 1, 0], [1, 0, 1, 0, 1, 1], "kappa"),
        case("forty items", *drawn(40, 2), "kappa"),
        case("forty items with ties (2)", *drawn(40, 3), "kappa"),
        case("items that not both answered (-1)", first, second, "missing"),
        case("everyone always said the same", [1, 1, 1, -1, 1], [1, 1, 1, 0, 1], "missing"),
    ]


def _agreement(first: Tensor, second: Tensor) -> float:
    both = (first >= 0) & (second >= 0)
    return _rescaled(first[both], second[both], _chance(first[both], second[both]))


def _chance(first: Tensor, second: Tensor) -> float:
    values = torch.cat([first, second]).unique()
    return sum(float((first == value).double().mean() * (second == value).double().mean()) for value in values)


def _rescaled(first: Tensor, second: Tensor, chance: float) -> float:
    observed = float((first == second).double().mean())
    return math.nan if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)


def _raw(first: Tensor, second: Tensor) -> float:
    """That is the raw agreement. How often would two agree who choose as often as these do, but without looking?"""
    both = (first >= 0) & (second >= 0)
    return float((first[both] == second[both]).double().mean())


def _coin(first: Tensor, second: Tensor) -> float:
    """You take chance to be one half. It depends on habits: who says B 90 % of the time often agrees by chance."""
    both = (first >= 0) & (second >= 0)
    return _rescaled(first[both], second[both], 0.5)


def _pooled(first: Tensor, second: Tensor) -> float:
    """You pool the two labelers before you square. In Cohen's kappa each has habits of their own: multiply those."""
    both = (first >= 0) & (second >= 0)
    pooled = torch.cat([first[both], second[both]])
    return _rescaled(first[both], second[both], _chance(pooled, pooled))


def _not_rescaled(first: Tensor, second: Tensor) -> float:
    """That is how far agreement lies above chance. Divide by how far it could: then perfect agreement gives 1."""
    both = (first >= 0) & (second >= 0)
    chance = _chance(first[both], second[both])
    return math.nan if chance > 1 - 1e-12 else float((first[both] == second[both]).double().mean()) - chance


def _by_chance(first: Tensor, second: Tensor) -> float:
    """You divide by the chance agreement. The most that two can gain is 1 - chance: perfect agreement must give 1."""
    both = (first >= 0) & (second >= 0)
    chance = _chance(first[both], second[both])
    return math.nan if chance > 1 - 1e-12 else _not_rescaled(first, second) / chance


def _missing_as_value(first: Tensor, second: Tensor) -> float:
    """The value -1 is no choice: leave out the items that not both answered, from the habits too."""
    return _rescaled(first, second, _chance(first, second))


def _missing_as_no(first: Tensor, second: Tensor) -> float:
    """You count items that not both answered as disagreement: only what both answered can tell whether they agree."""
    both = (first >= 0) & (second >= 0)
    chance = _chance(first[both], second[both])
    observed = float((both & (first == second)).double().mean())
    return math.nan if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)


def _habits_of_all(first: Tensor, second: Tensor) -> float:
    """You count habits over all that each answered, agreement over what both did: take the same items for both."""
    both = (first >= 0) & (second >= 0)
    return _rescaled(first[both], second[both], _chance(first[first >= 0], second[second >= 0]))


def _sure_of_habit(first: Tensor, second: Tensor) -> float:
    """If chance alone gives full agreement, kappa is 0 / 0: nothing tells agreement from habit. Return math.nan."""
    kappa = _agreement(first, second)
    return 1.0 if math.isnan(kappa) else kappa


def _none_of_habit(first: Tensor, second: Tensor) -> float:
    """0 would say that they agree as chance does. Where chance already is 1 nobody knows: return math.nan."""
    kappa = _agreement(first, second)
    return 0.0 if math.isnan(kappa) else kappa


def _from_square(first: Tensor, second: Tensor) -> float:
    both = (first >= 0) & (second >= 0)
    size = int(max(first.max(), second.max())) + 1
    square = torch.zeros(size, size, dtype=torch.float64)
    for one, other in zip(first[both].tolist(), second[both].tolist(), strict=True):
        square[one, other] += 1 / int(both.sum())
    chance = square.sum(0) @ square.sum(1)
    return math.nan if 1 - chance < 1e-9 else float((square.trace() - chance) / (1 - chance))


def _from_disagreement(first: Tensor, second: Tensor) -> Tensor:
    known = ~((first == -1) | (second == -1))
    one, other = torch.nn.functional.one_hot(first[known], 9), torch.nn.functional.one_hot(second[known], 9)
    differ = 1 - (one * other).sum(-1).double().mean()
    by_chance = 1 - one.double().mean(0) @ other.double().mean(0)
    return 1 - differ / by_chance  # 0 / 0 is NaN.


KAPPA = Exercise(
    id="cohens-kappa",
    title="Agreement beyond chance",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=1,
    reference=_agreement,
    cases=_kappa_cases,
    mistakes=(
        _sure_of_habit,
        _none_of_habit,
        _raw,
        _coin,
        _pooled,
        _not_rescaled,
        _by_chance,
        _missing_as_value,
        _missing_as_no,
        _habits_of_all,
    ),
    variants=(_from_square, _from_disagreement),
    parts={"kappa": 2, "missing": 1},
    masked=_OTHER_KAPPAS,
)

LIKING, SIDE = math.log(0.6 / 0.4), 1.0
"""What the better answer, and what being shown first, add to the log-odds of being chosen."""


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _shares(shown_first: float, shown_second: float) -> list[float]:
    """What is asked, from the share of A when it is shown first, and when it is shown second."""
    return [shown_first, shown_second, (shown_first + shown_second) / 2, (shown_first + 1 - shown_second) / 2]


def _two_sides() -> list[float]:
    return _shares(_sigmoid(LIKING + SIDE), _sigmoid(LIKING - SIDE))


def _sides_swapped() -> list[float]:
    """Being shown first helps: A's share is the larger one when A is shown first."""
    return _shares(_sigmoid(LIKING - SIDE), _sigmoid(LIKING + SIDE))


def _added_to_odds() -> list[float]:
    """1 is added to the logarithm of the odds, ln(0.6 / 0.4), not to the odds: back by 1 / (1 + e^-x)."""
    odds = 0.6 / 0.4
    return _shares((odds + SIDE) / (1 + odds + SIDE), (odds - SIDE) / (1 + odds - SIDE))


def _log_odds_of_share() -> list[float]:
    """You added to the share 0.6 itself. Its log-odds are ln(0.6 / 0.4) = 0.41: start from there."""
    return _shares(_sigmoid(0.6 + SIDE), _sigmoid(0.6 - SIDE))


def _logs_of_ten() -> list[float]:
    """The logarithm is the natural one: ln(0.6 / 0.4) = 0.405, and e is the base on the way back."""
    base = math.log10(0.6 / 0.4)
    return _shares(_sigmoid(base + SIDE), _sigmoid(base - SIDE))


def _cancels_exactly() -> list[float]:
    """Nearly. With random sides the share is the mean of your first two numbers, which is not quite 60 %.

    The curve is flatter far from one half, so the side costs more on one side than it gives on the other.
    """
    first, second, _, last = _two_sides()
    return [first, second, 0.6, last]


def _first_of_a_alone() -> list[float]:
    """Choices of what is shown first are choices of A when A is first, and of B when B is: what share is that?"""
    first, second, mean, _ = _two_sides()
    return [first, second, mean, mean]


def _first_by_chance() -> list[float]:
    """Random sides do not take the liking for the first side away. One half of the time A is first; and B?"""
    first, second, mean, _ = _two_sides()
    return [first, second, mean, 0.5]


def _in_percent() -> list[float]:
    """Right, in percent; asked are shares between 0 and 1."""
    return [100 * share for share in _two_sides()]


TWO_SIDES = Exercise(
    id="two-sides",
    title="What the side does",
    kind="predict",
    points=2,
    minutes=8,
    difficulty=1,
    reference=_two_sides,
    cases=lambda rng: [Case(title="your four numbers")],
    mistakes=(
        _sides_swapped,
        _added_to_odds,
        _log_odds_of_share,
        _logs_of_ten,
        _cancels_exactly,
        _first_of_a_alone,
        _first_by_chance,
        _in_percent,
    ),
    variants=(lambda: [0.8, 0.36, 0.58, 0.72], lambda: [0.803, 0.3555, 0.5793, 0.7238]),
    tolerance=0.006,
)

READ_THE_CLASS = Written(
    id="read-the-class",
    title="Read a class",
    points=3,
    minutes=12,
    difficulty=2,
    rubric={
        "Says from the figures who clicked without reading, with two numbers for it": 1,
        "Says who read but has another taste, and what tells the two apart": 1,
        "Says what should happen to the labels of each, and what is lost by it": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (KAPPA, TWO_SIDES, OWN_SCALE, MAJORITY_VOTE, READ_THE_CLASS)
