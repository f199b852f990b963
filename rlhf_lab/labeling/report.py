"""What the labels of a store are worth, in plain words, numbers and figures.

report = agreement_report(store)
report                      # in a notebook
print(report.text)          # in a terminal
report.figures["agreement"], report.statistics["agreement"]
"""

import base64
import html
import io
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

_MAX_MAJORITY = 9


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
                pieces.append(_image(part.figure, part.title))
        return f'<div style="max-width: 60em; color: inherit">{"".join(pieces)}</div>'


def _image(figure: Figure, title: str) -> str:
    """The figure as an image within the page; its ground is white, so that it can be read on a dark page too."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width: {96 * figure.get_figwidth():.0f}px; max-width: 100%; height: auto; border-radius: 4px"
    return f'<img alt="{html.escape(title)}" style="{style}" src="data:image/png;base64,{data}">'


def gold_scores(prompt: str, answers: Sequence[str]) -> list[float]:
    """The kit's own judge, as the judge of a report; it reads posts of the kit's world.

    agreement_report(store, judge=gold_scores)
    """
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
    parts = {
        "counts": _counts(labels, people),
        "agreement": _agreement(labels, people),
        "gold": _right(agreement.agreement_with_gold(labels), people, "what is right", "Are labelers right?"),
        "judge": None,
        "majority": _majority(labels),
        "bias": _bias(labels, people),
        "time": _time(labels, people),
        "drift": _drift(labels, people),
        "scores": _scores(labels),
    }
    if judge is not None:
        what = "what the judge chooses"
        parts["judge"] = _right(
            agreement.agreement_with(labels, judge), people, what, "Do labelers agree with the judge?"
        )
    return AgreementReport({name: part for name, part in parts.items() if part is not None})


def _name(name: str) -> str:
    """A name as text shows it: in one line, without signs that would steer a terminal."""
    return textwrap.shorten("".join(a if a.isprintable() else "?" for a in name), 40, placeholder="...") or "?"


def _percent(estimate: Estimate) -> str:
    if not estimate.is_known:
        return f"not known: {estimate.reason}"
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f} %)"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}" if estimate.is_known else f"not known ({estimate.reason})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _each_person(people: Sequence[str], said: Mapping[str, str]) -> list[str]:
    """A line for each person; none where there are so many that only the figure can show them."""
    return [f"{_name(name)}: {said[name]}." for name in people if name in said] if len(people) <= figures.FEW else []


def _counts(labels: Labels, people: Sequence[str]) -> Part:
    kinds = Counter(label["kind"] for label in labels)
    names = {label["labeler"] for label in labels}
    per_item = Counter(label["item"] for label in labels)
    num_shared = sum(num >= 2 for num in per_item.values())
    what = ", ".join(f"{num:,} to {kind}" for kind, num in kinds.most_common())
    return Part(
        title="What there is",
        lines=[
            f"{len(labels):,} label(s) by {len(names)} labeler(s), {len(people)} of them people: {what}.",
            f"{len(per_item):,} item(s), {num_shared:,} of them labeled by two labelers or more.",
        ],
        statistics={
            "labels": float(len(labels)),
            "labelers": float(len(names)),
            "people": float(len(people)),
            "items": float(len(per_item)),
            "items_with_overlap": float(num_shared),
            "kinds": {kind: float(num) for kind, num in kinds.items()},
        },
    )


def _agreement(labels: Labels, people: Sequence[str]) -> Part:
    table = agreement.choices(labels)
    same, kappas = agreement.pairwise_agreement(table), agreement.cohens_kappas(table)
    values = [one.value for one in kappas.values() if one.is_known]
    found = {"choices": same, "fleiss_kappa": agreement.fleiss(table), "alpha": agreement.alpha(table)}
    lines = []
    if table.size:
        lines.append(
            f"Two labelers make the same choice in {_percent(same)}; in Stiennon et al. 2020 it is about 73 %."
        )
    if same.is_known:
        median = f"{np.median(values):.2f}" if values else "not known"
        lines.append(
            f"Beyond chance (0 is chance, 1 is always): Krippendorff's alpha {_number(found['alpha'])}; Fleiss' kappa "
            f"{_number(found['fleiss_kappa'])}; Cohen's kappa of two labelers, median {median}."
        )
    others = {f"alpha_of_{axis}": agreement.ratings(labels, axis) for axis in _axes(labels)}
    others |= {"alpha_of_strengths": agreement.strengths(labels), "alpha_of_thumbs": agreement.thumbs(labels)}
    for name, ordered in others.items():
        if ordered.size:
            found[name] = agreement.alpha(ordered, "nominal" if name == "alpha_of_thumbs" else "ordinal")
            what = name.removeprefix("alpha_of_").replace("_", " ")
            lines.append(f"Krippendorff's alpha of {_name(what)}: {_number(found[name])}.")
    said = {name: agreement.pairwise_agreement(table, name) for name in table.columns if same.is_known}
    lines += _each_person(people, {n: f"as another labeler in {_percent(one)}" for n, one in said.items()})
    if not any(one.is_known for one in found.values()):
        lines.append("Some 100 items with two labelers each tell the rate to about 10 points either way.")
    statistics: dict[str, Any] = {name: one.to_dict() for name, one in found.items()}
    statistics["median_cohens_kappa"] = float(np.median(values)) if values else math.nan
    statistics["by_labeler"] = {name: one.to_dict() for name, one in said.items()}
    figure = figures.plot_agreement(table, people) if same.is_known else None
    return Part(title="Do labelers agree?", lines=lines, statistics=statistics, figure=figure)


def _axes(labels: Labels) -> list[str]:
    return list(dict.fromkeys(axis for label in labels if label["kind"] == "rate" for axis in label["value"]["axes"]))


def _right(estimates: Mapping[str, Estimate], people: Sequence[str], what: str, title: str) -> Part:
    known = {name: one for name, one in estimates.items() if one.is_known}
    if not known:
        reason = next(iter(estimates.values())).reason
        lines = [f"Not known: {reason}; some 100 for each labeler tell a rate to about 10 points either way."]
        return Part(title=title, lines=lines)
    rates = [100 * one.value for one in known.values()]
    lines = [f"Labelers choose {what} in {min(rates):.0f} to {max(rates):.0f} %, median {np.median(rates):.0f} %."]
    lines += _each_person(people, {name: f"{_percent(one)}, of {one.n:,}" for name, one in known.items()})
    statistics = {name: one.to_dict() for name, one in known.items()}
    return Part(title=title, lines=lines, statistics=statistics, figure=figures.plot_gold(known, people, what=what))


def _majority(labels: Labels) -> Part:
    title = "Is a majority better than one labeler?"
    num = agreement.choices(labels, with_ties=False).notna().sum(axis=1).to_numpy()
    num = num[num >= 2]
    # The largest majority for which half of what was chosen on twice has enough labelers, and one more to check it.
    ks = [k for k in range(1, _MAX_MAJORITY + 1, 2) if len(num) and (num > k).mean() >= 0.5]
    if len(ks) < 2:
        return Part(title=title, lines=["Not known: it takes items with four labelers, three and one more to check."])
    least = {"min_labelers": ks[-1] + 1}
    curves = {
        "one more labeler": {k: agreement.majority_of_k(labels, k, **least) for k in ks},
        "what is right": {k: agreement.majority_of_k(labels, k, against="gold", **least) for k in ks},
    }
    curves = {name: curve for name, curve in curves.items() if curve[1].is_known}
    lines = [
        f"Against {name}: one labeler agrees in {_percent(curve[1])}, the majority of {ks[-1]} in "
        f"{_percent(curve[ks[-1]])}; {curve[1].n:,} items."
        for name, curve in curves.items()
    ]
    statistics = {name: {str(k): one.to_dict() for k, one in curve.items()} for name, curve in curves.items()}
    return Part(title=title, lines=lines, statistics=statistics, figure=figures.plot_majority(curves))


def _bias(labels: Labels, people: Sequence[str]) -> Part:
    groups = {"all labelers": labels}
    if len(people) <= figures.FEW:
        groups |= {name: mine for name, mine in bias.by_labeler(labels).items() if name in people}
    position = {name: bias.position_bias(group) for name, group in groups.items()}
    length = {name: bias.length_bias(group) for name, group in groups.items()}
    first, longer, fit = position["all labelers"], length["all labelers"], bias.length_regression(labels)
    lines = [f"The answer shown first is chosen in {_percent(first)}, by chance in 50 %"]
    lines[0] += f" (exact binomial test, {_p(first.p_value)}; {first.n:,} comparisons)." if first.is_known else "."
    lines.append(f"The longer answer is chosen in {_percent(longer)}; it may also be the better one.")
    if fit["length"].is_known:
        odds, odds_first = math.exp(fit["length"].value), math.exp(fit["position"].value)
        lines.append(
            f"Ten words more multiply the odds of being chosen by {odds:.2f} ({_p(fit['length'].p_value)}), being shown "
            f"first by {odds_first:.2f} ({_p(fit['position'].p_value)}), each with the other held fixed."
        )
    else:
        lines.append(f"What length and side do apart from each other is not known: {fit['length'].reason}.")
    both = {n: f"what is shown first {_percent(one)}, the longer {_percent(length[n])}" for n, one in position.items()}
    lines += _each_person(people, both)
    is_known = any(one.is_known for one in [*position.values(), *length.values()])
    return Part(
        title="Do the side and the length decide?",
        lines=lines,
        statistics={
            "first": {name: one.to_dict() for name, one in position.items()},
            "longer": {name: one.to_dict() for name, one in length.items()},
            "regression": {name: one.to_dict() for name, one in fit.items()},
        },
        figure=figures.plot_bias(position, length, people) if is_known else None,
    )


def _time(labels: Labels, people: Sequence[str]) -> Part:
    by_kind = {kind: [label for label in labels if label["kind"] == kind] for kind in _kinds(labels)}
    times = {kind: bias.time_per_item(group) for kind, group in by_kind.items()}
    lines = [
        f"An item to {kind} takes {time['median']:.0f} s, for the middle half {time['lower_quartile']:.0f} to "
        f"{time['upper_quartile']:.0f} s."
        for kind, time in times.items()
        if time["n"]
    ]
    quick = Counter(label["labeler"] for label in bias.quick_answers(labels))
    if lines:
        most = "".join(f"; most by {_name(name)}, {num:,}" for name, num in quick.most_common(1))
        speed = f"{bias.QUICK_WORDS_PER_MINUTE} words a minute"
        lines.append(f"{quick.total():,} label(s) came sooner than one can read the item at {speed}{most}.")
    kind = next((kind for kind, time in times.items() if time["n"]), "")
    each = {name: bias.time_per_item(group) for name, group in bias.by_labeler(by_kind.get(kind, [])).items()}
    lines += _each_person(people, {n: f"{one['median']:.0f} s to {kind}" for n, one in each.items() if one["n"]})
    return Part(
        title="How long does an item take?",
        lines=lines or ["Not known: no label's time was measured."],
        statistics={"by_kind": times, "by_labeler": each, "quick": {name: float(num) for name, num in quick.items()}},
        figure=figures.plot_seconds(each, people) if kind else None,
    )


def _kinds(labels: Labels) -> list[str]:
    return [kind for kind, _ in Counter(label["kind"] for label in labels).most_common()]


def _drift(labels: Labels, people: Sequence[str]) -> Part:
    kind = _kinds(labels)[0]
    title, rows = "Do labelers change as they go on?", bias.drift([label for label in labels if label["kind"] == kind])
    if not rows:
        return Part(title=title, lines=["Not known: it takes 5 labels of one kind by one labeler, and 50 to see much."])
    last = max(row["block"] for row in rows)
    lines, statistics = [], {}
    for key, what, unit, sign in (
        ("gold", "the share of right choices", 100, "%"),
        ("majority", "the share of choices as the majority", 100, "%"),
        ("first", "the share of choices of what is shown first", 100, "%"),
        ("seconds", "the time for an item", 1, "s"),
    ):
        ends = [[row[key] for row in rows if row["block"] == at and not math.isnan(row[key])] for at in (1, last)]
        if all(ends):
            statistics[key] = {"start": float(np.mean(ends[0])), "end": float(np.mean(ends[1]))}
            start, end = (unit * value for value in statistics[key].values())
            lines.append(
                f"From the first to the last fifth of their labels to {kind}, {what}: {start:.0f} to {end:.0f} {sign}."
            )
    figure = figures.plot_drift(rows, people) if lines else None
    return Part(
        title=title, lines=lines or ["Not known: their labels are no choices."], statistics=statistics, figure=figure
    )


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
    best, second = scores.sources[:2]
    chance = 100 * scores.win_probs[0, 1]
    lines.append(f"By these scores {_name(best)} is preferred to {_name(second)} in {chance:.0f} % of choices.")
    statistics = {row["source"]: {name: value for name, value in row.items() if name != "source"} for row in rows}
    return Part(title=title, lines=lines, statistics=statistics, figure=figures.plot_scores(scores))
