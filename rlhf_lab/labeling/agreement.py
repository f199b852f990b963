"""Do labelers agree: with each other, with what is right, with a judge; and is a majority better than one?

Everything here takes the rows of `LabelStore.labels()`, or a table of them: a row for each pair of answers (a ranking
holds several), a column for each labeler. What cannot be known is NaN and has a reason, never a made-up number.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import krippendorff
import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from rlhf_lab.labeling.policy_scores import Choice, Labels, choices_of, strength

Judge = Callable[[str, Sequence[str]], Any]
"""`(prompt, answers)` to the index of the best answer, or a score for each, or None where it cannot tell."""
NUM_DRAWS = 1000
"""Of each bootstrap."""
_HABIT = "everyone always said the same, so nothing tells agreement from habit"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where it cannot be known. Estimate(value=0.72, low=0.66, high=0.78, n=512).

    `n` counts what it rests on, and `reason` says why a value or an interval is NaN.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    p_value: float = math.nan
    reason: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    def to_dict(self) -> dict[str, float]:
        """Its numbers."""
        return {name: float(number) for name, number in asdict(self).items() if name != "reason"}


def share(count: float | int, n: int, *, reason: str = "there is nothing to count") -> Estimate:
    """`count` of `n` with Wilson's 95 % interval, which takes each to be independent of the others."""
    if n == 0:
        return Estimate(reason=reason)
    low, high = map(float, proportion_confint(count, n, alpha=0.05, method="wilson"))  # type: ignore[arg-type]
    # Rounding must not put the value outside.
    return Estimate(count / n, min(count / n, low), max(count / n, high), n)


def mean_over_items(sums: np.ndarray, counts: np.ndarray, items: Sequence[str], *, seed: int = 0) -> Estimate:
    """sum(sums) / sum(counts), with a 95 % percentile bootstrap over items; `n` counts items.

    What is said of one item belongs together, as a hard item is hard for all, so whole items are drawn. The interval is
    about other items with the same labelers. Where all items say the same the bootstrap has no width; then it is
    Wilson's, with the number of items as the sample's size.
    """
    item = np.unique(np.asarray(items, dtype=str), return_inverse=True)[1]
    top, bottom = np.bincount(item, weights=sums), np.bincount(item, weights=counts)
    mean, n = float(top.sum() / bottom.sum()), len(top)
    if np.ptp(top / bottom) < 1e-12:
        return share(mean * n, n)
    drawn = stats.bootstrap(
        (top, bottom),
        lambda top, bottom, axis: top.sum(axis) / bottom.sum(axis),
        n_resamples=NUM_DRAWS,
        batch=100,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(drawn.low), float(drawn.high), n)


def choices(labels: Labels, *, with_ties: bool = True) -> pd.DataFrame:
    """Choices as a table, item and pair by labeler: 0 the first answer, 1 the second, 0.5 a tie, NaN not answered.

    Args:
        with_ties: Whether a tie is a third thing to agree on. Stiennon et al. 2020 leave undecided labels out.
    """
    found = [choice for choice in choices_of(labels) if with_ties or choice.value != 0.5]
    return _table({(*choice.unit, choice.label["labeler"]): choice.value for choice in found})


def strengths(labels: Labels) -> pd.DataFrame:
    """Comparisons as a table of -4 to 4; see `policy_scores.strength`."""
    felt = {(label["item"], "0>1", label["labeler"]): strength(label) for label in labels}
    return _table({cell: value for cell, value in felt.items() if value is not None})


def ratings(labels: Labels, axis: str = "overall") -> pd.DataFrame:
    """Ratings on one axis as a table of 1 to 7."""
    rated = [label for label in labels if label["kind"] == "rate" and axis in label["value"]["axes"]]
    return _table({(row["item"], axis, row["labeler"]): float(row["value"]["axes"][axis]) for row in rated})


def thumbs(labels: Labels) -> pd.DataFrame:
    """Thumbs as a table: 1 up, 0 down."""
    given = [label for label in labels if label["kind"] == "thumbs"]
    return _table({(row["item"], "thumb", row["labeler"]): float(row["value"]["thumb"] == "up") for row in given})


def _table(cells: Mapping[tuple[str, str, str], float]) -> pd.DataFrame:
    if not cells:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["item", "part"]), dtype=float)
    index = pd.MultiIndex.from_tuples(list(cells), names=["item", "part", "labeler"])
    return pd.DataFrame(pd.Series(list(cells.values()), index=index, dtype=float).unstack("labeler"))


def _values(cells: np.ndarray) -> np.ndarray:
    return np.unique(cells[~np.isnan(cells)])


def _counts(table: pd.DataFrame) -> np.ndarray:
    """How many labelers gave each value: (rows values), for rows with two labelers or more."""
    cells = table.to_numpy()
    counts = np.array([(cells == value).sum(1) for value in _values(cells)]).T
    return counts[counts.sum(1) >= 2] if cells.size else np.zeros((0, 0))


def _lacks(table: pd.DataFrame) -> str:
    """Why there is no agreement to speak of; empty if there is."""
    if table.shape[1] < 2:
        return f"there {'is one labeler' if table.shape[1] else 'are none'}, and it takes two on the same items"
    return "" if len(_counts(table)) else "no two labelers answered the same item; give each item an overlap of 2"


def pairwise_agreement(table: pd.DataFrame, labeler: str | None = None, *, seed: int = 0) -> Estimate:
    """How often two labelers say the same of the same thing: over all pairs of labels, or those with one by `labeler`.

    The interval is a bootstrap over items; see `mean_over_items`. A tie agrees with a tie only.
    """
    if reason := _lacks(table):
        return Estimate(reason=reason)
    cells = table.to_numpy()
    given, alike, pairs = ~np.isnan(cells), np.zeros(len(cells)), np.zeros(len(cells))
    for mine in cells.T if labeler is None else [table[labeler].to_numpy()]:
        alike += np.where(np.isnan(mine), 0, (cells == mine[:, None]).sum(1) - 1)
        pairs += np.where(np.isnan(mine), 0, given.sum(1) - 1)
    if not pairs.any():
        return Estimate(reason="nobody else answered the same items")
    items = table.index.get_level_values("item")[pairs > 0]
    return mean_over_items(alike[pairs > 0], pairs[pairs > 0], list(items), seed=seed)


def cohens_kappas(table: pd.DataFrame, *, weights: str | None = None) -> dict[tuple[str, str], Estimate]:
    """Cohen's kappa of each two labelers on what both answered; its large-sample interval takes rows as independent.

    Args:
        weights: linear or quadratic, for a table of ordered values such as strengths: near misses then count less.

    Reference:
        Cohen 1960, Educ. Psychol. Meas. 20:37; weighted, Cohen 1968, Psychol. Bull. 70:213.
    """
    cells = table.to_numpy()
    pairs = itertools.combinations(range(table.shape[1]), 2)
    return {(table.columns[a], table.columns[b]): _kappa(cells[:, [a, b]], weights) for a, b in pairs}


def _kappa(cells: np.ndarray, weights: str | None) -> Estimate:
    both = cells[~np.isnan(cells).any(1)]
    values, codes = np.unique(both, return_inverse=True)
    if len(values) < 2:
        return Estimate(n=len(both), reason=_HABIT if len(both) else "they answered no item in common")
    square = np.zeros((len(values), len(values)))
    np.add.at(square, tuple(codes.reshape(both.shape).T), 1)
    with np.errstate(invalid="ignore"):  # Rounding can leave a variance of 0 just below 0.
        result: Any = cohens_kappa(square, weights=values if weights else None, wt=weights)
    if not result.std_kappa > 1e-9:
        return Estimate(float(result.kappa), n=len(both), reason="such a kappa has no large-sample interval")
    return Estimate(float(result.kappa), float(result.kappa_low), float(result.kappa_upp), len(both))


def fleiss(table: pd.DataFrame) -> Estimate:
    """Fleiss' kappa, without interval; `n` counts the rows that it rests on.

    It needs equally many labels for each row, so it takes the rows with the most frequent number of labels (of two or
    more; the larger of equally frequent ones) and leaves the others out. Krippendorff's alpha takes all.

    Reference:
        Fleiss 1971, Psychol. Bull. 76:378.
    """
    if reason := _lacks(table):
        return Estimate(reason=reason)
    counts = _counts(table)
    sizes, frequencies = np.unique(counts.sum(1), return_counts=True)
    same = counts[counts.sum(1) == sizes[frequencies == frequencies.max()].max()]
    if np.count_nonzero(same.sum(0)) < 2:
        return Estimate(n=len(same), reason=_HABIT)
    return Estimate(float(fleiss_kappa(same)), n=len(same))


def alpha(table: pd.DataFrame, level: str = "nominal") -> Estimate:
    """Krippendorff's alpha, without interval, from any number of labels for each row; `n` counts rows with two or more.

    Args:
        level: nominal for choices and thumbs; ordinal for strengths and ratings.

    Reference:
        Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
    """
    if reason := _lacks(table):
        return Estimate(reason=reason)
    counts, domain = _counts(table), _values(table.to_numpy())
    if np.count_nonzero(counts.sum(0)) < 2:
        return Estimate(n=len(counts), reason=_HABIT)
    settings: Any = {"value_counts": counts, "value_domain": domain, "level_of_measurement": level}
    return Estimate(float(krippendorff.alpha(**settings)), n=len(counts))


def right_answer(label: Mapping[str, Any]) -> int | None:
    """Index of the answer that is right: the item's `gold`, else the `key` of who wrote the item; None if not known."""
    right = label["info"].get("key") if label["gold"] is None else label["gold"]
    return right if isinstance(right, int) and right in range(len(label["answers"])) else None


def checked(labels: Labels, judge: Judge | None = None) -> list[tuple[Choice, float]]:
    """Choices on which there is a right answer, or on which `judge` has an opinion; each with that, 0 or 1.

    Raises:
        ValueError: The judge says something else than an index, a finite score for each answer, or None.
    """
    opinions: dict[str, Any] = {}
    found = []
    for choice in choices_of(labels):
        label, pair = choice.label, (choice.first, choice.second)
        if label["item"] not in opinions:
            opinions[label["item"]] = right_answer(label) if judge is None else _opinion(judge, label)
        said = opinions[label["item"]]
        if isinstance(said, int):
            said = [float(index == said) for index in range(len(label["answers"]))]
        if said is not None and said[pair[0]] != said[pair[1]]:
            found.append((choice, float(said[pair[1]] > said[pair[0]])))
    return found


def _opinion(judge: Judge, label: Mapping[str, Any]) -> int | list[float] | None:
    said, num = judge(label["prompt"], label["answers"]), len(label["answers"])
    if said is None:
        return None
    if isinstance(said, int | np.integer) and 0 <= said < num:
        return int(said)
    scores: list[float] = np.asarray(said, dtype=float).tolist() if np.ndim(said) == 1 else []
    if len(scores) != num or not all(map(math.isfinite, scores)):
        raise ValueError(
            f"a judge says the index of the best of {num} answers, a finite score for each, or None; not {said!r:.60}."
        )
    return scores


def agreement_with_gold(labels: Labels) -> dict[str, Estimate]:
    """For each labeler, how often they choose what is right, with Wilson's interval; a tie is not right."""
    return _by_labeler(labels, checked(labels), "there is no label of an item whose right answer is known")


def agreement_with(labels: Labels, judge: Judge) -> dict[str, Estimate]:
    """For each labeler, how often they choose as `judge` does, with Wilson's interval.

    A labeler's tie does not agree with a judge who chose; where the judge ties nothing is counted.
    """
    return _by_labeler(labels, checked(labels, judge), "there is no choice on which the judge has an opinion")


def _by_labeler(labels: Labels, found: Sequence[tuple[Choice, float]], reason: str) -> dict[str, Estimate]:
    right: dict[str, list[bool]] = {label["labeler"]: [] for label in labels}
    for choice, value in found:
        right[choice.label["labeler"]].append(choice.value == value)
    return {name: share(sum(mine), len(mine), reason=reason) for name, mine in right.items()}


def majority_of_k(
    labels: Labels, k: int, *, against: Judge | str = "labelers", min_labelers: int = 1, seed: int = 0
) -> Estimate:
    """How often the majority of k labelers says what one more labeler says, or what is right; `n` counts items.

    Exact over all ways to draw the k labelers (a hypergeometric probability), with a bootstrap over items; ties are
    left out. Curves over k should rest on the same items: set `min_labelers` to what the largest k needs.

    Args:
        k: How many, an odd number.
        against: "labelers" for one more labeler of the same item, "gold" for the right answer, or a judge.
        min_labelers: Take only what so many labelers chose on; k of them, and one more for "labelers", it takes anyway.

    Reference:
        Stiennon et al. 2020, arXiv:2009.01325: one labeler agrees with another on 72 %, the mode of three on 77 %.
    """
    if k < 1 or k % 2 == 0:
        raise ValueError(f"a majority needs an odd number of labelers, not {k}.")
    table = choices(labels, with_ties=False)
    num, ones = table.notna().sum(axis=1).to_numpy(), (table == 1).sum(axis=1).to_numpy()
    if against == "labelers":
        others_one = stats.hypergeom.sf(k // 2, np.maximum(num - 1, k), np.maximum(ones - 1, 0), k)
        others_zero = stats.hypergeom.cdf(k // 2, np.maximum(num - 1, k), np.minimum(ones, num - 1), k)
        agreeing = (ones * others_one + (num - ones) * others_zero) / np.maximum(num, 1)
    else:
        truth = {choice.unit: value for choice, value in checked(labels, None if against == "gold" else against)}  # type: ignore[arg-type]
        right = np.array([truth.get(unit, math.nan) for unit in table.index], dtype=float)
        says_one = stats.hypergeom.sf(k // 2, np.maximum(num, k), ones, k)
        agreeing = np.where(right == 1, says_one, np.where(right == 0, 1 - says_one, np.nan))
    least = max(k + (against == "labelers"), min_labelers)
    rows = (num >= least) & ~np.isnan(agreeing)
    if not rows.any():
        return Estimate(reason=f"no item that can be checked has {least} labelers who chose")
    return mean_over_items(
        agreeing[rows], np.ones(rows.sum()), list(table.index.get_level_values("item")[rows]), seed=seed
    )
