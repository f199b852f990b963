"""Figures of what labels are worth: statistics in, a matplotlib `Figure` out. People stand out among the simulated.

The figures are no pyplot figures, so that making one neither shows it nor keeps it.
"""

import base64
import functools
import html
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from rlhf_lab.labeling.agreement import Estimate
from rlhf_lab.labeling.policy_scores import PolicyScores
from rlhf_lab.plots import BESIDE, GOLD, POLICY, PROXY, REFERENCE, STYLE

PERSON, SIMULATED = "#D55E00", "#9A9A9A"
"""Vermilion of Okabe and Ito's palette, and a grey."""
FEW = 12
"""Labelers up to this many are all named; among more, only people are."""


def agreement_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """How often each two labelers say the same, labeler by labeler; NaN on the diagonal and without a common item.

    Example:
        >>> agreement_matrix(pd.DataFrame({"ana": [0.0, 1.0, 1.0], "ben": [0.0, 0.0, np.nan]})).loc["ana", "ben"].item()
        0.5
    """
    cells = table.to_numpy(dtype=float)
    given = (~np.isnan(cells)).astype(float)
    both, alike = given.T @ given, np.zeros((table.shape[1], table.shape[1]))
    for value in np.unique(cells[~np.isnan(cells)]):
        alike += (cells == value).T.astype(float) @ (cells == value)
    shares = np.where(both > 0, alike / np.maximum(both, 1), np.nan)
    np.fill_diagonal(shares, np.nan)
    return pd.DataFrame(shares, index=table.columns, columns=table.columns)


@functools.cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def drawable(name: str, *, width: int = 16) -> str:
    """A labeler's or source's name as figures show it: short, never a formula, only letters that the font has.

    Example:
        >>> drawable("a name that goes on and on")
        'a name that g...'
    """
    name = name if len(name) <= width else name[: width - 3] + "..."
    letters = ["?" if ord(letter) not in _letters() or not letter.isprintable() else letter for letter in name]
    return "".join(letters).replace("$", r"\$")


def as_html(figure: Figure, title: str) -> str:
    """The figure as an image within the page; its ground is white, so that it can be read on a dark page too."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width: {96 * figure.get_figwidth():.0f}px; max-width: 100%; height: auto; border-radius: 4px"
    return f'<img alt="{html.escape(title)}" style="{style}" src="data:image/png;base64,{data}">'


def _figure(title: str, *, size: tuple[float, float] = (6.0, 3.5), panels: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size)
    # Over the whole figure, as names beside the axes may be long.
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure, figure.subplots(1, panels, squeeze=False)[0].tolist()


def _known(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    known = {name: estimate for name, estimate in estimates.items() if estimate.is_known}
    if not known:
        raise ValueError("there is nothing to draw: no value is known.")
    return known


def _draw_rows(axes: Axes, rows: Mapping[str, Sequence[float]], people: Collection[str]) -> None:
    """Intervals one above the other: name to (value, low, high)."""
    for place, (name, (value, low, high)) in enumerate(rows.items()):
        is_person = name in people
        axes.errorbar(
            value,
            place,
            xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            fmt="D" if is_person else "o",
            color=PERSON if is_person else SIMULATED,
            markersize=6 if is_person else min(5.0, 2 + 24 / len(rows)),
            linewidth=2.2 if is_person else 1.0,
            zorder=3 if is_person else 2,
        )
    named = [place for place, name in enumerate(rows) if len(rows) <= FEW or name in people]
    axes.set_yticks(named, [drawable(list(rows)[place]) for place in named])
    for place, tick in zip(named, axes.get_yticklabels(), strict=True):
        if list(rows)[place] in people:
            tick.set(color=PERSON, fontweight="bold")
    axes.set_ylim(-0.7, len(rows) - 0.3 + 0.09 * len(rows))  # Room for a word above.
    axes.grid(axis="y", visible=False)


def _draw_chance(axes: Axes) -> None:
    axes.axvline(50, color=REFERENCE, linestyle="--", linewidth=1)
    axes.annotate("chance", (50, 1), (3, -2), ("data", "axes fraction"), "offset points", va="top", color=REFERENCE)


def _size(names: Collection[str], people: Collection[str]) -> tuple[float, float]:
    """Higher where more names must be read than fit."""
    num_people = sum(name in people for name in names)
    return (6.0, 3.5) if len(names) <= FEW or num_people <= 1 else (6.0, max(3.5, 1 + 0.14 * len(names)))


def _count_labelers(axes: Axes, names: Collection[str], people: Collection[str]) -> None:
    num_people = sum(name in people for name in names)
    num_others = len(names) - num_people
    parts = [f"{num_people} {'person' if num_people == 1 else 'people'}"] if num_people else []
    parts += [f"{num_others} simulated"] if num_others else []
    axes.set_ylabel(" and ".join(parts))


@matplotlib.rc_context(STYLE)
def plot_agreement(table: pd.DataFrame, people: Collection[str] = ()) -> Figure:
    """How often each two labelers say the same, as a matrix; people first, then by how much they agree with all."""
    shares = agreement_matrix(table)
    if shares.isna().all(axis=None):
        raise ValueError("there is nothing to draw: no two labelers answered the same item.")
    order = sorted(shares.columns, key=lambda name: (name not in people, -np.nan_to_num(shares[name].mean())))
    shares = 100 * shares.loc[order, order]
    is_large = sum(name in people for name in order) > FEW
    figure, (axes,) = _figure("How often each two labelers agree", size=(9.0, 7.8) if is_large else (6.4, 5.2))
    shades = matplotlib.colormaps["viridis"].with_extremes(bad="#E4E4E4")
    cells = shares.to_numpy()
    least = min(50.0, float(np.nanmin(cells)))
    image = axes.imshow(np.ma.masked_invalid(cells), cmap=shades, vmin=least, vmax=100)
    figure.colorbar(image, ax=axes, label="same answer to the same item [%]", shrink=0.8)
    for (row, column), value in np.ndenumerate(cells if len(order) <= 8 else np.zeros((0, 0))):
        if not np.isnan(value):
            color = "black" if value > least + 0.6 * (100 - least) else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    _name_cells(axes, order, people)
    _count_labelers(axes, order, people)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("grey: no item in common", color=REFERENCE)
    return figure


def _name_cells(axes: Axes, order: Sequence[str], people: Collection[str]) -> None:
    """Names along both sides of a matrix, and a frame around the people, who come first."""
    named = [place for place, name in enumerate(order) if len(order) <= FEW or name in people]
    names = [drawable(order[place], width=12) for place in named]
    size = 9 if len(named) <= FEW else 6
    slant: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if size == 9 else {"rotation": 90}
    axes.set_xticks(named, names, fontsize=size, **slant)
    axes.set_yticks(named, names, fontsize=size)
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for place, tick in zip(named, ticks, strict=True):
            tick.set_color(PERSON if order[place] in people else "black")
    num = sum(name in people for name in order)
    if 0 < num < len(order):
        for width, height in ((num, len(order)), (len(order), num)):
            axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=PERSON, linewidth=2))


@matplotlib.rc_context(STYLE)
def plot_gold(
    estimates: Mapping[str, Estimate], people: Collection[str] = (), *, what: str = "what is right"
) -> Figure:
    """How often each labeler chooses what is right (or what a judge chooses), with intervals."""
    known = dict(sorted(_known(estimates).items(), key=lambda pair: pair[1].value))
    values = [100 * estimate.value for estimate in known.values()]
    span = f"{values[0]:.0f} %" if len(values) == 1 else f"{values[0]:.0f} to {values[-1]:.0f} %"
    figure, (axes,) = _figure(f"Labelers choose {what} {span} of the time", size=_size(known, people))
    rows = {name: (100 * one.value, 100 * one.low, 100 * one.high) for name, one in known.items()}
    _draw_rows(axes, rows, people)
    _draw_chance(axes)
    axes.set(xlabel=f"chose {what} [%]", xlim=(min(38.0, *(row[1] - 2 for row in rows.values()), 100.0), 102))
    _count_labelers(axes, known, people)
    return figure


@matplotlib.rc_context(STYLE)
def plot_bias(position: Mapping[str, Estimate], length: Mapping[str, Estimate], people: Collection[str] = ()) -> Figure:
    """How often the answer shown first, and the longer one, is chosen; a row for each group of labelers."""
    names = list(reversed(list(dict.fromkeys([*position, *length]))))
    size = (7.0, max(3.0, 1.2 + 0.25 * len(names)))
    figure, axes = _figure("Do the side and the length decide?", size=size, panels=2)
    for panel, estimates, what in (
        (axes[0], position, "the answer shown first"),
        (axes[1], length, "the longer answer"),
    ):
        unknown = Estimate()
        found = [estimates.get(name, unknown) for name in names]
        rows = {name: (100 * one.value, 100 * one.low, 100 * one.high) for name, one in zip(names, found, strict=True)}
        _draw_rows(panel, rows, people)
        _draw_chance(panel)
        panel.set(xlabel=f"chose {what} [%]", xlim=(0, 100))
    axes[1].set_yticklabels([])
    return figure


@matplotlib.rc_context(STYLE)
def plot_seconds(times: Mapping[str, Mapping[str, float]], people: Collection[str] = ()) -> Figure:
    """Seconds spent on an item: each labeler's median, and the middle half of their labels."""
    known = dict(sorted(((n, t) for n, t in times.items() if t["n"] > 0), key=lambda pair: pair[1]["median"]))
    if not known:
        raise ValueError("there is nothing to draw: no label's time was measured.")
    rows = {name: (one["median"], one["lower_quartile"], one["upper_quartile"]) for name, one in known.items()}
    middle = float(np.median([row[0] for row in rows.values()]))
    figure, (axes,) = _figure(f"An item takes {middle:.0f} seconds", size=_size(known, people))
    _draw_rows(axes, rows, people)
    axes.set(xlabel="time for an item: median and quartiles [s]", xlim=(0, None))
    _count_labelers(axes, known, people)
    return figure


@matplotlib.rc_context(STYLE)
def plot_drift(rows: Sequence[Mapping[str, Any]], people: Collection[str] = ()) -> Figure:
    """What changes as labelers go on; rows of `bias.drift`. A thin line a labeler, and the mean in bold."""
    if not rows:
        raise ValueError("there is nothing to draw: no labeler gave enough labels to cut them in blocks.")
    knows_gold = any(not np.isnan(row["gold"]) for row in rows)
    measure, what = ("gold", "chose what is right [%]") if knows_gold else ("majority", "chose as the majority [%]")
    panels = [(measure, what, 100.0), ("first", "chose what was shown first [%]", 100.0), ("seconds", "time [s]", 1.0)]
    panels = [panel for panel in panels if any(not np.isnan(row[panel[0]]) for row in rows)]
    if not panels:
        raise ValueError("there is nothing to draw: the labels are no choices, and their time was not measured.")
    size = (max(5.0, 3.0 * len(panels)), 3.2)
    figure, axes = _figure("What changes as labelers go on", size=size, panels=len(panels))
    blocks = sorted({row["block"] for row in rows})
    for panel, (key, label, unit) in zip(axes, panels, strict=True):
        for is_person in (False, True):
            group = [dict(row) | {"shown": unit * row[key]} for row in rows if (row["labeler"] in people) == is_person]
            _draw_lines(panel, group, blocks, "person" if is_person else "simulated", PERSON if is_person else "black")
        panel.set(xlabel=f"part of their labels, of {len(blocks)}", ylabel=label, xticks=blocks)
        panel.set_ylim(0, 102 if unit == 100 else None)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def _draw_lines(axes: Axes, rows: Sequence[Mapping[str, Any]], blocks: Sequence[int], who: str, color: str) -> None:
    """`shown` by block: of a single labeler in bold; of several in thin lines, and their mean in bold."""
    names = list(dict.fromkeys(row["labeler"] for row in rows))
    known = [[row["shown"] for row in rows if row["block"] == at and not np.isnan(row["shown"])] for at in blocks]
    for name in names if len(names) > 1 else []:
        mine = [row["shown"] for row in rows if row["labeler"] == name]
        axes.plot(blocks, mine, color=PERSON if who == "person" else SIMULATED, alpha=0.3, linewidth=0.8)
    if names:
        label = who if len(names) == 1 else f"mean of {len(names)} {'people' if who == 'person' else who}"
        means = [float(np.mean(group)) if group else np.nan for group in known]
        axes.plot(blocks, means, "D-" if who == "person" else "-", color=color, linewidth=2, markersize=5, label=label)


@matplotlib.rc_context(STYLE)
def plot_majority(curves: Mapping[str, Mapping[int, Estimate]]) -> Figure:
    """How often the majority of k labelers agrees; a line for each thing that it is held against."""
    figure, (axes,) = _figure("Is a majority better than one labeler?")
    for (name, curve), color, style in zip(curves.items(), (PROXY, GOLD, POLICY), ("o-", "s--", "^:"), strict=False):
        known = {k: one for k, one in curve.items() if one.is_known}
        axes.plot(list(known), [100 * one.value for one in known.values()], style, color=color, label=name)
        low, high = [100 * one.low for one in known.values()], [100 * one.high for one in known.values()]
        axes.fill_between(list(known), low, high, color=color, alpha=0.15)
    ks = sorted({k for curve in curves.values() for k, one in curve.items() if one.is_known})
    if not ks:
        raise ValueError("there is nothing to draw: no item has enough labelers for a majority.")
    axes.set(xlabel="labelers in the majority", ylabel="agreement [%]", xticks=ks)
    axes.legend(frameon=False, title="the majority against", alignment="left", **BESIDE)
    return figure


@matplotlib.rc_context(STYLE)
def plot_scores(scores: PolicyScores) -> Figure:
    """Sources' scores with intervals, the best at the top."""
    rows = list(reversed(scores.rows()))
    best, second = scores.sources[:2]
    is_clear = scores.difference(best, second)[1] > 0
    title = f"Labelers prefer {drawable(best)}" if is_clear else "No source is clearly preferred to all others"
    figure, (axes,) = _figure(title, size=(6.0, max(2.5, 1.3 + 0.3 * len(rows))))
    for place, row in enumerate(rows):
        error = [[row["elo"] - row["low"]], [row["high"] - row["elo"]]]
        axes.errorbar(row["elo"], place, xerr=error, fmt="o", color=POLICY, markersize=6, linewidth=2, capsize=3)
        white: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        spot: Any = {"textcoords": "offset points", "ha": "center", "bbox": white}
        axes.annotate(f"{row['elo']:.0f}", (row["elo"], place), (0, 7), **spot)
    axes.axvline(1000, color=REFERENCE, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [drawable(row["source"]) for row in rows])
    axes.set(xlabel="score [Elo points; the mean is 1000]", ylim=(-0.6, len(rows) - 0.3))
    axes.grid(axis="y", visible=False)
    return figure
