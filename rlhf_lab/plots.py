"""One function for each figure of the course: rows in, `Axes` out. One claim a figure, colours by role."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
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
    "legend.frameon": False,
    "font.size": 10,
}


def new_axes(title: str, xlabel: str, ylabel: str) -> Axes:
    """Axes of the course's size and style; the title is the figure's claim."""
    with matplotlib.rc_context(STYLE):
        _, axes = plt.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return axes


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
        error = [[rate["mean"] - rate["low"]], [rate["high"] - rate["mean"]]]
        color = SHADES.get(name.replace("_", " "), POLICY)
        axes.bar(position, rate["mean"], yerr=error, color=color, width=0.6, capsize=4)
        axes.annotate(
            f"{rate['mean']:.0f} %", (position, rate["high"]), (0, 4), textcoords="offset points", ha="center"
        )
    axes.axhline(50, color=REFERENCE, linestyle="--", linewidth=1)
    axes.annotate(
        "as good as the reference",
        (1, 50),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=REFERENCE,
    )
    axes.set_xticks(range(len(rates)), [name.replace("_", " ") for name in rates])
    axes.set_ylim(0, 100)
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
    axes.axhline(50, color=REFERENCE, linestyle="--", linewidth=1, label="as good as the reference")
    axes.set_ylim(0, 100)
    axes.legend(loc="best")
    return axes


def plot_overoptimization(
    rows: Sequence[Mapping[str, Any]],
    *,
    method: str = "ppo",
    fit: GaoFit | None = None,
    title: str = "Pushed too far, the proxy lies",
) -> Axes:
    """Proxy and gold score against the distance from the start, a line a seed, and the mean of several.

    Args:
        rows: Rows of `method`, `seed`, `kl` [nats], `proxy`, `gold`, in the gold scale relative to the start.
        method: Which rows to draw.
        fit: Gao's form, drawn over the gold points.
        title: The claim.
    """
    axes = new_axes(title, "distance from the start, $\\sqrt{KL}$ [$\\sqrt{nat}$]", "score above the start [gold std]")
    chosen = sorted((row for row in rows if row["method"] == method), key=lambda row: row["seed"])
    seeds = [list(group) for _, group in groupby(chosen, key=lambda row: row["seed"])]
    for role, color, style in (("proxy", PROXY, "--"), ("gold", GOLD, "-")):
        for index, group in enumerate(seeds):
            distance = np.sqrt([max(row["kl"], 0.0) for row in group])
            label = {"proxy": "what the reward model says", "gold": "what is true"}[role] if index == 0 else None
            axes.plot(
                distance,
                [row[role] for row in group],
                style,
                color=color,
                alpha=0.9 if len(seeds) == 1 else 0.55,
                label=label,
            )
    if fit is not None and seeds:
        grid = np.linspace(0.02, max(np.sqrt(max(row["kl"], 0.0)) for row in chosen), 200)
        axes.plot(grid, fit.predict(grid**2), ":", color="black", linewidth=1.2, label="fit of Gao et al.")
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.legend(loc="best")
    return axes


def plot_training(
    history: Sequence[Mapping[str, Any]], series: Mapping[str, tuple[str, str]], *, title: str, ylabel: str
) -> Axes:
    """Metrics against the step, smoothed over 5 steps.

    Args:
        history: Rows with `step` and metrics.
        series: Metric's name to (label, colour).
        title: The claim.
        ylabel: Quantity and unit.
    """
    axes = new_axes(title, "step", ylabel)
    for name, (label, color) in series.items():
        rows = [row for row in history if name in row]
        values = np.array([row[name] for row in rows])
        steps = [row["step"] for row in rows]
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(values), color=color, label=label)
    axes.legend(loc="best")
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
    axes.legend(loc="upper left")
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
    for size, color, style in zip(sizes, ("#56B4E9", PROXY, "#003A5C"), (":", "--", "-"), strict=False):
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
    axes.legend(loc="best")
    return axes
