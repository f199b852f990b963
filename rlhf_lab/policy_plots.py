"""Figures of the lesson on policy gradients: numbers in, `Axes` out. One claim a figure, colours by role."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rlhf_lab.plots import BESIDE, GOLD, POLICY, PROXY, REFERENCE, new_axes, smooth

WARNING = "#D55E00"
"""Vermilion, of the same palette: what is pushed down."""


def plot_runs(runs: Mapping[str, tuple[Any, str]], *, title: str, xlabel: str, ylabel: str) -> Axes:
    """Several runs of each kind: their mean, in a band that holds the middle 80 % of them.

    Args:
        runs: Kind to (an array of runs by steps, colour).
        title: The claim.
        xlabel: What a step is.
        ylabel: Quantity and unit.
    """
    axes = new_axes(title, xlabel, ylabel)
    for place, (name, (values, color)) in enumerate(runs.items()):
        values = np.asarray(values, dtype=float)
        low, high = np.quantile(values, [0.1, 0.9], axis=0)
        steps = np.arange(values.shape[1])
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(steps, values.mean(axis=0), "--" if place else "-", color=color, linewidth=2, label=name)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    return axes


def plot_tokens(
    words: Sequence[str],
    series: Mapping[str, tuple[Sequence[float], str]],
    *,
    title: str,
    ylabel: str,
    bars: bool = False,
) -> Axes:
    """A number for each token of a text, the tokens being written below.

    Args:
        words: The tokens' texts.
        series: Label to (a number for each token, colour).
        title: The claim.
        ylabel: Quantity and unit.
        bars: Draw bars, one series on top of the other, instead of lines.

    Raises:
        ValueError: A series has not one number for each token.
    """
    axes = new_axes(title, "", ylabel)
    axes.use_sticky_edges = False  # A bar that touches the frame looks cut off.
    places = np.arange(len(words))
    above, below = np.zeros(len(words)), np.zeros(len(words))
    for (label, (numbers, color)), style in zip(series.items(), ("-", "--", ":") * len(series), strict=False):
        values = np.asarray(numbers, dtype=float)
        if len(values) != len(words):
            raise ValueError(f"{label} has {len(values)} numbers, and there are {len(words)} tokens.")
        if bars:
            axes.bar(places, values, bottom=np.where(values < 0, below, above), color=color, label=label, width=0.7)
            above, below = above + values.clip(min=0), below + values.clip(max=0)
        else:
            axes.plot(places, values, style, marker="o", markersize=3, color=color, label=label)
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.set_xticks(places, [word.strip() or "_" for word in words], rotation=90, fontsize=8)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize=9)
    return axes


def plot_own_run(
    shipped: Sequence[Mapping[str, Any]],
    own: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    title: str,
    ylabel: str,
    color: str = POLICY,
) -> Axes:
    """A metric of the run that ships, raw and smoothed, and of the reader's own run on top.

    Args:
        shipped: History of the run that ships.
        own: History of the reader's run, shorter or longer.
        metric: Its name in both.
        title: The claim.
        ylabel: Quantity and unit.
        color: By the metric's role.

    Raises:
        ValueError: One of the histories has no such metric.
    """
    axes = new_axes(title, "step of PPO", ylabel)
    for name, history in (("the run that ships", shipped), ("your run", own)):
        points = np.array([(row["step"], row[metric]) for row in history if metric in row], dtype=float)
        if not len(points):
            raise ValueError(f"there is nothing to draw: {name} has no {metric}.")
        steps, values = points.T
        if name == "your run":
            axes.plot(steps, values, "D-", color="black", markersize=4, linewidth=1.2, label=name)
        else:
            axes.plot(steps, values, color=color, alpha=0.3, linewidth=1)
            axes.plot(steps, smooth(values), color=color, linewidth=2, label=f"{name}, mean of 5 steps")
    axes.legend(frameon=False)
    return axes


def plot_surrogate(
    ratios: Sequence[float] | np.ndarray,
    gains: Mapping[float, tuple[Sequence[float], Sequence[float]]],
    *,
    clip_range: float,
    title: str,
) -> Axes:
    """The surrogate against the ratio, drawn faint where it has no gradient.

    Args:
        ratios: Increasing.
        gains: Advantage to (the gain at each ratio, its gradient there).
        clip_range: Shaded around 1.
        title: The claim.
    """
    axes = new_axes(title, r"ratio $\pi(y_t)\,/\,\pi_{old}(y_t)$", "gain of the token")
    axes.axvspan(1 - clip_range, 1 + clip_range, color=REFERENCE, alpha=0.12, linewidth=0)
    ratios = np.asarray(ratios, dtype=float)
    for advantage, (gain, gradient) in gains.items():
        color = POLICY if advantage > 0 else WARNING
        values, moves = np.asarray(gain, dtype=float), np.abs(np.asarray(gradient, dtype=float)) > 1e-9
        label = f"advantage {advantage:+g}"
        axes.plot(ratios, np.where(moves, values, np.nan), color=color, linewidth=2.5, label=label)
        still = axes.plot(ratios, np.where(moves, np.nan, values), ":", color=color, linewidth=2.5)
        if not moves.all():
            still[0].set_label(f"advantage {advantage:+g}, gradient 0")
    axes.axvline(1, color=REFERENCE, linewidth=0.8)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_estimates(rows: Sequence[Mapping[str, float]], *, title: str) -> Axes:
    """How noisy one token's estimate of the KL is, against the KL itself.

    Args:
        rows: Rows of `kl` (exact), and `k1` and `k3`, the standard deviations of one token's estimate [nats].
        title: The claim.
    """
    axes = new_axes(title, "KL of one token, exact [nats]", "standard deviation of one token's\nestimate [nats]")
    kl = [row["kl"] for row in rows]
    for name, style, color in (("k1", "o-", PROXY), ("k3", "s--", GOLD)):
        axes.plot(kl, [row[name] for row in rows], style, color=color, markersize=4, label=name)
    axes.plot(kl, kl, ":", color=REFERENCE, label="the KL itself")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return axes


def plot_changes(changes: Mapping[str, tuple[Any, Any, str]], *, title: str) -> Axes:
    """A dot for each post: how its summary's two grades changed from one policy to another. The means are larger.

    Args:
        changes: Kind to (changes of the proxy, changes of gold, colour).
        title: The claim.
    """
    axes = new_axes(title, "change of the reward model's score", "change of the gold grade")
    for (name, (proxy, gold, color)), marker in zip(changes.items(), "oxs^" * len(changes), strict=False):
        proxy, gold = np.asarray(proxy), np.asarray(gold)
        axes.plot(proxy, gold, marker, color=color, markersize=5, alpha=0.5, label=name)
        axes.plot(proxy.mean(), gold.mean(), "D", color=color, markersize=11, markeredgecolor="black")
    for line in (axes.axhline, axes.axvline):
        line(0, color=REFERENCE, linewidth=0.8)
    axes.legend(frameon=False, **BESIDE)
    return axes
