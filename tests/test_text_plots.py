"""Figures of the first lessons: each draws the numbers that it is given, on axes that say what they are."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from rlhf_lab.plots import POLICY, REFERENCE
from rlhf_lab.text_plots import (
    plot_edits,
    plot_equals,
    plot_imitators,
    plot_next_tokens,
    plot_pulled,
    plot_token_losses,
)

PULLED = np.array([[5.0, 4.0, 6.0], [6.0, 1.0, 8.0]])
PLOTS: dict[str, tuple[Callable[[], Axes], str, str]] = {
    "next tokens": (
        lambda: plot_next_tokens([" My", "I"], {"T = 1": [0.5, 0.25], "T = 2": [0.4, 0.3]}, title="Claim"),
        "next token",
        "probability [%]",
    ),
    "token losses": (lambda: plot_token_losses([" a", "$b$", "\n"], [1.0, 2.0, 0.5], title="Claim"), "", "[nats]"),
    "equals": (lambda: plot_equals([8.0, 9.0, 12.0], 3.0, title="Claim"), "summary [nats]", "summaries"),
    "pulled": (lambda: plot_pulled(PULLED, 1, title="Claim"), "updates", "summary [nats]"),
    "edits": (
        lambda: plot_edits({"thanks": np.array([[4.0, 0.0], [5.0, 0.0]])}, title="Claim"),
        "loss of the summary [nats]",
        "grade",
    ),
    "imitators": (lambda: plot_imitators({"careless": (3.0, 3.5), "faithful": (7.0, 6.0)}, 4.0, title="Claim"), "", ""),
}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_has_its_claim_and_its_units_and_can_be_drawn(name: str) -> None:
    plot, xlabel, ylabel = PLOTS[name]
    axes = plot()
    assert axes.get_title(loc="left") == "Claim"
    assert xlabel in axes.get_xlabel()
    assert ylabel in axes.get_ylabel()
    assert tuple(axes.figure.get_size_inches()) == (6, 3.5)
    axes.figure.canvas.draw()


def test_bars_are_probabilities_in_percent_a_group_a_token() -> None:
    axes = PLOTS["next tokens"][0]()
    assert [bar.get_height() for bar in axes.patches] == [50.0, 25.0, 40.0, 30.0]  # type: ignore[attr-defined]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]  # type: ignore[attr-defined]
    assert np.allclose(middles, [-0.2, 0.8, 0.2, 1.2])


def test_blanks_and_dollars_of_tokens_are_seen() -> None:
    axes = PLOTS["token losses"][0]()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["\N{OPEN BOX}a", r"\$b\$", "\\n"]


def test_tokens_that_do_not_count_are_grey() -> None:
    axes = plot_token_losses(["a", "b"], [1.0, 2.0], [False, True], title="Claim")
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [REFERENCE.upper(), POLICY]


def test_the_favorite_stands_where_its_loss_is() -> None:
    axes = PLOTS["equals"][0]()
    assert axes.lines[0].get_xdata()[0] == 3.0  # type: ignore[index]
    assert sum(bar.get_height() for bar in axes.patches) == 3  # type: ignore[attr-defined]


def test_the_taught_summary_is_not_among_the_others() -> None:
    axes = PLOTS["pulled"][0]()
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}  # type: ignore[arg-type]
    assert lines["taught"] == [4.0, 1.0]
    assert lines["equally good,\nmean"] == [5.5, 7.0]
    assert len(axes.lines) == 4


def test_large_marks_are_means() -> None:
    axes = PLOTS["edits"][0]()
    mark = next(line for line in axes.lines if line.get_label() == "thanks")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (4.5, 0.0)  # type: ignore[index]


def test_bars_of_grades_begin_at_the_worst_grade() -> None:
    axes = PLOTS["imitators"][0]()
    tops = [bar.get_y() + bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
    assert tops == [3.0, 7.0, 3.5, 6.0]
    assert {bar.get_y() for bar in axes.patches} == {1.0}  # type: ignore[attr-defined]
