"""One function for each figure of the course: rows in, `Axes` out. One claim a figure, colours by role."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rlhf_lab.equations.overoptimization import GaoFit

GOLD, PROXY, POLICY, REFERENCE = "#E69F00", "#0072B2", "#009E73", "#6B6B6B"
"""Okabe and Ito's colour-blind-safe palette: gold amber, proxy blue, policy green, reference grey."""
SHADES = {"pretrained": "#BBBBBB", "supervised": "#56B4E9", "human feedback": POLICY}
STYLE: dict[Any, Any] = {
    "figure.figsize": (6, 3.5),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "font.size": 10,
}


BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
"""Place of a legend that is too large to lie between the lines."""


def new_axes(title: str, xlabel: str, ylabel: str) -> Axes:
    """Axes of the course's size and style; the title is the figure's claim."""
    with matplotlib.rc_context(STYLE):
        _, axes = plt.subplots()
        # Here, since the style is over when we return; what is drawn later says itself how it looks.
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        interactive = matplotlib.is_interactive()
    # The first figure of a notebook switches this on; put back to what it was, no later figure would be shown.
    matplotlib.interactive(interactive)
    return axes


def _legend(axes: Axes, **settings: Any) -> None:
    axes.legend(**{"loc": "best", "frameon": False} | settings)


def save(axes: Axes, path: Path) -> None:
    """Write the figure as a PNG and close it."""
    figure = axes.figure
    figure.savefig(path, dpi=160, format="png")  # type: ignore[union-attr]
    plt.close(figure)  # type: ignore[arg-type]


def plot_win_rates(
    rates: Mapping[str, Mapping[str, Any]], *, title: str = "People's preference over the reference"
) -> Axes:
    """Bars of win rate against the reference with 95 % intervals.

    Args:
        rates: Name to a row with `win_rate` (`mean`, `low`, `high`).
        title: The claim.
    """
    axes = new_axes(title, "", "win rate against the reference [%]")
    for position, (name, row) in enumerate(rates.items()):
        rate = {key: 100 * row["win_rate"][key] for key in ("mean", "low", "high")}
        error = [[max(0.0, rate["mean"] - rate["low"])], [max(0.0, rate["high"] - rate["mean"])]]
        color = SHADES.get(name.replace("_", " "), POLICY)
        axes.bar(position, rate["mean"], yerr=error, color=color, width=0.6, capsize=4)
        axes.annotate(
            f"{rate['mean']:.0f} %",
            (position, rate["high"]),
            (0, 5),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axhline(50, color=REFERENCE, linestyle="--", linewidth=1)
    axes.annotate(
        "as good as\nthe reference",
        (1, 50),
        (3, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        color=REFERENCE,
    )
    axes.set_xticks(range(len(rates)), [name.replace("_", " ") for name in rates])
    axes.set_ylim(0, 108)  # room for the number above a bar of 100 %
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="x", visible=False)
    return axes


def plot_win_rates_by_size(rows: Sequence[Mapping[str, Any]], *, title: str) -> Axes:
    """Win rate against the reference by model size, a line a policy, bands over seeds. Stiennon et al. 2020, fig. 1.

    Args:
        rows: Rows of `size`, `seed`, `policy`, `mean`.
        title: The claim.
    """
    axes = new_axes(title, "model", "win rate against the reference [%]")
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    for policy in dict.fromkeys(row["policy"] for row in rows):
        name = policy.replace("_", " ")
        values = [[100 * r["mean"] for r in rows if r["policy"] == policy and r["size"] == size] for size in sizes]
        color = SHADES.get(name, POLICY)
        axes.plot(sizes, [float(np.mean(group)) for group in values], "o-", color=color, label=name)
        axes.fill_between(
            sizes, [min(group) for group in values], [max(group) for group in values], color=color, alpha=0.2
        )
    axes.axhline(50, color=REFERENCE, linestyle="--", linewidth=1, label="as good as\nthe reference")
    axes.set_ylim(0, 100)
    _legend(axes, **BESIDE)
    return axes


def plot_overoptimization(
    rows: Sequence[Mapping[str, Any]],
    *,
    method: str = "ppo",
    fit: GaoFit | None = None,
    by_step: bool = False,
    title: str = "Pushed too far, the proxy lies",
) -> Axes:
    """Proxy and gold score against the distance from the start: a line a seed, and the mean of several in bold.

    The mean is drawn over the distances that every seed has reached, the seeds being interpolated linearly.

    Args:
        rows: Rows of `method`, `kl` [nats], `proxy` and `gold` (above the start, in standard deviations there), and
            `seed` (0 where there is none).
        method: Which rows to draw.
        fit: Gao's form, drawn over the gold points; its argument is the distance, so not together with `by_step`.
        by_step: Draw against the rows' `step` instead: what a penalty holds in place has no distance to go by.
        title: The claim.

    Raises:
        ValueError: No row is of this method, or a fit is to be drawn by step.
    """
    if by_step and fit is not None:
        raise ValueError("a fit is a function of the distance, and cannot be drawn by step; leave out fit or by_step.")
    chosen = sorted((row for row in rows if row["method"] == method), key=_seed)
    if not chosen:
        raise ValueError(f"there is nothing to draw: none of the {len(rows)} rows has the method {method!r}.")
    where = _steps if by_step else _distance
    xlabel = "step of PPO" if by_step else "distance from the start, $\\sqrt{KL}$ [$\\sqrt{nat}$]"
    axes = new_axes(title, xlabel, "score above the start [std at the start]")
    seeds = [list(group) for _, group in groupby(chosen, key=_seed)]
    for role, color, style, label in (
        ("proxy", PROXY, "--", "what the reward model says"),
        ("gold", GOLD, "-", "what is true"),
    ):
        curves = [(where(group), np.array([row[role] for row in group])) for group in seeds]
        grid, mean = _mean_curve(curves)
        thin: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.5} if len(grid) else {"linewidth": 2.0, "alpha": 0.9}
        for index, curve in enumerate(curves):
            axes.plot(*curve, style, color=color, label=None if index or len(grid) else label, **thin)
        if len(grid):
            axes.plot(grid, mean, style, color=color, linewidth=2.4, label=label)
    if fit is not None:
        grid = np.linspace(0.02, _distance(chosen).max(), 200)
        axes.plot(grid, fit.predict(grid**2), ":", color="black", linewidth=1.2, label="fit of Gao et al.")
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    _legend(axes)
    return axes


def _seed(row: Mapping[str, Any]) -> int:
    return row.get("seed", 0)


def _steps(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([row["step"] for row in rows], dtype=float)


def _distance(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """sqrt(KL); an estimate below zero counts as zero."""
    return np.sqrt([max(row["kl"], 0.0) for row in rows])


def _mean_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of several curves where all are known, at 100 places; none of a single curve, or where they do not overlap.

    Example:
        >>> short, long = np.array([0.0, 1.0]), np.array([0.0, 2.0])
        >>> grid, mean = _mean_curve([(short, np.zeros(2)), (long, 2 * long)])
        >>> float(grid[-1]), float(mean[-1])
        (1.0, 1.0)
    """
    first, last = max(x.min() for x, _ in curves), min(x.max() for x, _ in curves)
    if len(curves) < 2 or first >= last:
        return np.zeros(0), np.zeros(0)
    grid = np.linspace(first, last, 100)
    # A policy may come back towards its start, so the distances are put in order first.
    return grid, np.mean([np.interp(grid, np.sort(x), y[np.argsort(x, kind="stable")]) for x, y in curves], axis=0)


def plot_training(
    history: Sequence[Mapping[str, Any]], series: Mapping[str, tuple[str, str]], *, title: str, ylabel: str
) -> Axes:
    """Metrics against the step, smoothed over 5 steps, or a fifteenth of them; null and NaN are left out.

    Args:
        history: Rows with `step` and metrics.
        series: Metric's name to (label, colour).
        title: The claim.
        ylabel: Quantity and unit.

    Raises:
        ValueError: No row has one of the metrics.
    """
    missing = [name for name in series if not any(name in row for row in history)]
    if missing or not series:
        raise ValueError(f"there is nothing to draw: none of the {len(history)} rows has {', '.join(missing)}.")
    axes = new_axes(title, "step", ylabel)
    for name, (label, color) in series.items():
        points = np.array([(row["step"], row[name]) for row in history if name in row], dtype=float)
        steps, values = points[np.isfinite(points[:, 1])].T
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(values, max(5, len(values) // 15)), color=color, label=label)
    _legend(axes)
    return axes


def smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Mean over the last `width` values, over fewer at the start.

    Example:
        >>> smooth(np.array([1.0, 3.0, 5.0]), width=2)
        array([1., 2., 4.])
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_calibration(
    rows: Iterable[Mapping[str, Any]], *, title: str = "How sure it is, and how often it is right"
) -> Axes:
    """Predicted against observed agreement, with the diagonal."""
    axes = new_axes(title, "probability that the reward model gives [%]", "labelers who agree [%]")
    rows = list(rows)
    axes.plot([50, 100], [50, 100], "--", color=REFERENCE, linewidth=1, label="perfectly calibrated")
    axes.plot(
        [100 * row["predicted"] for row in rows],
        [100 * row["observed"] for row in rows],
        "o-",
        color=PROXY,
        label="reward model",
    )
    axes.set_xlim(48, 101)
    _legend(axes, loc="upper left")
    return axes


def plot_reward_model_accuracy(
    rows: Sequence[Mapping[str, Any]], *, labeler_agreement: float, majority_agreement: float | None = None, title: str
) -> Axes:
    """Accuracy against the number of comparisons, a line a model size, with bands over seeds.

    Args:
        rows: Rows of `size`, `num_pairs`, `seed`, `accuracy`.
        labeler_agreement: Of one labeler with another, drawn as a line.
        majority_agreement: Of the majority of three with a labeler.
        title: The claim.
    """
    axes = new_axes(title, "comparisons", "accuracy on held-out comparisons [%]")
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    shades = matplotlib.colormaps["Blues"](np.linspace(0.45, 1.0, len(sizes)))
    for size, color, style in zip(sizes, shades, cycle((":", "--", "-", "-.")), strict=False):
        mine = [row for row in rows if row["size"] == size]
        counts = sorted({row["num_pairs"] for row in mine})
        values = [[100 * row["accuracy"] for row in mine if row["num_pairs"] == count] for count in counts]
        means = [float(np.mean(group)) for group in values]
        axes.plot(counts, means, style, marker="o", markersize=3, color=color, label=f"{size} model")
        axes.fill_between(
            counts, [min(group) for group in values], [max(group) for group in values], color=color, alpha=0.15
        )
    for value, label in ((labeler_agreement, "one labeler"), (majority_agreement, "majority of three")):
        if value is not None:
            axes.axhline(
                100 * value,
                color=REFERENCE,
                linestyle="--" if label == "one labeler" else "-.",
                linewidth=1,
                label=label,
            )
    axes.axhline(50, color=REFERENCE, linewidth=0.8)
    axes.set_xscale("log")
    counts = sorted({row["num_pairs"] for row in rows})
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    _legend(axes, **BESIDE)
    return axes
