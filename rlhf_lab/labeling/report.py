"""What the labels of a store are worth, in plain words, numbers and figures.

report = agreement_report(store)
report.text, report.figures["agreement"], report.statistics["agreement"]
"""

import html
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlhf_lab.labeling import agreement, bias, figures
from rlhf_lab.labeling.agreement import Estimate, Judge
from rlhf_lab.labeling.policy_scores import Labels, policy_scores
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore

_CHANGES = (
    ("gold", "the share of right choices", 100, "%"),
    ("majority", "the share of choices as the majority", 100, "%"),
    ("first", "the share of choices of what is shown first", 100, "%"),
    ("seconds", "the time for an item", 1, "s"),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One question about the labels, answered. Part(title="Do labelers agree?", lines=["..."], statistics={...})."""

    title: str
    lines: Sequence[str]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Nested, with floats at the ends."""
    figure: Figure | None = None


@dataclass(frozen=True, repr=False)
class AgreementReport:
    """What labels are worth: a part for each question. It shows itself in a notebook, and as text elsewhere."""

    parts: Mapping[str, Part]

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures, by their part's name."""
        return {name: part.figure for name, part in self.parts.items() if part.figure is not None}

    @property
    def statistics(self) -> dict[str, Any]:
        """The numbers, by their part's name; NaN where one cannot be known."""
        return {name: dict(part.statistics) for name, part in self.parts.items()}

    @property
    def text(self) -> str:
        """The report for a terminal."""
        lines: list[str] = []
        for part in self.parts.values():
            lines += [part.title, "-" * len(part.title)]
            lines += [textwrap.fill(line, 100, initial_indent="- ", subsequent_indent="  ") for line in part.lines]
            lines.append("")
        return "\n".join(lines)

    __repr__ = text.fget  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        """The report for a notebook: one piece of HTML that needs nothing else, on a light page or a dark one."""
        pieces = []
        for part in self.parts.values():
            lines = "".join(f"<li>{html.escape(line)}</li>" for line in part.lines)
            pieces.append(f"<h3>{html.escape(part.title)}</h3><ul>{lines}</ul>")
            if part.figure is not None:
                pieces.append(figures.as_html(part.figure, part.title))
        return f'<div style="max-width: 60em; color: inherit">{"".join(pieces)}</div>'


def gold_scores(prompt: str, answers: Sequence[str]) -> list[float]:
    """The kit's own judge, as the judge of a report; it reads posts of the kit's world."""
    from rlhf_lab.feedback import gold_judge  # Here, as it needs PyTorch.

    return [float(score) for score in gold_judge()([prompt] * len(answers), list(answers))]


def agreement_report(store: LabelStore | Labels, *, judge: Judge | None = None) -> AgreementReport:
    """How far labelers agree, whether they are right, and what else their labels depend on.

    Args:
        store: The label store, or rows of its `labels()`: all kinds or some, people or simulated labelers.
        judge: Whom to compare the labelers with, besides what is known to be right; see `agreement.Judge`. The kit's
            own is `gold_scores`.

    Raises:
        StoreError: There are no labels yet.
        ValueError: The judge says something that is no judgement.
    """
    labels = store.labels() if isinstance(store, LabelStore) else store
    if not labels:
        raise StoreError("there are no labels yet; label some items, then ask for the report again.")
    people = sorted({label["labeler"] for label in labels if label["labeler_kind"] == "person"})
    judged = {} if judge is None else agreement.agreement_with(labels, judge)
    parts = {
        "counts": _counts(labels, people),
        "agreement": _agreement(labels, people),
        "gold": _right(agreement.agreement_with_gold(labels), people, "what is right", "Are labelers right?"),
        "judge": _right(judged, people, "as the judge does", "Do labelers agree with the judge?"),
        "majority": _majority(labels),
        "bias": _bias(labels, people),
        "time": _time(labels, people),
        "drift": _drift(labels, people),
        "scores": _scores(labels),
    }
    return AgreementReport({name: part for name, part in parts.items() if judged or name != "judge"})


def _name(name: str) -> str:
    """A name as text shows it: in one line, without signs that would steer a terminal."""
    return "".join(a if a.isprintable() else "?" for a in (name if len(name) <= 40 else name[:37] + "..."))


def _percent(estimate: Estimate) -> str:
    if not estimate.is_known:
        return f"not known, as {estimate.reason}"
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f} %)"


def _numbers(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}" if estimate.is_known else f"not known ({estimate.reason})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _each_person(people: Sequence[str], said: Mapping[str, str]) -> list[str]:
    """A line for each person; none where there are so many that only the figure can show them."""
    return [f"{_name(name)}: {said[name]}." for name in people if name in said] if len(people) <= figures.FEW else []


def _kinds(labels: Labels) -> list[str]:
    return [kind for kind, _ in Counter(label["kind"] for label in labels).most_common()]


def _counts(labels: Labels, people: Sequence[str]) -> Part:
    kinds = Counter(label["kind"] for label in labels)
    per_item = Counter(label["item"] for label in labels)
    num_shared, num_labelers = sum(num >= 2 for num in per_item.values()), len({label["labeler"] for label in labels})
    what = ", ".join(f"{num:,} to {kind}" for kind, num in kinds.most_common())
    lines = [
        f"{len(labels):,} label(s) by {num_labelers} labeler(s), {len(people)} of them people: {what}.",
        f"{len(per_item):,} item(s), {num_shared:,} of them labeled by two labelers or more.",
    ]
    counts = {"labels": len(labels), "labelers": num_labelers, "people": len(people), "items": len(per_item)}
    counts |= {"items_with_overlap": num_shared} | kinds
    return Part(title="What there is", lines=lines, statistics={name: float(num) for name, num in counts.items()})


def _agreement(labels: Labels, people: Sequence[str]) -> Part:
    table = agreement.choices(labels)
    same = agreement.pairwise_agreement(table)
    found = {"choices": same, "fleiss_kappa": agreement.fleiss(table), "alpha": agreement.alpha(table)}
    kappas = [one.value for one in agreement.cohens_kappas(table).values() if one.is_known]
    median = float(np.median(kappas)) if kappas else math.nan
    cohens = f"; Cohen's kappa of two labelers, median {median:.2f}" if kappas else ""
    lines = [f"How often two labelers make the same choice: {_percent(same)}."]
    if same.is_known:
        lines[0] += " In Stiennon et al. 2020 it is about 73 %."
        lines.append(
            f"Beyond chance (0 is chance, 1 is always): Krippendorff's alpha {_number(found['alpha'])}; "
            f"Fleiss' kappa {_number(found['fleiss_kappa'])}{cohens}."
        )
    axes = {axis for label in labels if label["kind"] == "rate" for axis in label["value"]["axes"]}
    others = {f"ratings, {axis}": agreement.ratings(labels, axis) for axis in sorted(axes)}
    others |= {"strengths": agreement.strengths(labels), "thumbs": agreement.thumbs(labels)}
    for name, values in others.items():
        if values.size:
            found[name] = agreement.alpha(values, "nominal" if name == "thumbs" else "ordinal")
            lines.append(f"Krippendorff's alpha of {_name(name)}: {_number(found[name])}.")
    each = {name: agreement.pairwise_agreement(table, name) for name in table.columns if same.is_known}
    lines += _each_person(people, {n: f"as another labeler in {_percent(one)}" for n, one in each.items()})
    if not any(one.is_known for one in found.values()):
        lines.append("Some 100 items with two labelers each tell the rate to about 10 points either way.")
    statistics = _numbers(found) | {"median_cohens_kappa": median, "by_labeler": _numbers(each)}
    figure = figures.plot_agreement(table, people) if same.is_known else None
    return Part(title="Do labelers agree?", lines=lines, statistics=statistics, figure=figure)


def _right(estimates: Mapping[str, Estimate], people: Sequence[str], what: str, title: str) -> Part:
    known = {name: one for name, one in estimates.items() if one.is_known}
    if not known:
        reason = next((one.reason for one in estimates.values()), "nobody was asked")
        lines = [f"Not known: {reason}; some 100 by one labeler tell their rate to about 10 points either way."]
        return Part(title=title, lines=lines)
    rates = [100 * one.value for one in known.values()]
    lines = [f"Labelers choose {what} in {min(rates):.0f} to {max(rates):.0f} %, median {np.median(rates):.0f} %."]
    lines += _each_person(people, {name: f"{_percent(one)}, of {one.n:,}" for name, one in known.items()})
    if max(one.n for one in known.values()) < 100:
        lines.append("Some 100 answers by one labeler tell their rate to about 10 points either way.")
    figure = figures.plot_gold(known, people, what=what)
    return Part(title=title, lines=lines, statistics=_numbers(known), figure=figure)


def _majority(labels: Labels) -> Part:
    title = "Is a majority better than one labeler?"
    num = agreement.choices(labels, with_ties=False).notna().sum(axis=1).to_numpy()
    num = num[num >= 2]
    # The largest majority for which half of what was chosen on twice has enough labelers, and one more to check it.
    ks = [k for k in (1, 3, 5, 7, 9) if len(num) and (num > k).mean() >= 0.5]
    if len(ks) < 2:
        return Part(title=title, lines=["Not known: it takes items with four labelers, three and one more to check."])
    curves = {
        name: {k: agreement.majority_of_k(labels, k, against=what, min_labelers=ks[-1] + 1) for k in ks}
        for name, what in (("one more labeler", "labelers"), ("what is right", "gold"))
    }
    curves = {name: curve for name, curve in curves.items() if curve[1].is_known}
    lines = [
        f"Against {name}: one labeler agrees in {_percent(curve[1])}, the majority of {ks[-1]} in "
        f"{_percent(curve[ks[-1]])}; {curve[1].n:,} items."
        for name, curve in curves.items()
    ]
    statistics = {name: _numbers({str(k): one for k, one in curve.items()}) for name, curve in curves.items()}
    return Part(title=title, lines=lines, statistics=statistics, figure=figures.plot_majority(curves))


def _bias(labels: Labels, people: Sequence[str]) -> Part:
    mine = bias.by_labeler(labels) if len(people) <= figures.FEW else {}
    groups = {"all labelers": labels} | {name: mine[name] for name in people if len(mine) > 1}
    position = {name: bias.position_bias(group) for name, group in groups.items()}
    length = {name: bias.length_bias(group) for name, group in groups.items()}
    first, fit = bias.position_bias(labels), bias.length_regression(labels)
    lines = [
        f"How often the answer shown first is chosen: {_percent(first)}.",
        f"How often the longer answer, which may be the better one, is chosen: {_percent(bias.length_bias(labels))}.",
    ]
    if first.is_known:
        lines[0] += f" By chance 50 % (exact binomial test, {_p(first.p_value)}; n = {first.n:,})."
    if first.n < 400:
        lines.append("Some 400 comparisons tell a share to 5 points either way.")
    if (by_words := fit["length"]).is_known:
        odds = f"{math.exp(by_words.value):.2f} ({_p(by_words.p_value)})"
        odds_first = f"{math.exp(fit['position'].value):.2f} ({_p(fit['position'].p_value)})"
        lines.append(
            f"What multiplies the odds of being chosen: ten words more {odds}, being shown first {odds_first}."
        )
    else:
        lines.append(f"What side and length do, each with the other held fixed: not known, as {by_words.reason}.")
    lines += _each_person(people, {n: f"what is shown first {_percent(one)}" for n, one in position.items()})
    lines += _each_person(people, {n: f"what is longer {_percent(one)}" for n, one in length.items()})
    statistics = {"first": _numbers(position), "longer": _numbers(length), "regression": _numbers(fit)}
    is_known = any(one.is_known for one in [*position.values(), *length.values()])
    figure = figures.plot_bias(position, length, people) if is_known else None
    return Part(title="Do the side and the length decide?", lines=lines, statistics=statistics, figure=figure)


def _time(labels: Labels, people: Sequence[str]) -> Part:
    by_kind = {kind: [label for label in labels if label["kind"] == kind] for kind in _kinds(labels)}
    times = {kind: bias.time_per_item(group) for kind, group in by_kind.items()}
    lines = [
        f"To {kind}: {one['median']:.0f} s (middle half: {one['lower_quartile']:.0f} to {one['upper_quartile']:.0f} s)."
        for kind, one in times.items()
        if one["n"]
    ]
    quick = Counter(label["labeler"] for label in bias.quick_answers(labels))
    if lines:
        most = "".join(f"; most by {_name(name)}, {num:,}" for name, num in quick.most_common(1))
        speed = f"{bias.QUICK_WORDS_PER_MINUTE} words a minute"
        lines.append(f"{quick.total():,} label(s) came sooner than one can read the item at {speed}{most}.")
    kind = next((kind for kind, one in times.items() if one["n"]), "")
    each = {name: bias.time_per_item(group) for name, group in bias.by_labeler(by_kind.get(kind, [])).items()}
    lines += _each_person(people, {n: f"{one['median']:.0f} s to {kind}" for n, one in each.items() if one["n"]})
    lines = lines or ["Not known: no label's time was measured."]
    statistics = {"by_kind": times, "by_labeler": each, "quick": {name: float(num) for name, num in quick.items()}}
    figure = figures.plot_seconds(each, people) if kind else None
    return Part(title="How long does an item take?", lines=lines, statistics=statistics, figure=figure)


def _drift(labels: Labels, people: Sequence[str]) -> Part:
    kind = _kinds(labels)[0]
    title, rows = "Do labelers change as they go on?", bias.drift([label for label in labels if label["kind"] == kind])
    if not rows:
        return Part(title=title, lines=["Not known: it takes 5 labels of one kind by one labeler, and 50 to see much."])
    last = max(row["block"] for row in rows)
    lines, statistics = [], {}
    for key, what, unit, sign in _CHANGES:
        ends = [[row[key] for row in rows if row["block"] == at and not math.isnan(row[key])] for at in (1, last)]
        if all(ends):
            statistics[key] = {"start": float(np.mean(ends[0])), "end": float(np.mean(ends[1]))}
            start, end = (unit * value for value in statistics[key].values())
            lines.append(
                f"From the first to the last fifth of labels to {kind}, {what}: {start:.0f} to {end:.0f} {sign}."
            )
    figure = figures.plot_drift(rows, people) if lines else None
    lines = lines or ["Not known: their labels are no choices, and their time was not measured."]
    return Part(title=title, lines=lines, statistics=statistics, figure=figure)


def _scores(labels: Labels) -> Part:
    title = "Whose answers do they prefer?"
    try:
        scores = policy_scores(labels)
    except ValueError as error:
        return Part(title=title, lines=[f"Not known: {error}"])
    rows = scores.rows()
    lines = [
        f"{_name(row['source'])}: {row['elo']:.0f} points ({row['low']:.0f} to {row['high']:.0f}), preferred in "
        f"{100 * row['wins'] / row['n']:.0f} % of {row['n']:,.0f} choices."
        for row in rows
    ]
    best, second = map(_name, scores.sources[:2])
    lines.append(f"By these scores {best} is preferred to {second} in {100 * scores.win_probs[0, 1]:.0f} % of choices.")
    statistics = {row["source"]: {name: value for name, value in row.items() if name != "source"} for row in rows}
    return Part(title=title, lines=lines, statistics=statistics, figure=figures.plot_scores(scores))
