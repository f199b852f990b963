"""The report and its figures: complete, honest about what is missing, safe with any name, and drawn within bounds."""

import datetime
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from rlhf_lab.labeling import agreement, bias, figures
from rlhf_lab.labeling.agreement import Estimate
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.policy_scores import policy_scores
from rlhf_lab.labeling.report import agreement_report, gold_scores
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.store import LabelStore
from tests.capabilities import ROOT
from tests.labeling.hostile import TEXTS

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SOURCES = ("pretrained", "supervised", "ppo")
PARTS = ["counts", "agreement", "gold", "majority", "bias", "time", "drift", "scores"]
NAMES = ["$x_{$", "a $\\frac{$ b", "\u65e5\u672c\u8a9e", "\U0001f600", "all labelers"]
NAMES += [text for text in TEXTS if 0 < len(text) < 10_000][::3]
RATING = {"axes": {"overall": 6, "accuracy": 5}, "flags": []}


def comparisons(num_simulated: int, num_items: int = 30, people: tuple[str, ...] = ("ana",)) -> list[dict[str, Any]]:
    """Everyone compares every item; the later source and the longer answer are liked; each labeler has an own noise."""
    rng, rows = np.random.default_rng(0), []
    names = [f"general-{i:02d}" for i in range(num_simulated)] + list(people)
    for item in range(num_items):
        pair = rng.choice(3, size=2, replace=False)
        words = rng.integers(3, 30, size=2)
        for number, name in enumerate(names):
            felt = 1.5 * (pair[1] - pair[0]) + 0.05 * (words[1] - words[0]) + (1 + number % 3) * rng.logistic() / 2
            row = {"item": f"item {item}", "kind": "compare", "labeler": name, "prompt": "post " * 40, "info": {}}
            row |= {"answers": ["word " * int(num) for num in words], "sources": [SOURCES[i] for i in pair]}
            row |= {"sides": rng.permutation(2).tolist(), "gold": int(pair[1] > pair[0]) if item % 2 else None}
            row |= {"value": {"scale": 8, "step": int(np.clip(round(4.5 + felt), 1, 8))}}
            row |= {"seconds": float(rng.lognormal(2.5, 0.5)), "created_at": START + datetime.timedelta(minutes=item)}
            rows.append(row | {"labeler_kind": "person" if name in people else "simulated"})
    return rows


def drawn(rows: list[dict[str, Any]], people: tuple[str, ...]) -> dict[str, Figure]:
    """Each figure, from the functions that make its numbers."""
    mine = bias.by_labeler(rows)
    ks = (1, 3)
    return {
        "agreement": figures.plot_agreement(agreement.choices(rows), people),
        "gold": figures.plot_gold(agreement.agreement_with_gold(rows), people),
        "bias": figures.plot_bias(
            {name: bias.position_bias(group) for name, group in mine.items() if name in people},
            {name: bias.length_bias(group) for name, group in mine.items() if name in people},
            people,
        ),
        "time": figures.plot_seconds({name: bias.time_per_item(group) for name, group in mine.items()}, people),
        "drift": figures.plot_drift(bias.drift(rows), people),
        "majority": figures.plot_majority({"one more": {k: agreement.majority_of_k(rows, k) for k in ks}}),
        "scores": figures.plot_scores(policy_scores(rows)),
    }


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels.sqlite", overlap=2)


def answer_all(store: LabelStore, kind: str, value: Mapping[str, Any], *names: str) -> None:
    store.add_labelers(names)
    for name in names:
        while found := store.ask(name, kind, num=1):
            store.record(found[0], dict(value), seconds=20.0)


# The report


def test_a_store_without_labels_has_no_report(store: LabelStore) -> None:
    with pytest.raises(StoreError, match="no labels yet"):
        agreement_report(store)


def test_a_store_with_every_kind_of_label(store: LabelStore) -> None:
    pairs = [Item(prompt=f"post {i}", answers=("one", "two words"), sources=("a", "b"), gold=0) for i in range(12)]
    triples = [
        Item(prompt=f"post {i}", answers=("x", "y", "z"), sources=("a", "b", "c"), kind="rank") for i in range(3)
    ]
    store.add_items(pairs)
    store.add_items(triples, "rank")
    store.add_items([{"prompt": f"post {i}", "completion": "text"} for i in range(3)], "rate")
    store.add_items([{"prompt": f"post {i}", "completion": "text"} for i in range(3)], "thumbs")
    store.add_items([{"prompt": "Say something."}], "chat")
    answer_all(store, "compare", {"scale": 8, "step": 2}, "ana", "ben")
    answer_all(store, "rank", {"ranks": [1, 1, 2]}, "ana", "ben")
    answer_all(store, "rate", RATING, "ana", "ben")
    answer_all(store, "thumbs", {"thumb": "up", "ideal": ""}, "ana", "ben")
    answer_all(store, "chat", {"rating": 4}, "ana")
    report = agreement_report(store)
    assert list(report.statistics) == PARTS
    counts = report.statistics["counts"]
    assert (counts["labels"], counts["labelers"], counts["people"], counts["items"]) == (43, 2, 2, 22)
    assert {kind: counts[kind] for kind in ("compare", "rank", "rate", "thumbs", "chat")} == {
        "compare": 24,
        "rank": 6,
        "rate": 6,
        "thumbs": 6,
        "chat": 1,
    }
    assert report.statistics["agreement"]["choices"]["value"] == 1
    assert report.statistics["gold"]["ana"]["value"] == 1
    assert "ana: 100 % (76 to 100 %), of 12." in report.text
    assert "'c' lost every choice" in report.text
    assert "everyone always said the same" in report.text
    assert set(report.figures) == {"agreement", "gold", "bias", "time", "drift"}


def test_the_numbers_are_those_of_the_functions() -> None:
    rows = comparisons(5)
    statistics = agreement_report(rows).statistics
    table = agreement.choices(rows)
    same = agreement.pairwise_agreement(table)
    assert statistics["agreement"]["choices"] == pytest.approx(same.to_dict(), nan_ok=True)
    assert statistics["agreement"]["alpha"]["value"] == agreement.alpha(table).value
    assert statistics["agreement"]["strengths"]["value"] == agreement.alpha(agreement.strengths(rows), "ordinal").value
    assert statistics["majority"]["one more labeler"]["5"]["value"] == agreement.majority_of_k(rows, 5).value
    assert statistics["bias"]["first"]["all labelers"]["p_value"] == bias.position_bias(rows).p_value
    assert statistics["bias"]["regression"]["length"]["value"] == bias.length_regression(rows)["length"].value
    assert statistics["time"]["by_kind"]["compare"] == bias.time_per_item(rows)
    assert statistics["scores"]["ppo"]["elo"] == policy_scores(rows).rows()[0]["elo"]
    text = " ".join(agreement_report(rows).text.split())
    assert f"the same choice: {100 * same.value:.0f} % ({100 * same.low:.0f} to {100 * same.high:.0f} %)" in text


def test_statistics_are_nested_numbers_that_json_takes() -> None:
    def leaves(node: Any) -> list[Any]:
        return [leaf for child in node.values() for leaf in leaves(child)] if isinstance(node, dict) else [node]

    statistics = agreement_report(comparisons(4), judge=lambda prompt, answers: 0).statistics
    assert all(type(leaf) is float for leaf in leaves(statistics))
    assert json.loads(json.dumps(statistics)).keys() == statistics.keys()


def test_a_judge_adds_a_part_and_is_asked() -> None:
    rows = comparisons(2)
    assert "judge" not in agreement_report(rows).statistics
    report = agreement_report(rows, judge=lambda prompt, answers: [float(len(text)) for text in answers])
    longer = bias.length_bias([row for row in rows if row["labeler"] == "ana"])
    assert report.statistics["judge"]["ana"]["value"] == pytest.approx(longer.value), "the judge likes what is longer"
    silent = agreement_report(rows, judge=lambda prompt, answers: None)
    assert "no choice on which the judge has an opinion" in " ".join(silent.text.split())


def test_the_kits_own_judge_is_a_judge() -> None:
    post = "SUBREDDIT: r/pets\nTITLE: my cat\nPOST: my cat left.\nTL;DR:"
    scores = gold_scores(post, [" my cat left.", " banana banana banana"])
    assert len(scores) == 2
    assert scores[0] >= scores[1]
    rows = [row | {"prompt": post} for row in comparisons(2, num_items=3)]
    assert "Do labelers agree with the judge?" in agreement_report(rows, judge=gold_scores).text


@pytest.mark.parametrize("num", [1, 2, 3, 6])
def test_with_few_labels_it_says_what_is_missing(num: int) -> None:
    rows = comparisons(0, num_items=num)
    report = agreement_report(rows)
    text = " ".join(report.text.split())
    assert "there is one labeler, and it takes two on the same items" in text
    assert "Some 100 items with two labelers each" in text
    assert "four labelers" in text
    assert "Some 400 comparisons" in text
    assert "nan" not in text
    assert math.isnan(report.statistics["agreement"]["choices"]["value"])
    assert "agreement" not in report.figures


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("compare", {"choice": "tie"}),
        ("compare", {"choice": "cannot_compare"}),
        ("rank", {"ranks": [1, 1]}),
        ("rate", RATING),
        ("thumbs", {"thumb": "down", "ideal": "better"}),
        ("edit", {"text": "x", "spans": []}),
        ("chat", {"rating": 1}),
    ],
)
@pytest.mark.parametrize("num_simulated", [0, 3])
def test_any_kind_alone_has_a_report(kind: str, value: dict[str, Any], num_simulated: int) -> None:
    rows = [row | {"kind": kind, "value": value} for row in comparisons(num_simulated, num_items=6)]
    if kind == "chat":
        rows = [row | {"answers": [], "sources": [], "sides": [], "gold": None} for row in rows]
    report = agreement_report(rows)
    assert "nan" not in report.text.replace("nan %", "")
    assert report._repr_html_().count("<h3>") == len(PARTS)


def test_labels_without_times_say_so() -> None:
    report = agreement_report([row | {"seconds": 0.0} for row in comparisons(2)])
    assert "no label's time was measured" in report.text
    assert "time" not in report.figures
    assert len(report.figures["drift"].axes) == 2


# Names


@pytest.mark.parametrize("start", range(0, len(NAMES), figures.FEW))
def test_any_name_is_shown_and_never_run(start: int) -> None:
    names = tuple(NAMES[start : start + figures.FEW])
    rows = comparisons(1, num_items=8, people=names)
    rows = [row | {"sources": [f"{source} {names[0]}" for source in row["sources"]]} for row in rows]
    report = agreement_report(rows)
    page = report._repr_html_()
    tags = {piece.split(">")[0].split(" ")[0] for piece in page.split("<")[1:]}
    assert tags == {"div", "/div", "h3", "/h3", "ul", "/ul", "li", "/li", "img"}
    assert page.count("<img ") == len(report.figures) >= 5
    assert all(letter.isprintable() or letter == "\n" for letter in report.text)
    assert set(names) <= report.statistics["gold"].keys()


def test_a_page_needs_nothing_else_and_suits_dark_themes() -> None:
    report = agreement_report(comparisons(3))
    page = report._repr_html_()
    assert page.count("src=") == page.count('src="data:image/png;base64,') == len(report.figures)
    assert "http" not in page
    assert "color: inherit" in page
    assert page.count("alt=") == len(report.figures)
    assert repr(report) == report.text


# Figures


@pytest.mark.parametrize(
    ("num_simulated", "people"),
    [
        (2, ("ana",)),
        (50, ("ana",)),
        (5, tuple(f"student {i}" for i in range(40))),
        (0, ("a name that goes on and on", "b")),
    ],
)
def test_nothing_in_a_figure_is_cut_off(num_simulated: int, people: tuple[str, ...]) -> None:
    for name, figure in drawn(comparisons(num_simulated, people=people), people).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            box = text.get_window_extent(canvas.get_renderer())
            if text.get_text().strip() and text.get_visible() and box.width > 1:
                is_inside = box.x0 >= -1 and box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1
                assert is_inside or _is_hidden_tick(text, figure), f"{name}: {text.get_text()!r} at {box}"


def _is_hidden_tick(text: Text, figure: Figure) -> bool:
    """matplotlib keeps labels of ticks beyond an axis, and does not draw them."""
    ticks = [tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()]
    return any(text in (tick.label1, tick.label2) for tick in ticks)


def test_people_are_named_and_stand_out_among_many() -> None:
    made = drawn(comparisons(50), ("ana",))
    for name in ("gold", "time", "agreement"):
        axes = made[name].axes[0]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["ana"], name
        assert axes.get_yticklabels()[0].get_color() == figures.PERSON, name
    few = drawn(comparisons(2), ("ana",))
    assert {tick.get_text() for tick in few["gold"].axes[0].get_yticklabels()} == {"ana", "general-00", "general-01"}
    legend = made["drift"].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["mean of 50 simulated", "person"]
    assert to_hex(legend.get_lines()[1].get_color()).upper() == figures.PERSON


def test_names_of_a_class_do_not_overlap() -> None:
    people = tuple(f"student {i}" for i in range(40))
    made = drawn(comparisons(5, people=people), people)
    for name in ("gold", "time", "agreement"):
        figure = made[name]
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        labels = [tick for tick in figure.axes[0].get_yticklabels() if tick.get_text()]
        assert len(labels) == 40
        boxes = sorted((tick.get_window_extent(canvas.get_renderer()) for tick in labels), key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(boxes)), name


def test_the_matrix_holds_the_agreement_of_each_two() -> None:
    rows = comparisons(3)
    table = agreement.choices(rows)
    matrix = figures.agreement_matrix(table)
    for one in table.columns:
        for other in table.columns:
            expected = (table[one] == table[other]).mean() if one != other else math.nan
            assert matrix.loc[one, other] == pytest.approx(expected, nan_ok=True)
    apart = agreement.choices([row for row in rows if (row["item"] < "item 2") == (row["labeler"] == "ana")])
    assert figures.agreement_matrix(apart)["ana"].isna().all()


def test_figures_show_the_numbers_that_they_are_given() -> None:
    gold = {"ana": Estimate(0.8, 0.7, 0.9, 50), "ben": Estimate(0.6, 0.5, 0.7, 50), "cy": Estimate(reason="none")}
    figure = figures.plot_gold(gold, ("ana",))
    assert figure.get_suptitle() == "Labelers choose what is right 60 to 80 % of the time"
    lines = [line.get_xdata() for line in figure.axes[0].get_lines() if line.get_marker() in ("o", "D")]
    assert [np.asarray(line).item() for line in lines] == pytest.approx([60, 80])
    curve = {1: Estimate(0.7, 0.6, 0.8, 9), 3: Estimate(0.75, 0.6, 0.9, 9), 5: Estimate(reason="none")}
    drawn_line = figures.plot_majority({"one more labeler": curve}).axes[0].get_lines()[0]
    assert np.asarray(drawn_line.get_xydata()).tolist() == [[1, 70], [3, 75]]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.plot_agreement(agreement.choices([])),
        lambda: figures.plot_gold({"ana": Estimate(reason="none")}),
        lambda: figures.plot_seconds({"ana": bias.time_per_item([])}),
        lambda: figures.plot_drift([]),
        lambda: figures.plot_majority({"one more": {1: Estimate()}}),
    ],
)
def test_there_must_be_something_to_draw(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match="there is nothing to draw"):
        draw()


def test_a_favorite_is_named_only_if_it_is_clear() -> None:
    rows = comparisons(20)
    assert figures.plot_scores(policy_scores(rows)).get_suptitle() == "Labelers prefer ppo"
    undecided = [row | {"value": {"choice": "tie"}} for row in rows]
    assert figures.plot_scores(policy_scores(undecided)).get_suptitle().startswith("No source is clearly")


def test_statistics_of_labels_do_not_need_torch() -> None:
    modules = ", ".join(
        f"rlhf_lab.labeling.{name}" for name in ("agreement", "bias", "policy_scores", "figures", "report")
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
