"""The figures of docs/scaling.md, from the numbers in docs/scaling.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rlhf_lab.plots import POLICY, PROXY, REFERENCE, STYLE

PART_COLORS = {
    "generation": "#009E73",
    "waiting": "#A6DCC9",
    "reading": "#56B4E9",
    "training": "#0072B2",
    "update": "#003F66",
    "gradients": "#D55E00",
    "weight sync": "#E69F00",
    "idle": "#DDDDDD",
}
"""Of what computes, greens and blues; of what sends, reds."""
PLACEMENTS = {"in turns": PROXY, "apart": POLICY}
SHOWN = (8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000)


def run_of(result: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """The run of these settings; of the middle rates and TL;DR if nothing else is said."""
    middle = result["rates"][len(result["rates"]) // 2]["name"]
    asked = {"rates": middle, "job": "TL;DR"} | asked
    (run,) = (run for run in result["runs"] if all(run[name] == value for name, value in asked.items()))
    return run


def rate(step: dict[str, Any]) -> float:
    """Episodes a second."""
    return step["episodes"] / step["seconds"]


def draw_speed(result: dict[str, Any], path: Path) -> None:
    """Episodes a second against GPUs; a band from the lowest to the highest guess."""
    shapes = list(dict.fromkeys(run["shape"] for run in result["runs"]))
    batches = list(dict.fromkeys(run["a_gpu"] for run in result["runs"]))
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(2, len(shapes), figsize=(9.5, 6), sharex=True)
    for line, a_gpu in zip(panels, batches, strict=True):
        for axes, shape in zip(line, shapes, strict=True):
            _draw_speed(axes, result, shape, a_gpu)
            batch = f"{a_gpu} episodes a GPU" if a_gpu else "512 episodes"
            axes.set_title(f"{shape}, {batch}", fontsize=10, loc="left", fontweight="bold")
    for axes in panels[-1]:
        axes.set_xlabel("GPUs")
    for axes in panels[:, 0]:
        axes.set_ylabel("episodes a second")
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle("Simulated: what more GPUs buy", fontweight="bold")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_speed(axes: Axes, result: dict[str, Any], shape: str, a_gpu: int) -> None:
    best, seen = 0.0, set()
    for placement, color in PLACEMENTS.items():
        curves = []
        for rates in result["rates"]:
            run = run_of(result, rates=rates["name"], shape=shape, a_gpu=a_gpu, placement=placement)
            curves.append({step["gpus"]: rate(step) for step in run["steps"]})
        middle = curves[len(curves) // 2]
        gpus = list(middle)
        axes.plot(gpus, list(middle.values()), color=color, marker="o", ms=3, label=placement)
        axes.fill_between(gpus, [curves[0][n] for n in gpus], [curves[-1][n] for n in gpus], color=color, alpha=0.15)
        best = max([best, *(speed / number for number, speed in middle.items())])
        seen.update(gpus)
    proportional = [best * number for number in sorted(seen)]
    axes.plot(sorted(seen), proportional, color=REFERENCE, ls="--", lw=1, label="in proportion to GPUs")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 8, 64, 512, 4000], ["1", "8", "64", "512", "4000"])
    axes.minorticks_off()


def draw_parts(result: dict[str, Any], path: Path) -> None:
    """Shares of the GPUs' time, for a batch that does not grow."""
    panels_of = [("1B", "in turns", "TL;DR"), ("7B", "in turns", "TL;DR"), ("7B", "apart", "TL;DR")]
    panels_of += [("70B", "apart", "TL;DR"), ("1B", "in turns", "long answers"), ("7B", "apart", "long answers")]
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(2, 3, figsize=(9.5, 6), sharey=True)
    for axes, (shape, placement, job) in zip(panels.flat, panels_of, strict=True):
        run = run_of(result, shape=shape, placement=placement, job=job, a_gpu=0)
        _draw_parts(axes, run["steps"])
        axes.set_title(f"{shape}, {placement}, {job}", fontsize=10, loc="left", fontweight="bold")
    for axes in panels[:, 0]:
        axes.set_ylabel("share of all GPUs' time")
    for axes in panels[-1]:
        axes.set_xlabel("GPUs")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in PART_COLORS.values()]
    figure.legend(
        handles, list(PART_COLORS), loc="outside lower center", ncols=len(PART_COLORS), frameon=False, fontsize=9
    )
    figure.suptitle("Simulated: where a step of 512 episodes goes", fontweight="bold")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_parts(axes: Axes, steps: Sequence[dict[str, Any]]) -> None:
    shown = [step for step in steps if step["gpus"] in SHOWN]
    low = dict.fromkeys((step["gpus"] for step in shown), 0.0)
    for name, color in PART_COLORS.items():
        for step in shown:
            gpus = step["gpus"]
            share = step["parts"].get(name, 0.0) / gpus / step["seconds"]
            axes.bar(SHOWN.index(gpus), share, bottom=low[gpus], color=color, width=0.85)
            low[gpus] += share
    axes.set_xticks(range(len(SHOWN)), [str(gpus) for gpus in SHOWN], rotation=60, fontsize=8)
    axes.set(xlim=(-0.6, len(SHOWN) - 0.4), ylim=(0, 1))
    axes.grid(visible=False)


def draw_check(result: dict[str, Any], path: Path) -> None:
    """Predicted beside measured seconds of a PPO step on the CPU."""
    whats = list(dict.fromkeys(row["what"] for row in result["check"]))
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(whats), figsize=(9.5, 2.6))
    for axes, what in zip(panels, whats, strict=True):
        rows = [row for row in result["check"] if row["what"] == what]
        values = [row["value"] for row in rows]
        axes.plot(values, [row["measured"] for row in rows], marker="o", color=POLICY, label="measured")
        axes.plot(values, [row["predicted"] for row in rows], marker="s", ls="--", color=REFERENCE, label="predicted")
        axes.set(xlabel=what, ylim=(0, None), xticks=values)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
    panels[0].set_ylabel("seconds a step")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle("A PPO step on two cores: measured, and predicted without fitting one", fontweight="bold")
    figure.savefig(path, dpi=130)
    plt.close(figure)
