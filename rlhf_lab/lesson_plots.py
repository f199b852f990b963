"""Figures of the lessons, where `plots` has none: rows in, `Axes` out. One claim a figure, colours by role."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rlhf_lab.equations.overoptimization import best_of_n_curve, best_of_n_kl, gao_rl
from rlhf_lab.evaluation import rate
from rlhf_lab.plots import BESIDE, GOLD, POLICY, PROXY, REFERENCE, SHADES, new_axes, plot_win_rates


def plot_shares(outcomes: Mapping[str, Any], *, people: Sequence[str] = (), title: str) -> Axes:
    """Bars of win rate with 95 % intervals, of several ways to write or to ask.

    Args:
        outcomes: Name to the outcomes of the posts, each 0, one half or 1.
        people: Names of those that no model wrote.
        title: The claim.
    """
    rows = {name: {"win_rate": rate(values).to_dict()} for name, values in outcomes.items()}
    axes = plot_win_rates(rows, title=title)
    for name, bar in zip(outcomes, axes.patches, strict=True):
        if name in people:
            bar.set_facecolor(REFERENCE)
    return axes


def plot_memory(estimates: Mapping[str, Mapping[str, float]], *, marks: Mapping[str, float] = {}, title: str) -> Axes:
    """Stacked bars of memory by what it holds.

    Args:
        estimates: Name of a way to train to its parts [bytes], such as `MemoryEstimate.parts`.
        marks: Names of GPUs to what they hold [bytes], drawn as lines.
        title: The claim.
    """
    axes = new_axes(title, "", "memory [GB]")
    colors = {"weights": PROXY, "moments": GOLD, "gradients": "#D55E00", "activations": POLICY, "overhead": REFERENCE}
    below = np.zeros(len(estimates))
    for part, color in colors.items():
        sizes = np.array([parts.get(part, 0.0) for parts in estimates.values()]) / 1e9
        axes.bar(list(estimates), sizes, bottom=below, color=color, label=part, width=0.6)
        below += sizes
    for name, size in marks.items():
        axes.axhline(size / 1e9, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            name, (1.0, size / 1e9), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center"
        )
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.12, 1.0))
    return axes


def plot_narrowing(rates: Mapping[str, Sequence[Any]], *, title: str) -> Axes:
    """Win rate and its interval as the posts grow in number.

    Args:
        rates: Name of a policy to rows of (number of posts, mean, low, high).
        title: The claim.
    """
    axes = new_axes(title, "posts", "win rate against the reference [%]")
    for name, rows in rates.items():
        counts, mean, low, high = np.array(rows, dtype=float).T
        color = SHADES.get(name.replace("_", " "), POLICY)
        axes.plot(counts, 100 * mean, "o-", color=color, label=name.replace("_", " "))
        axes.fill_between(counts, 100 * low, 100 * high, color=color, alpha=0.2)
    axes.axhline(50, color=REFERENCE, linestyle="--", linewidth=1, label="as good as\nthe reference")
    axes.set_xscale("log", base=2)
    counts = sorted({int(row[0]) for rows in rates.values() for row in rows})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_raw_and_controlled(rows: Sequence[Mapping[str, Any]], *, title: str) -> Axes:
    """Win rate of each policy, and what is left of it at equal length: means over seeds, a dot a seed.

    Args:
        rows: Rows of `policy`, `seed`, `mean` and `length_controlled`.
        title: The claim.
    """
    axes = new_axes(title, "win rate against the reference [%]", "")
    names = list(dict.fromkeys(row["policy"] for row in rows))
    for place, name in enumerate(names):
        mine = [row for row in rows if row["policy"] == name]
        raw, controlled = ([100 * row[key] for row in mine] for key in ("mean", "length_controlled"))
        color = SHADES.get(name.replace("_", " "), POLICY)
        start, end = float(np.mean(raw)), float(np.mean(controlled))
        axes.annotate("", (end, place), (start, place), arrowprops={"arrowstyle": "->", "color": color, "lw": 2})
        axes.plot(raw, [place] * len(raw), "o", color=color, alpha=0.5, markersize=4)
        axes.plot(controlled, [place] * len(raw), "|", color=color, markersize=14)
        axes.annotate(
            f"{start:.0f} % becomes {end:.0f} %",
            ((start + end) / 2, place),
            (0, 10),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axvline(50, color=REFERENCE, linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    return axes


AXES = ("coverage", "accuracy", "coherence", "overall")


def plot_axes_of(rows: Sequence[Mapping[str, Any]], *, title: str) -> Axes:
    """The judge's mean grade of each policy on each of its axes, over all seeds.

    Args:
        rows: Rows of `policy`, `coverage`, `accuracy`, `coherence` and `overall`.
        title: The claim.
    """
    axes = new_axes(title, "", "the judge's mean grade [1 to 7]")
    names = list(dict.fromkeys(row["policy"] for row in rows))
    for index, name in enumerate(names):
        mine = [row for row in rows if row["policy"] == name]
        label = name.replace("_", " ")
        shift = (index - (len(names) - 1) / 2) * 0.24
        means = [float(np.mean([row[axis] for row in mine])) for axis in AXES]
        color = SHADES.get(label, POLICY)
        axes.bar(np.arange(len(AXES)) + shift, np.array(means) - 1, width=0.22, bottom=1, color=color, label=label)
        for place, mean in enumerate(means):
            spot = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(f"{mean:.1f}", (place + shift, mean), **spot)
    axes.set_xticks(range(len(AXES)), AXES)
    axes.set_ylim(1, 7.6)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, **BESIDE)
    return axes


METHODS = {
    "best_of_n": ("best-of-n", "#CC79A7", "s-"),
    "ppo_penalty": ("PPO with the penalty", POLICY, "o-"),
    "ppo": ("PPO without it", "#D55E00", "^-"),
}
DISTANCE = "distance from the start, $\\sqrt{KL}$ [$\\sqrt{nat}$]"


def draw_best_of_n(axes: Axes, rows: Sequence[Mapping[str, Any]], *, label: str) -> None:
    """Draw an own run over `plot_overoptimization`, counted from its first sample in standard deviations of samples.

    Args:
        axes: The figure.
        rows: What `best_of_n_rows` gives, `n` = 1 first.
        label: For the legend.
    """
    distance = [best_of_n_kl(row["n"]) ** 0.5 for row in rows]
    for role, color, marker in (("proxy", PROXY, "D--"), ("gold", GOLD, "D-")):
        gain = [(row[role] - rows[0][role]) / (rows[0][f"{role}_std"] or 1.0) for row in rows]
        axes.plot(distance, gain, marker, color=color, markeredgecolor="black", linewidth=0.8, label=f"{label}, {role}")
    axes.legend(frameon=False)


def plot_extrapolation(
    kl: np.ndarray, gold: np.ndarray, is_early: np.ndarray, fits: Mapping[str, Any], *, title: str
) -> Axes:
    """Gold against the distance, the points that were fitted and those that were foretold, with Gao's form for RL.

    Args:
        kl: KL of each point [nats].
        gold: Gold score of each point.
        is_early: True for the points before the line.
        fits: Name to alpha and beta.
        title: The claim.
    """
    axes = new_axes(title, DISTANCE, "gold above the start [std at the start]")
    axes.plot(np.sqrt(kl[is_early]), gold[is_early], "o", color=GOLD, label="first half")
    axes.plot(np.sqrt(kl[~is_early]), gold[~is_early], "o", color=GOLD, markerfacecolor="white", label="second half")
    grid = np.linspace(0.02, float(np.sqrt(kl.max())), 200)
    for (name, (alpha, beta)), style in zip(fits.items(), ("--", ":"), strict=False):
        axes.plot(grid, gao_rl(grid, float(alpha), float(beta)), style, color="black", linewidth=1.4, label=name)
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.axvline(float(np.sqrt(kl.max())) / 2, color=REFERENCE, linewidth=0.8)
    axes.legend(frameon=False)
    return axes


def plot_frontiers(rows: Sequence[Mapping[str, Any]], *, title: str, furthest: float = 2.2) -> Axes:
    """Gold against the distance for each way to optimize: the mean of the seeds at each n or step.

    Args:
        rows: Rows of `method`, `seed`, `n` or `step`, `kl` and `gold`.
        title: The claim.
        furthest: Distance at which the figure ends.
    """
    axes = new_axes(title, DISTANCE, "gold above the start [std at the start]")
    for method, (label, color, style) in METHODS.items():
        mine = [row for row in rows if row["method"] == method]
        key = "n" if method == "best_of_n" else "step"
        groups = [[row for row in mine if row[key] == value] for value in sorted({row[key] for row in mine})]
        distance = [float(np.sqrt(max(0.0, np.mean([row["kl"] for row in group])))) for group in groups]
        gold = [float(np.mean([row["gold"] for row in group])) for group in groups]
        axes.plot(distance, gold, style, color=color, markersize=5, label=label)
    axes.axhline(0.5, color=REFERENCE, linestyle="--", linewidth=1)
    axes.set_xlim(-0.05, furthest)
    axes.set_ylim(-0.05, None)
    axes.legend(frameon=False, loc="lower right")
    return axes


def plot_rules(picked: Mapping[str, np.ndarray], gold: np.ndarray, *, title: str) -> Axes:
    """Gold of the best of n by several scores, above a single sample's, by the unbiased estimator.

    Args:
        picked: Name to a score for each sample (prompts, samples); names that end in "alone" are drawn thin.
        gold: The samples' true scores.
        title: The claim.
    """
    axes = new_axes(title, "n", "gold of the best of n [std of samples]")
    ns = [2**power for power in range(int(np.log2(gold.shape[1])) + 1)]
    thin = iter(cycle((":", "--", "-.")))
    bold = iter(cycle((("o-", POLICY), ("s-", "#CC79A7"), ("^-", "#D55E00"))))
    for name, scores in picked.items():
        gain = (best_of_n_curve(scores, gold, ns) - gold.mean()) / gold.std()
        if name.endswith("alone"):
            axes.plot(ns, gain, next(thin), color=PROXY, linewidth=1, label=name)
        else:
            style, color = next(bold)
            axes.plot(ns, gain, style, color=color, markersize=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_opinions(opinions: Mapping[str, Mapping[str, np.ndarray]], *, title: str) -> Axes:
    """What several judges think of several policies, counted from the first policy in their own standard deviations.

    Args:
        opinions: Policy to judge to scores of samples. "people" and "truth" are drawn in colours of their own.
        title: The claim.
    """
    axes = new_axes(title, "", "score above the first policy's [std there]")
    shades = iter(cycle((":", "--", "-.")))
    own = {"people": ("s-", "#CC79A7"), "truth": ("D-", GOLD)}
    start = next(iter(opinions.values()))
    for judge, first in start.items():
        gains = [float((by_judge[judge].mean() - first.mean()) / first.std()) for by_judge in opinions.values()]
        style, color = own.get(judge) or ("o" + next(shades), PROXY)
        axes.plot(range(len(gains)), gains, style, color=color, linewidth=2, label=judge)
    names = {"human_feedback": "PPO with\nthe penalty", "no_penalty": "PPO\nwithout it"}
    axes.set_xticks(range(len(opinions)), [names.get(name, name) for name in opinions])
    axes.set_xlim(-0.2, len(opinions) - 0.8)
    axes.axhline(0, color=REFERENCE, linewidth=0.8)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_clips(clips: Mapping[str, Sequence[np.ndarray]], *, title: str, xlabel: str = "") -> Axes:
    """Clips of behavior as strips of pictures, one under the other; time runs to the right.

    Args:
        clips: Name to frames, all of one size: uint8 (height, width, 3).
        title: The claim.
        xlabel: What time it is.
    """
    axes = new_axes(title, xlabel, "")
    strips = [np.concatenate(list(frames), axis=1) for frames in clips.values()]
    tall, wide = strips[0].shape[0], max(strip.shape[1] for strip in strips)
    for place, strip in enumerate(strips):
        axes.imshow(strip, extent=(0, strip.shape[1], (place + 1) * tall, place * tall))
    axes.set(xlim=(0, wide), ylim=(len(strips) * tall, 0), xticks=[])
    axes.set_yticks([(place + 0.5) * tall for place in range(len(strips))], list(clips))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.figure.set_size_inches(9, 0.9 + 8 * len(strips) * tall / wide)  # type: ignore[union-attr]
    return axes
