"""Notebook 10: a jury with seats for each group."""

from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise


def _verdict(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """Mean or median of what the jurors say of each response."""
    jurors = np.repeat(scores, seats, axis=0)
    return np.median(jurors, axis=0) if median else jurors.mean(axis=0)


def _cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, number: int, seats: list[int], *, median: bool) -> Case:
        scores = rng.normal(size=(len(seats), number))
        part = "median" if median else "mean"
        return Case(title=title, args=(scores, seats), kwargs={"median": median}, part=part)

    by_hand = np.array([[0.0, 3.0], [6.0, 3.0]])
    return [
        Case(title="a third of the seats", args=(by_hand, [2, 4]), kwargs={"median": False}, part="mean"),
        case("three groups", 5, [1, 2, 5], median=False),
        case("as many responses as groups", 2, [3, 1], median=False),
        case("a group without a seat", 4, [4, 0, 2], median=False),
        Case(title="six seats each", args=(by_hand, [6, 6]), kwargs={"median": True}, part="median"),
        case("a majority of the seats", 5, [4, 3], median=True),
        case("three groups, none with a majority", 6, [2, 2, 3], median=True),
        case("an even number of jurors", 6, [1, 2, 3], median=True),
        case("nobody for the third group", 3, [2, 2, 0], median=True),
    ]


def _of_groups(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """The seats play no part: this is the verdict of a jury with one of each group."""
    return np.median(scores, axis=0) if median else scores.mean(axis=0)


def _always_a_mean(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """The median is the juror in the middle, of all jurors in order. This is their mean."""
    return _verdict(scores, seats, median=False)


def _lower_middle(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """Of an even number of jurors two are in the middle: the median is halfway between them."""
    jurors = np.sort(np.repeat(scores, seats, axis=0), axis=0)
    return jurors[(len(jurors) - 1) // 2] if median else jurors.mean(axis=0)


def _largest_group(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """The group with the most seats decides alone only if it has more than half of them: put all jurors in order."""
    return scores[int(np.argmax(seats))] if median else _verdict(scores, seats, median=False)


def _summed(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """A sum over the jurors: a larger jury would speak louder, and a nat of KL be cheaper."""
    return _verdict(scores, seats, median=median) if median else np.repeat(scores, seats, axis=0).sum(axis=0)


def _by_group_count(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """Divided by the number of groups: it is the number of jurors that the sum has."""
    return _verdict(scores, seats, median=True) if median else (np.array(seats)[:, None] * scores).mean(axis=0)


def _over_responses(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    """One verdict for each group: it is for each response, over the jurors."""
    return np.median(scores, axis=1) if median else scores.mean(axis=1)


def _by_weights(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    if not median:
        return np.average(scores, axis=0, weights=seats)
    found = []
    for said in scores.T:
        order, total = np.argsort(said), sum(seats)
        upto = np.cumsum(np.array(seats)[order])
        ends = (np.searchsorted(upto, total / 2.0), np.searchsorted(upto, total / 2.0, side="right"))
        found.append((said[order[ends[0]]] + said[order[ends[1]]]) / 2.0)
    return np.array(found)


def _one_by_one(scores: np.ndarray, seats: Sequence[int], *, median: bool) -> np.ndarray:
    jury = [row for row, count in zip(scores, seats, strict=True) for _ in range(count)]
    columns = [sorted(column) for column in zip(*jury, strict=True)]
    middle = len(jury) // 2
    if median:
        return np.array([(column[middle] + column[-middle - 1]) / 2 for column in columns])
    return np.array([sum(column) / len(column) for column in columns])


JURY_SEATS = Exercise(
    id="jury-seats",
    title="A jury",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=_verdict,
    cases=_cases,
    mistakes=(
        _of_groups,
        _always_a_mean,
        _lower_middle,
        _largest_group,
        _summed,
        _by_group_count,
        _over_responses,
    ),
    variants=(_by_weights, _one_by_one),
    parts={"mean": 1, "median": 2},
    masked=("rlhf_lab.aggregation.jury",),
)
