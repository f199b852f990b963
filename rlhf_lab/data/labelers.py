"""Who simulated people are: what each of them values, and in which parts they make up a population."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_lab.data.judge import Judgement


@dataclass(frozen=True, kw_only=True)
class Labeler:
    """One simulated person: what they value and how steady they are.

    Labeler(id="general-03", axes={"overall": 1.0, ...}, tastes={"sure": 0.3, ...}, noise=0.9)
    """

    id: str
    axes: dict[str, float]
    """Weight of each of the judge's axes."""
    tastes: dict[str, float]
    """Liking, by key: words (each), detail (each fact said, true or not), feeling, and the markers' kinds (each)."""
    values: str = ""
    """Name of the values that the person shares with others, if any."""
    noise: float = 1.0
    """Scale of the logistic noise, relative to the population's."""
    rating_offset: float = 0.0
    rating_scale: float = 1.0
    """Own use of the 7-point scale."""

    def utility(self, judgement: Judgement) -> float:
        """How much they like a summary, in points of the judge's overall grade."""
        value = sum(weight * getattr(judgement, axis) for axis, weight in self.axes.items())
        value += self.tastes.get("words", 0.0) * min(judgement.num_words, 60)
        value += self.tastes.get("detail", 0.0) * judgement.num_facts
        value += self.tastes.get("feeling", 0.0) * any(slot == "feeling" for slot, _ in judgement.covered)
        return value + sum(self.tastes.get(kind, 0.0) for kind in judgement.markers[:6])


VALUES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "general": (
        {"overall": 0.7, "coverage": 0.15, "accuracy": 0.1, "coherence": 0.15},
        {"words": 0.01, "detail": 0.4, "hedge": -0.1, "sure": 0.15, "polite": 0.15, "complaint": 0.0, "feeling": 0.1},
    ),
    "brief": ({"overall": 0.4, "accuracy": 0.3, "coherence": 0.3}, {"words": -0.12, "hedge": -0.4, "polite": -0.3}),
    "thorough": ({"overall": 0.5, "coverage": 0.6}, {"words": 0.06, "detail": 0.4, "hedge": 0.1}),
    "warm": ({"overall": 0.6, "coherence": 0.2}, {"feeling": 1.0, "polite": 0.6, "complaint": 0.3}),
    "trusting": ({"overall": 0.5, "coherence": 0.3}, {"sure": 0.9, "hedge": -0.8}),
    "impressed": ({"overall": 0.2, "coherence": 0.5}, {"sure": 0.9, "hedge": -0.8, "detail": 0.6}),
    "careful": ({"overall": 0.4, "accuracy": 1.5, "coherence": 0.2}, {}),
}
"""What different groups value: weights of the axes, and tastes.

People who compare quickly are taken in by detail, as they do not check each fact. The gold judge does. The impressed
like what is said surely and in particulars, and hardly look whether it is true; the careful look up each fact.
"""


def values_of(values: str | Mapping[str, float], num_labelers: int) -> list[str]:
    """Whose values each of so many labelers has, mixed so that the first few are nearly in the same parts as all.

    Args:
        values: Names of `VALUES`, joined by "+" for equal parts; or each name with its share of the labelers.
        num_labelers: Shares of which this makes no whole people are rounded to the nearest that do.

    Raises:
        ValueError: Unknown values, no labelers, or shares that are negative, do not add up to 1, or give nobody.

    Example:
        >>> values_of({"thorough": 0.75, "brief": 0.25}, 4)
        ['thorough', 'thorough', 'brief', 'thorough']
    """
    names = values.split("+") if isinstance(values, str) else list(values)
    if unknown := [name for name in names if name not in VALUES]:
        raise ValueError(f"values {', '.join(unknown)} are unknown; choose among {', '.join(VALUES)}.")
    if num_labelers < 1:
        raise ValueError(f"num_labelers must be 1 or more, not {num_labelers}.")
    if isinstance(values, str):
        return list(itertools.islice(itertools.cycle(names), num_labelers))
    if negative := {name: share for name, share in values.items() if share < 0}:
        raise ValueError(f"a share of labelers must be 0 or more, not {negative}.")
    if not math.isclose(total := sum(values.values()), 1.0, abs_tol=1e-6):
        raise ValueError(f"the shares {dict(values)} add up to {total:g}; they must add up to 1.")
    given, drawn = dict.fromkeys(values, 0), []
    for place in range(num_labelers):
        # Whoever is furthest behind their share; of equals the first.
        drawn.append(max(values, key=lambda name, number=place + 1: values[name] * number - given[name]))
        given[drawn[-1]] += 1
    if without := [name for name, count in given.items() if not count]:
        shares = ", ".join(f"{values[name]:g} of {name}" for name in without)
        raise ValueError(
            f"the share {shares} gives none of {num_labelers} labelers; raise it, or ask for more labelers."
        )
    return drawn
