"""What else do labels depend on? The side, the length, and how long, how fast and how late somebody labels.

Everything here takes rows of `LabelStore.labels()`; what cannot be known is NaN with a reason, as in `agreement`.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.stats import binomtest

from rlhf_lab.data.judge import words_of
from rlhf_lab.labeling.agreement import Estimate, checked, choices, mean_over_items, share
from rlhf_lab.labeling.policy_scores import Choice, Labels, choices_of, logistic_regression

QUICK_WORDS_PER_MINUTE = 600
"""Whoever answers sooner than this speed allows cannot have read all: adults read 238 words of English a minute.

Brysbaert 2019, "How many words do we read per minute?", J. Mem. Lang. 109:104047 (silent reading of non-fiction).
"""
MIN_ITEMS = 10
"""Items that a regression needs at least: its errors come from how much the items differ."""


def by_labeler(labels: Labels) -> dict[str, list[Mapping[str, Any]]]:
    """Each labeler's labels, in the order of answering."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for label in sorted(labels, key=lambda label: label["created_at"]):
        found.setdefault(label["labeler"], []).append(label)
    return found


def _decided(labels: Labels) -> list[Choice]:
    return [choice for choice in choices_of(labels) if choice.value != 0.5]


def _is_shown_first(choice: Choice) -> bool:
    """Whether the first answer of the pair is the one that the labeler saw first."""
    sides = list(choice.label["sides"])
    return sides.index(choice.first) < sides.index(choice.second)


def _prefers_shown_first(choice: Choice) -> bool:
    return _is_shown_first(choice) == (choice.value == 0)


@functools.lru_cache(maxsize=50_000)
def _num_words(text: str) -> int:
    return len(words_of(text))


def _longer_by(choice: Choice) -> int:
    """Words of the first answer of the pair, less those of the second."""
    answers = choice.label["answers"]
    return _num_words(answers[choice.first]) - _num_words(answers[choice.second])


def position_bias(labels: Labels) -> Estimate:
    """Share of comparisons in which the answer shown first is chosen, with Wilson's interval; ties are left out.

    `p_value` is of the exact binomial test of one half, which holds whatever the items and labelers, as the store draws
    the sides anew for each. Rankings are left out: the pairs of one are not drawn apart.
    """
    first = [_prefers_shown_first(choice) for choice in _decided(labels) if choice.label["kind"] == "compare"]
    if not first:
        return Estimate(reason="there is no comparison in which one answer was chosen")
    return replace(share(sum(first), len(first)), p_value=float(binomtest(sum(first), len(first)).pvalue))


def length_bias(labels: Labels, *, seed: int = 0) -> Estimate:
    """Share of choices for the longer answer, in words, with a bootstrap over items; `n` counts items.

    Ties, and answers of the same length, are left out. Longer answers may be better ones, so that this alone is no
    fault of the labelers.
    """
    found = [choice for choice in _decided(labels) if _longer_by(choice) != 0]
    if not found:
        return Estimate(reason="there is no choice between answers of different lengths")
    longer = np.array([(_longer_by(choice) > 0) == (choice.value == 0) for choice in found], dtype=float)
    return mean_over_items(longer, np.ones(len(found)), [choice.label["item"] for choice in found], seed=seed)


def length_regression(labels: Labels) -> dict[str, Estimate]:
    """What 10 words more, and being shown first, add to the log-odds of being chosen, each with the other held fixed.

        log odds(first shown is chosen) = position + length (its words - the other's words) / 10

    That is a regression on the length's difference with the position as a covariate: turning a pair around turns the
    signs of all three. Errors allow for choices on one item belonging together (a sandwich, clustered by item).

    Returns:
        `position` and `length`, with intervals and p-values of Wald's test. NaN with fewer than 10 items, and where one
        of them decides every choice.
    """
    found = _decided(labels)
    _, items = np.unique([choice.label["item"] for choice in found] or [""], return_inverse=True)
    if items.max() + 1 < MIN_ITEMS:
        reason = f"it takes choices on {MIN_ITEMS} items or more, and there are {len({c.label['item'] for c in found})}"
        return dict.fromkeys(("position", "length"), Estimate(reason=reason))
    chose_first = np.array([_prefers_shown_first(choice) for choice in found], dtype=float)
    length = np.array([_longer_by(choice) * (1 if _is_shown_first(choice) else -1) for choice in found]) / 10
    design = np.stack([np.ones(len(found)), length], axis=1)
    if reason := _why_no_fit(design, chose_first):
        return dict.fromkeys(("position", "length"), Estimate(reason=reason))
    fit = logistic_regression(chose_first, design, items)
    ends = fit.conf_int()
    return {
        name: Estimate(float(fit.params[i]), float(ends[i][0]), float(ends[i][1]), len(found), float(fit.pvalues[i]))
        for i, name in enumerate(("position", "length"))
    }


def _why_no_fit(design: np.ndarray, outcome: np.ndarray) -> str:
    """Why a logistic regression has no finite estimate; empty if it has one.

    It has none if some weights put every choice on its right side, or on the line (Albert and Anderson 1984).
    """
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return "all answers differ by the same number of words"
    signed = design * (2 * outcome - 1)[:, None]
    found = linprog(-signed.sum(0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1))
    return (
        "the side or the length decides every choice, so that its weight would be infinite" if found.fun < -1e-9 else ""
    )


def time_per_item(labels: Labels) -> dict[str, float]:
    """Seconds spent on an item: `median`, `lower_quartile`, `upper_quartile`, and `n`. 0 seconds means not measured.

    Example:
        >>> time_per_item([{"seconds": 4.0}, {"seconds": 8.0}, {"seconds": 0.0}])
        {'median': 6.0, 'lower_quartile': 5.0, 'upper_quartile': 7.0, 'n': 2.0}
    """
    seconds = [label["seconds"] for label in labels if label["seconds"] > 0]
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist() if seconds else [math.nan] * 3
    return {"median": median, "lower_quartile": low, "upper_quartile": high, "n": float(len(seconds))}


_NOT_READ = ("chat", "compare_clips", "tamer_pad", "probe")


def quick_answers(labels: Labels, *, words_per_minute: float | int = QUICK_WORDS_PER_MINUTE) -> list[Mapping[str, Any]]:
    """The labels that came sooner than one can read the item's prompt and answers.

    A prompt that the labeler had answered before is not counted again. Labels whose time was not measured are never
    quick, and neither are those of chats and of what is watched and not read.

    Args:
        words_per_minute: The fastest that anyone reads; see `QUICK_WORDS_PER_MINUTE`.
    """
    quick, known = [], set()
    for name, mine in by_labeler(labels).items():
        for label in mine:
            texts = [*label["answers"], *([] if (name, label["prompt"]) in known else [label["prompt"]])]
            known.add((name, label["prompt"]))
            needed = 60 * sum(map(_num_words, texts)) / words_per_minute
            if label["kind"] not in _NOT_READ and 0 < label["seconds"] < needed:
                quick.append(label)
    return quick


def drift(labels: Labels, *, num_blocks: int = 5) -> list[dict[str, Any]]:
    """How each labeler changes as they go on: their labels, in order, in `num_blocks` blocks of equal size.

    Give it labels of one kind, as times of different kinds cannot be compared. Who gave fewer than `num_blocks` labels
    is left out.

    Returns:
        Rows of `labeler`, `labeler_kind`, `block` (from 1), `n`, the median of `seconds`, and the shares of choices of
        what is shown `first`, of what is right (`gold`), and of what the majority of the others chose (`majority`);
        NaN where nothing is known.
    """
    measures: dict[str, Mapping[tuple[str, str], Sequence[float]]] = {
        "first": _by_label([(c, float(_prefers_shown_first(c))) for c in _decided(labels)]),
        "gold": _by_label([(choice, float(choice.value == right)) for choice, right in checked(labels)]),
        "majority": _by_label(_with_majority(labels)),
    }
    rows = []
    for name, mine in by_labeler(labels).items():
        if len(mine) < num_blocks:
            continue
        for block, places in enumerate(np.array_split(np.arange(len(mine)), num_blocks), start=1):
            part = [mine[place] for place in places]
            row = {"labeler": name, "labeler_kind": part[0]["labeler_kind"], "block": block, "n": len(part)}
            row["seconds"] = time_per_item(part)["median"]
            for measure, values in measures.items():
                known = [value for label in part for value in values.get((label["item"], name), ())]
                row[measure] = float(np.mean(known)) if known else math.nan
            rows.append(row)
    return rows


def _by_label(found: Sequence[tuple[Choice, float]]) -> dict[tuple[str, str], list[float]]:
    values: dict[tuple[str, str], list[float]] = {}
    for choice, value in found:
        values.setdefault((choice.label["item"], choice.label["labeler"]), []).append(value)
    return values


def _with_majority(labels: Labels) -> list[tuple[Choice, float]]:
    """Whether each choice is that of the majority of the others; left out where these are split evenly, or are none."""
    table = choices(labels, with_ties=False)
    lead = dict(zip(table.index, 2 * (table == 1).sum(axis=1) - table.notna().sum(axis=1), strict=True))
    others = [(choice, lead[choice.unit] - (1 if choice.value == 1 else -1)) for choice in _decided(labels)]
    return [(choice, float((choice.value == 1) == (ahead > 0))) for choice, ahead in others if ahead != 0]
