"""Figures of the lessons on labels and on reward models: rows in, `Axes` out, as in `plots`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rlhf_lab.evaluation import rate
from rlhf_lab.plots import BESIDE, GOLD, POLICY, PROXY, REFERENCE, new_axes

PEOPLE = "#CC79A7"
"""Reddish purple of Okabe and Ito's palette: what people say."""
COLORS = {
    "people": PEOPLE,
    "another person": PEOPLE,
    "reward model": PROXY,
    "length alone": REFERENCE,
    "truth": GOLD,
}
"""Colours of series by role; others are drawn in what is left."""


def plot_rates(
    outcomes: Mapping[str, Mapping[str, Any]], *, title: str, ylabel: str, chance: float | None = 0.5
) -> Axes:
    """Bars of shares with 95 % intervals, in groups.

    Args:
        outcomes: Series (a colour and an entry of the legend; none for "") to group to outcomes, each from 0 to 1.
        title: The claim.
        ylabel: Whose share it is.
        chance: Where a line is drawn; None for no line.
    """
    axes = new_axes(title, "", f"{ylabel} [%]")
    groups = list(dict.fromkeys(name for series in outcomes.values() for name in series))
    width = 0.8 / len(outcomes) if len(outcomes) > 1 else 0.55
    others = iter((PROXY, POLICY, GOLD, PEOPLE))
    for index, (series, by_group) in enumerate(outcomes.items()):
        color = COLORS.get(series) or next(others)
        for name, values in by_group.items():
            one = rate(np.asarray(values, dtype=float))
            place = groups.index(name) + (index - (len(outcomes) - 1) / 2) * width
            error = [[100 * (one.mean - one.low)], [100 * (one.high - one.mean)]]
            label = series if name == next(iter(by_group)) else None
            axes.bar(place, 100 * one.mean, 0.9 * width, color=color, yerr=error, capsize=3, label=label)
            spot = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{100 * one.mean:.0f} %", (place, 100 * one.high), fontsize=9, **spot)
    if chance is not None:
        axes.axhline(100 * chance, color=REFERENCE, linestyle="--", linewidth=1)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 108)  # Room for the number above a bar of 100 %.
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="x", visible=False)
    if len(outcomes) > 1:
        axes.legend(frameon=False, **BESIDE)
    return axes


def plot_scales(ratings: Mapping[str, Sequence[float] | np.ndarray], *, title: str) -> Axes:
    """How often each labeler gives each grade, as dots whose area is the share, and each one's mean as a line.

    Args:
        ratings: Labeler to grades from 1 to 7; NaN where they gave none.
        title: The claim.
    """
    axes = new_axes(title, "grade [1 to 7]", "")
    for place, grades in enumerate(ratings.values()):
        known = np.asarray(grades, dtype=float)
        known = known[~np.isnan(known)]
        values, counts = np.unique(known, return_counts=True)
        axes.scatter(values, [place] * len(values), s=900 * counts / counts.sum(), color=PEOPLE, alpha=0.5, linewidth=0)
        axes.plot([known.mean()] * 2, [place - 0.32, place + 0.32], color="black", linewidth=2)
    axes.plot([], [], color="black", linewidth=2, label="mean")
    axes.scatter([], [], s=180, color=PEOPLE, alpha=0.5, linewidth=0, label="a fifth of\ntheir grades")
    axes.set_yticks(range(len(ratings)), list(ratings))
    axes.set_ylim(len(ratings) - 0.4, -0.6)
    axes.set_xlim(0.5, 7.5)
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, labelspacing=1.2, **BESIDE)
    return axes


def plot_crowds(sizes: Sequence[int], agreement: Mapping[str, Sequence[float] | np.ndarray], *, title: str) -> Axes:
    """How often the majority agrees with one more person, by its size.

    Args:
        sizes: Numbers of labelers in the majority.
        agreement: What was assumed or measured, to the share at each size. The first is drawn as points.
        title: The claim.
    """
    axes = new_axes(title, "labelers in the majority", "agreement with one more person [%]")
    styles = iter((("--", REFERENCE), ("-", PROXY), (":", POLICY)))
    for index, (name, shares) in enumerate(agreement.items()):
        if index == 0:
            axes.plot(sizes, 100 * np.asarray(shares), "o", color=PEOPLE, label=name, zorder=3)
        else:
            style, color = next(styles)
            axes.plot(sizes, 100 * np.asarray(shares), style, color=color, linewidth=2, label=name)
    axes.set_xticks(list(sizes))
    axes.legend(frameon=False, **BESIDE)
    return axes


def draw_own_accuracy(axes: Axes, num_pairs: int, outcomes: Any, *, label: str = "yours", hollow: bool = False) -> None:
    """Draw an own reward model's accuracy, with its 95 % interval, over `plot_reward_model_accuracy`.

    Args:
        axes: The figure.
        num_pairs: How many comparisons it learnt from.
        outcomes: 1 where it chose as the label does, one half where its scores tie, else 0.
        label: For the legend.
        hollow: Draw the mark hollow, beside one that is not.
    """
    one = rate(np.asarray(outcomes, dtype=float))
    error = [[100 * (one.mean - one.low)], [100 * (one.high - one.mean)]]
    axes.errorbar(
        num_pairs,
        100 * one.mean,
        yerr=error,
        fmt="D",
        color=POLICY,
        markerfacecolor="white" if hollow else POLICY,
        markersize=7,
        capsize=4,
        label=label,
    )
    axes.legend(frameon=False, **BESIDE)


def plot_on_the_way(texts: Mapping[str, tuple[Any, int]], *, title: str) -> Axes:
    """The score after each token of some responses; a ring marks the last token, where it is read, crosses the padding.

    Args:
        texts: Name to the scores after each place of its row, and how many of the places are tokens.
        title: The claim.
    """
    axes = new_axes(title, "place behind the prompt", "score")
    for (name, (values, count)), (color, style) in zip(
        texts.items(), ((POLICY, "-"), (GOLD, "--"), (PEOPLE, ":")), strict=False
    ):
        scores = np.asarray(values, dtype=float)
        axes.plot(range(1, count + 1), scores[:count], style, color=color, label=name)
        axes.plot(count, scores[count - 1], "o", color=color, markersize=11, markerfacecolor="none", markeredgewidth=2)
        axes.plot(range(count + 1, len(scores) + 1), scores[count:], "x", color=REFERENCE, markersize=4, zorder=1)
    axes.plot([], [], "o", color="black", markerfacecolor="none", markersize=9, label="EOS: read here")
    axes.plot([], [], "x", color=REFERENCE, markersize=5, label="padding")
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_tastes(words: np.ndarray, scores: Mapping[str, np.ndarray], *, title: str) -> Axes:
    """Scores against the number of words: a dot a summary, and the mean of each fifth of the summaries as a line.

    Args:
        words: Of each summary.
        scores: Name of a reward model to its scores.
        title: The claim.
    """
    axes = new_axes(title, "words of the summary", "score")
    fifths = np.array_split(np.argsort(words, kind="stable"), 5)
    for (name, values), (color, style) in zip(scores.items(), ((PEOPLE, "o-"), (PROXY, "s--")), strict=False):
        axes.plot(words, values, ".", color=color, alpha=0.2, markersize=4)
        means = [(words[rows].mean(), values[rows].mean()) for rows in fifths]
        axes.plot(*zip(*means, strict=True), style, color=color, linewidth=2, label=name)
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.legend(frameon=False, **BESIDE)
    return axes
