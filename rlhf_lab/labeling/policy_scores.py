"""Who wrote the better answers? The choices that labels hold, and Bradley and Terry's scores of the sources.

scores = policy_scores(store.labels())
scores.rows(), scores.win_probs
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import expit
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

Labels = Sequence[Mapping[str, Any]]
"""Rows of `LabelStore.labels()`."""
ELO = 400 / math.log(10)
"""Points of an Elo scale in a factor e of the odds: 400 points are a factor 10."""
NORMAL_95 = 1.959964
"""z: half-width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Choice:
    """What a label says of two of its item's answers. Choice(label={...}, first=0, second=1, value=1.0)."""

    label: Mapping[str, Any]
    first: int
    second: int
    value: float
    """0 if the first answer is better, 1 if the second is, 0.5 for a tie."""

    @property
    def unit(self) -> tuple[str, str]:
        """What others may have chosen between, too: the item, and which two of its answers."""
        return (self.label["item"], f"{self.first}>{self.second}")


def choices_of(labels: Labels) -> list[Choice]:
    """The choices in comparisons and rankings; a ranking of K answers holds K (K - 1) / 2 of them.

    The middle of nine steps is a tie. To say that two answers cannot be compared is no choice.

    Example:
        >>> label = {"kind": "rank", "value": {"ranks": [2, 1, 2]}}
        >>> [(choice.first, choice.second, choice.value) for choice in choices_of([label])]
        [(0, 1, 1.0), (0, 2, 0.5), (1, 2, 0.0)]
    """
    found = []
    for label in labels:
        if label["kind"] == "rank":
            ranks = label["value"]["ranks"]
            for first, second in itertools.combinations(range(len(ranks)), 2):
                found.append(Choice(label, first, second, _side(ranks[first] - ranks[second])))
        elif (felt := strength(label)) is not None:
            found.append(Choice(label, 0, 1, _side(felt)))
    return found


def _side(difference: float | int) -> float:
    return (difference > 0) + 0.5 * (difference == 0)


def strength(label: Mapping[str, Any]) -> float | None:
    """How much better a comparison says the second answer is: -4 to 4, 0 for a tie; None if it says nothing.

    Eight steps and nine have the same four on either side of the middle.

    Example:
        >>> label = {"kind": "compare", "value": {"scale": 8, "step": 4}}
        >>> strength(label), strength(label | {"value": {"scale": 9, "step": 9}})
        (-1.0, 4.0)
    """
    value = label["value"]
    if label["kind"] != "compare" or value.get("choice") == "cannot_compare":
        return None
    if "choice" in value:
        return 0.0
    return float(value["step"] - 5 + (value["scale"] == 8 and value["step"] > 4))


@dataclass(frozen=True, kw_only=True)
class PolicyScores:
    """Scores of sources, the best first. PolicyScores(sources=("ppo", "supervised"), strengths=[0.2, -0.2], ...)."""

    sources: tuple[str, ...]
    strengths: np.ndarray
    """Log-odds units, with mean 0."""
    covariance: np.ndarray
    """Of the strengths: (source source)."""
    wins: np.ndarray
    """How often the row's source was preferred to the column's, ties counting half: (source source)."""

    @property
    def win_probs(self) -> np.ndarray:
        """How likely the row's source is preferred to the column's, by the scores: (source source)."""
        return expit(self.strengths[:, None] - self.strengths[None, :])

    def rows(self) -> list[dict[str, Any]]:
        """For each source its `elo` with the 95 % interval `low` to `high`, its `wins` and its number of choices, `n`.

        The interval is Wald's, about the distance from the mean of all sources, which is 1000 by definition. For the
        distance of two sources ask `difference`: their intervals may overlap although one is surely better.
        """
        errors = np.sqrt(np.diag(self.covariance))
        numbers = {
            "elo": 1000 + ELO * self.strengths,
            "low": 1000 + ELO * (self.strengths - NORMAL_95 * errors),
            "high": 1000 + ELO * (self.strengths + NORMAL_95 * errors),
            "wins": self.wins.sum(1),
            "n": (self.wins + self.wins.T).sum(1),
        }
        return [
            {"source": source} | {name: float(values[place]) for name, values in numbers.items()}
            for place, source in enumerate(self.sources)
        ]

    def difference(self, source: str, other: str) -> tuple[float, float, float]:
        """How many Elo points `source` is above `other`, and the ends of the 95 % interval."""
        contrast = np.array([(name == source) - float(name == other) for name in self.sources])
        value = float(contrast @ self.strengths)
        half = NORMAL_95 * math.sqrt(max(0.0, float(contrast @ self.covariance @ contrast)))
        return ELO * value, ELO * (value - half), ELO * (value + half)


def logistic_regression(outcome: np.ndarray, design: np.ndarray, clusters: np.ndarray | None = None) -> Any:
    """The fit of statsmodels, without intercept; with `clusters` its covariance is a sandwich by them.

    Whether a finite fit exists is for the caller to check. A sandwich without variance, as where all choices are ties,
    would promise certainty; then there is none.
    """
    model = GLM(outcome, design, family=Binomial())
    settings: Any = {"tol": 1e-10, "tol_criterion": "params"}
    # A scale that is not used divides by 0 degrees of freedom, and ties that are predicted are taken for separation.
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        # The covariance is taken where the last step began, so that step must begin at the solution.
        settings["start_params"] = model.fit(**settings).params
        fit: Any = model.fit(**settings)
        if clusters is None:
            return fit
        by_cluster: Any = model.fit(**settings, cov_type="cluster", cov_kwds={"groups": clusters})
    return by_cluster if np.diag(by_cluster.cov_params()).min() > 1e-12 else fit


def policy_scores(labels: Labels, *, by_item: bool = True) -> PolicyScores:
    """Bradley and Terry's scores of the answers' sources, by maximum likelihood; ties count half.

        P(i is preferred to j) = sigma(s_i - s_j),   sum_i s_i = 0,   elo_i = 1000 + 400 / ln 10 s_i

    Choices between two answers of the same source say nothing about it and are left out, as are those with an answer
    whose source is not known.

    Args:
        by_item: The covariance allows for labels of one item belonging together (a sandwich, clustered by item), as do
            the pairs of a ranking. Otherwise, and where there are too few items for that (fewer than 10, or fewer than
            two for each source), every choice counts as independent. Neither allows for what the labels of one labeler
            have in common.

    Raises:
        ValueError: No choices between known sources, or a source whose score would be infinite, as it (with others)
            won or lost every choice against the rest, or there was none.

    Reference:
        Bradley and Terry 1952, Biometrika 39:324; its likelihood is a logistic regression without intercept, Agresti,
        "Categorical Data Analysis". The condition for finite scores is Ford 1957, Am. Math. Mon. 64:28.
    """
    all_choices = choices_of(labels)
    found = [choice for choice in all_choices if len(set(_sources(choice))) == 2 and all(_sources(choice))]
    if not found:
        unknown = sum(not all(_sources(choice)) for choice in all_choices)
        raise ValueError(
            f"scores need choices between answers of different sources, and there are none: of {len(all_choices)} "
            f"choices {unknown} have an answer without a source; give the items their `sources`."
        )
    sources = sorted({source for choice in found for source in _sources(choice)})
    index = {source: place for place, source in enumerate(sources)}
    design, wins = np.zeros((len(found), len(sources))), np.zeros((len(sources), len(sources)))
    for row, choice in enumerate(found):
        first, second = (index[source] for source in _sources(choice))
        design[row, [first, second]] = 1.0, -1.0
        wins[first, second] += 1 - choice.value
        wins[second, first] += choice.value
    _check_finite(sources, wins)
    items = np.unique([choice.label["item"] for choice in found], return_inverse=True)[1]
    by_item = by_item and items.max() + 1 >= max(10, 2 * len(sources))
    # Only differences are known, so the first source is held at 0; then all are moved so that their mean is 0.
    outcome = np.array([1 - choice.value for choice in found])
    fit = logistic_regression(outcome, design[:, 1:], items if by_item else None)
    center = (np.eye(len(sources)) - 1 / len(sources))[:, 1:]
    strengths, covariance = center @ fit.params, center @ fit.cov_params() @ center.T
    order = np.argsort(-strengths, kind="stable")
    return PolicyScores(
        sources=tuple(sources[place] for place in order),
        strengths=strengths[order],
        covariance=covariance[np.ix_(order, order)],
        wins=wins[np.ix_(order, order)],
    )


def _sources(choice: Choice) -> tuple[str, str]:
    return choice.label["sources"][choice.first], choice.label["sources"][choice.second]


def _check_finite(sources: Sequence[str], wins: np.ndarray) -> None:
    """Ford's condition: however the sources are split in two groups, each group has won against the other.

    Raises:
        ValueError: It does not hold; the message names the sources.
    """
    num_groups, group = connected_components(wins > 0, connection="strong")
    if num_groups == 1:
        return
    extremes = []
    for inside in (group == name for name in range(num_groups)):
        won, lost = wins[np.ix_(inside, ~inside)].sum(), wins[np.ix_(~inside, inside)].sum()
        if won == 0 or lost == 0:
            how = "had no choice" if won == lost else "won every choice" if won else "lost every choice"
            extremes.append((inside.sum(), won == 0, inside, how))
    _, _, inside, how = min(extremes, key=lambda extreme: extreme[:2])  # The smallest group; better one that won.
    names = ", ".join(repr(source) for source, is_in in zip(sources, inside, strict=True) if is_in)
    raise ValueError(
        f"{names} {how} against the other sources, so that no score is large or small enough; "
        "label more of these answers, or leave them out."
    )
