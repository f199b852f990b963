"""Figures of the lessons on labels and reward models: each draws the numbers that it is given, with their intervals."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from rlhf_lab.evaluation import rate
from rlhf_lab.plots import POLICY, PROXY, REFERENCE, plot_reward_model_accuracy
from rlhf_lab.preference_plots import (
    PEOPLE,
    draw_own_accuracy,
    plot_crowds,
    plot_on_the_way,
    plot_rates,
    plot_scales,
    plot_tastes,
)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_rates_in_groups_with_intervals() -> None:
    axes = plot_rates(
        {"reward model": {"all": [1, 0, 1, 1], "few": [0, 1]}, "another person": {"all": [1, 1], "few": [1, 1]}},
        title="Claim",
        ylabel="agrees",
    )
    bars = [patch for container in axes.containers if hasattr(container, "patches") for patch in container.patches]  # type: ignore[attr-defined]
    assert [bar.get_height() for bar in bars] == pytest.approx([75, 50, 100, 100])
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [PROXY, PROXY, PEOPLE, PEOPLE]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    assert [round(place) for place in middles] == [0, 1, 0, 1]
    assert middles[0] < middles[2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all", "few"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["reward model", "another person"]  # type: ignore[union-attr]
    assert axes.get_title(loc="left") == "Claim"
    assert axes.get_ylabel() == "agrees [%]"
    single = plot_rates({"people": {"all": [1, 0]}}, title="Claim", ylabel="chose", chance=None)
    assert single.get_legend() is None
    low, high = (100 * value for value in (rate([1.0, 0.0]).low, rate([1.0, 0.0]).high))
    drawn = next(line for line in single.collections if len(line.get_paths())).get_paths()[0].vertices
    assert np.asarray(drawn)[:, 1] == pytest.approx([low, high])


def test_scales_show_shares_and_means_and_skip_what_was_not_rated() -> None:
    axes = plot_scales({"ana": [2.0, 2.0, 3.0, np.nan], "ben": np.array([7.0])}, title="Claim")
    ana, ben = axes.collections[:2]
    assert np.asarray(ana.get_offsets()).tolist() == [[2, 0], [3, 0]]
    assert np.asarray(ben.get_offsets()).tolist() == [[7, 1]]
    sizes = ana.get_sizes()  # type: ignore[attr-defined]
    assert sizes[0] == pytest.approx(2 * sizes[1])
    means = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata())]  # type: ignore[arg-type]
    assert means == pytest.approx([7 / 3, 7])


def test_crowds_draw_what_was_measured_as_points() -> None:
    axes = plot_crowds((1, 3), {"measured": [0.73, 0.77], "alike": [0.73, 0.8]}, title="Claim")
    measured, alike = axes.lines
    assert np.asarray(measured.get_ydata()).tolist() == pytest.approx([73, 77])
    assert (measured.get_linestyle(), measured.get_marker()) == ("None", "o")
    assert np.asarray(alike.get_ydata()).tolist() == pytest.approx([73, 80])
    assert alike.get_color() == REFERENCE


def test_own_accuracy_lies_over_the_curves() -> None:
    rows = [{"size": "small", "num_pairs": n, "seed": 0, "accuracy": 0.5} for n in (100, 1000)]
    axes = plot_reward_model_accuracy(rows, labeler_agreement=0.72, title="Claim")
    draw_own_accuracy(axes, 192, [1, 1, 0.5, 0])
    draw_own_accuracy(axes, 192, [1, 0], label="fair", hollow=True)
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    assert [(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in marks] == [(192, 62.5), (192, 50)]  # type: ignore[index]
    assert [m.get_markerfacecolor() for m in marks] == [POLICY, "white"]
    assert {"yours", "fair", "small model"} <= {text.get_text() for text in axes.get_legend().get_texts()}  # type: ignore[union-attr]


def test_a_ring_marks_where_the_score_is_read() -> None:
    axes = plot_on_the_way({"one": ([5.0, 2.0, 99.0], 2)}, title="Claim")
    line, ring, padding = axes.lines[:3]
    assert np.asarray(line.get_ydata()).tolist() == [5, 2]
    assert (np.asarray(ring.get_xdata()).tolist(), np.asarray(ring.get_ydata()).tolist()) == ([2], [2])
    assert np.asarray(padding.get_ydata()).tolist() == [99]


def test_tastes_are_drawn_with_the_means_of_fifths() -> None:
    words = np.arange(10.0)
    axes = plot_tastes(words, {"brief": -words, "thorough": words}, title="Claim")
    means = [line for line in axes.lines if line.get_label() in ("brief", "thorough")]
    assert np.asarray(means[0].get_ydata()).tolist() == [-0.5, -2.5, -4.5, -6.5, -8.5]
    assert np.asarray(means[1].get_xdata()).tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
