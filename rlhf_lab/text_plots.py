"""Figures of the first lessons: tokens, texts and their losses. Rows in, `Axes` out, as in `plots`."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from rlhf_lab.plots import BESIDE, GOLD, POLICY, PROXY, REFERENCE, SHADES, new_axes


def plot_next_tokens(tokens: Sequence[str], probs: Mapping[str, Sequence[float]], *, title: str) -> Axes:
    """Probability of some next tokens, a group of bars a token.

    Args:
        tokens: Their texts.
        probs: Name of a policy to its probabilities of them.
        title: The claim.
    """
    axes = new_axes(title, "next token", "probability [%]")
    shades = matplotlib.colormaps["Greens"](np.linspace(0.35, 0.95, len(probs)))
    width = 0.8 / len(probs)
    for index, ((name, values), color) in enumerate(zip(probs.items(), shades, strict=True)):
        places = np.arange(len(tokens)) + (index - (len(probs) - 1) / 2) * width
        axes.bar(places, 100 * np.asarray(values), width, color=color, label=name)
    axes.set_xticks(range(len(tokens)), [_shown(token) for token in tokens])
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False)
    return axes


def plot_token_losses(
    tokens: Sequence[str], losses: Sequence[float], counted: Sequence[bool] | None = None, *, title: str
) -> Axes:
    """Loss of each token of a text, a bar a token; those that do not count are grey.

    Args:
        tokens: Their texts.
        losses: In nats.
        counted: True where a token counts; by default all do.
        title: The claim.
    """
    axes = new_axes(title, "", "loss of the token [nats]")
    counted = [True] * len(tokens) if counted is None else counted
    axes.bar(range(len(tokens)), losses, color=[POLICY if counts else REFERENCE for counts in counted])
    axes.set_xticks(range(len(tokens)), [_shown(token) for token in tokens], rotation=90, fontsize=8)
    axes.set_xlim(-0.7, len(tokens) - 0.3)
    axes.grid(axis="x", visible=False)
    return axes


def _shown(token: str) -> str:
    """A token with its leading blank made visible; a dollar sign must not start a formula."""
    return token.replace(" ", "\N{OPEN BOX}").replace("\n", "\\n").replace("$", r"\$")


def plot_equals(losses: Sequence[float], favorite: float, *, title: str) -> Axes:
    """Losses of summaries of one post that the judge grades alike, beside the model's own favorite's.

    Args:
        losses: Of whole summaries [nats].
        favorite: Loss of what the model writes greedily [nats].
        title: The claim.
    """
    axes = new_axes(title, "loss of the whole summary [nats]", "summaries")
    axes.hist(losses, bins=14, color=GOLD, label="perfect summaries")
    axes.axvline(favorite, color=POLICY, linewidth=2, linestyle="--", label="what the model writes")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_pulled(losses: np.ndarray, taught: int, *, title: str) -> Axes:
    """Losses of equally good summaries while one of them is taught.

    Args:
        losses: Of whole summaries [nats], before training and after each update: (updates + 1, summaries).
        taught: Column of the one that is taught.
        title: The claim.
    """
    axes = new_axes(title, "updates on the one summary", "loss of the whole summary [nats]")
    others = np.delete(losses, taught, axis=1)
    axes.plot(others, color=GOLD, alpha=0.25, linewidth=0.8)
    axes.plot(others.mean(1), color=GOLD, linewidth=2.4, label="equally good,\nmean")
    axes.plot(losses[:, taught], color=POLICY, linewidth=2.4, linestyle="--", label="taught")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_edits(edits: Mapping[str, np.ndarray], *, title: str) -> Axes:
    """What edits of a summary do to its loss and to its grade: a dot a post, a large mark the mean.

    Args:
        edits: Name of an edit to rows of (change of the loss [nats], change of the grade).
        title: The claim.
    """
    axes = new_axes(title, "change of the loss of the summary [nats]", "change of the judge's grade")
    for (name, changes), color, marker in zip(edits.items(), (POLICY, PROXY, GOLD, REFERENCE), "osD^", strict=False):
        loss, grade = np.asarray(changes).T
        axes.plot(loss, grade, marker, color=color, alpha=0.25, markersize=4, markeredgewidth=0)
        axes.plot(loss.mean(), grade.mean(), marker, color=color, markersize=11, markeredgecolor="black", label=name)
    axes.set_ylim(top=0.4)  # room for the mark of an edit that changes no grade
    axes.axhline(0, color=REFERENCE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=REFERENCE, linewidth=0.8, zorder=0)
    axes.legend(frameon=False, **BESIDE)
    return axes


def plot_imitators(grades: Mapping[str, tuple[float, float]], start: float, *, title: str) -> Axes:
    """Mean grade of several crowds of writers, and of the models that imitate them.

    Args:
        grades: Name of a crowd to the grade of its summaries and of its imitator's.
        start: Grade of the model from which all imitators began.
        title: The claim.
    """
    axes = new_axes(title, "", "the judge's mean grade [1 to 7]")
    for index, (label, color) in enumerate((("the writers", REFERENCE), ("their imitator", SHADES["supervised"]))):
        heights = [pair[index] for pair in grades.values()]
        places = np.arange(len(grades)) + (index - 0.5) * 0.36
        axes.bar(places, np.array(heights) - 1, 0.34, bottom=1, color=color, label=label)
        for place, height in zip(places, heights, strict=True):
            spot = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{height:.1f}", (place, height), **spot)
    axes.axhline(start, color="black", linestyle=":", linewidth=1.2, label="where both\nimitators began")
    axes.set_xticks(range(len(grades)), list(grades))
    axes.set_ylim(1, 7.6)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, **BESIDE)
    return axes
