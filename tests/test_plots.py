"""Figures: each draws the numbers that it is given, on axes that say what they are."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from rlhf_lab.equations.overoptimization import GaoFit
from rlhf_lab.plots import (
    GOLD,
    PROXY,
    REFERENCE,
    new_axes,
    plot_calibration,
    plot_overoptimization,
    plot_reward_model_accuracy,
    plot_training,
    plot_win_rates,
    plot_win_rates_by_size,
    save,
    smooth,
)

RATES = {
    "supervised": {"win_rate": {"mean": 0.4, "low": 0.35, "high": 0.45}},
    "human_feedback": {"win_rate": {"mean": 0.62, "low": 0.55, "high": 0.7}},
}
CURVES = [
    {"method": method, "seed": seed, "kl": kl, "proxy": kl + seed, "gold": kl * (2 - kl)}
    for method in ("ppo", "best_of_n")
    for seed in (0, 1)
    for kl in (0.0, 1.0, 4.0)
]
HISTORY: list[dict[str, float]] = [{"step": step, "loss": 10.0 - step} for step in range(10)]
BINS = [{"predicted": 0.55, "observed": 0.5, "n": 10}, {"predicted": 0.9, "observed": 0.8, "n": 10}]
ACCURACIES = [
    {"size": size, "num_pairs": count, "seed": seed, "accuracy": 0.6 + 0.02 * seed + (0.05 if count == 1000 else 0.0)}
    for size in ("small", "medium")
    for count in (1000, 100)
    for seed in (0, 1, 2)
]
BY_SIZE = [
    {"size": size, "seed": seed, "policy": policy, "mean": mean + 0.1 * seed}
    for policy, mean in (("supervised", 0.3), ("human_feedback", 0.5))
    for size in ("small", "medium")
    for seed in (0, 1, 2)
]

PLOTS: dict[str, tuple[Callable[[], Axes], str, str, str]] = {
    "win rates": (lambda: plot_win_rates(RATES, title="Claim"), "Claim", "", "win rate against the reference [%]"),
    "win rates by size": (
        lambda: plot_win_rates_by_size(BY_SIZE, title="Claim"),
        "Claim",
        "model",
        "win rate against the reference [%]",
    ),
    "over-optimization": (
        lambda: plot_overoptimization(CURVES, title="Claim"),
        "Claim",
        r"distance from the start, $\sqrt{KL}$ [$\sqrt{nat}$]",
        "score above the start [std at the start]",
    ),
    "training": (
        lambda: plot_training(HISTORY, {"loss": ("loss", PROXY)}, title="Claim", ylabel="loss [nats]"),
        "Claim",
        "step",
        "loss [nats]",
    ),
    "calibration": (
        lambda: plot_calibration(BINS, title="Claim"),
        "Claim",
        "probability that the reward model gives [%]",
        "labelers who agree [%]",
    ),
    "reward model accuracy": (
        lambda: plot_reward_model_accuracy(ACCURACIES, labeler_agreement=0.73, title="Claim"),
        "Claim",
        "comparisons",
        "accuracy on held-out comparisons [%]",
    ),
}
"""How to draw it, its title, and the labels of its axes; bars have names instead of a label."""


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def title_of(axes: Axes) -> str:
    return "".join(axes.get_title(loc) for loc in ("left", "center", "right"))


def lines_by_label(axes: Axes) -> Mapping[str, tuple[list[float], list[float]]]:
    """Label to x and y."""
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_has_its_claim_its_labels_and_its_size(name: str) -> None:
    draw, title, xlabel, ylabel = PLOTS[name]
    axes = draw()
    assert isinstance(axes.figure, Figure)
    assert title_of(axes) == title
    assert (axes.get_xlabel(), axes.get_ylabel()) == (xlabel, ylabel)
    assert tuple(axes.figure.get_size_inches()) == (6, 3.5)


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_is_saved_and_closed(name: str, tmp_path: Path) -> None:
    axes = PLOTS[name][0]()
    save(axes, tmp_path / "figure.png")
    assert plt.imread(tmp_path / "figure.png").shape[:2] == (560, 960)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_leaves_the_style_alone(name: str) -> None:
    before = dict(plt.rcParams)
    PLOTS[name][0]()
    assert dict(plt.rcParams) == before


def test_new_axes_are_empty_but_labeled() -> None:
    axes = new_axes("Claim", "x [nats]", "y [%]")
    assert (title_of(axes), axes.get_xlabel(), axes.get_ylabel()) == ("Claim", "x [nats]", "y [%]")
    assert not axes.get_lines()


def test_bars_are_win_rates_in_percent_with_their_intervals() -> None:
    axes = plot_win_rates(RATES)
    bars = [bar for one in axes.containers if isinstance(one, BarContainer) for bar in one.patches]
    assert [bar.get_height() for bar in bars] == pytest.approx([40, 62])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["supervised", "human feedback"]
    assert {"40 %", "62 %"} <= {text.get_text() for text in axes.texts}
    segments = [part.get_segments()[0] for one in axes.containers for part in getattr(one, "lines", [[], [], []])[2]]
    assert [segment[:, 1].tolist() for segment in segments] == [
        pytest.approx([35, 45]),
        pytest.approx([55, 70]),
    ]
    assert axes.get_ylim() == (0, 108)


def test_win_rates_by_size_are_means_over_seeds_within_their_bands() -> None:
    axes = plot_win_rates_by_size(BY_SIZE, title="t")
    lines = lines_by_label(axes)
    assert lines["supervised"][0] == ["small", "medium"]
    assert lines["supervised"][1] == pytest.approx([40, 40])
    assert lines["human feedback"][1] == pytest.approx([60, 60])
    bands = [part.get_paths()[0].vertices[:, 1] for part in axes.collections]
    assert [(band.min(), band.max()) for band in bands] == [pytest.approx((30, 50)), pytest.approx((50, 70))]


def test_curves_are_drawn_against_the_root_of_kl_in_the_colors_of_their_roles() -> None:
    axes = plot_overoptimization(CURVES)
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    assert [to_hex(str(line.get_color())) for line in drawn] == [PROXY.lower()] * 2 + [GOLD.lower()] * 2
    assert all(list(line.get_xdata()) == [0.0, 1.0, 2.0] for line in drawn)  # type: ignore[arg-type]
    assert [list(line.get_ydata()) for line in drawn] == [[0, 1, 4], [1, 2, 5], [0, 1, -8], [0, 1, -8]]  # type: ignore[arg-type]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["what the reward model says", "what is true"]


def test_only_the_method_asked_for_is_drawn_and_a_kl_estimate_below_zero_counts_as_zero() -> None:
    rows = [{"method": "mine", "seed": 0, "kl": kl, "proxy": 1.0, "gold": 2.0} for kl in (-0.1, 9.0)]
    x, y = lines_by_label(plot_overoptimization([*CURVES, *rows], method="mine"))["what is true"]
    assert (x, y) == ([0.0, 3.0], [2.0, 2.0])


def test_a_curve_by_step_goes_forward_even_where_the_policy_comes_back() -> None:
    back = [
        {"method": "ppo", "seed": 0, "step": step, "kl": kl, "proxy": 2 * step, "gold": step}
        for step, kl in enumerate((0.0, 4.0, 1.0))
    ]
    axes = plot_overoptimization(back, by_step=True)
    x, y = lines_by_label(axes)["what is true"]
    assert (list(x), list(y)) == ([0, 1, 2], [0, 1, 2])
    assert axes.get_xlabel() == "step of PPO"
    with pytest.raises(ValueError, match="cannot be drawn by step"):
        plot_overoptimization(back, by_step=True, fit=GaoFit(form="rl", alpha=1.0, beta=1.0))


def test_gao_s_fit_is_drawn_as_a_function_of_kl() -> None:
    fit = GaoFit(form="best_of_n", alpha=2.0, beta=1.0)
    x, y = lines_by_label(plot_overoptimization(CURVES, fit=fit))["fit of Gao et al."]
    assert max(x) == pytest.approx(2.0)
    assert y == pytest.approx([d * (2 - d) for d in x])


def test_metrics_are_drawn_raw_and_smoothed_where_they_were_logged() -> None:
    history = [*HISTORY, {"step": 10, "kl": 3.0}]
    axes = plot_training(history, {"loss": ("loss", PROXY), "kl": ("KL", GOLD)}, title="t", ylabel="y")
    raw, smoothed, *_ = axes.get_lines()
    assert list(raw.get_xdata()) == list(range(10))  # type: ignore[arg-type]
    assert list(raw.get_ydata()) == [10.0 - step for step in range(10)]  # type: ignore[arg-type]
    assert list(smoothed.get_ydata())[:3] == [10.0, 9.5, 9.0]  # type: ignore[arg-type]
    assert list(smoothed.get_ydata())[-1] == np.mean([1, 2, 3, 4, 5])  # type: ignore[arg-type]
    assert lines_by_label(axes)["KL"] == ([10], [3.0])


def test_smoothing_keeps_constants_and_every_step() -> None:
    assert smooth(np.full(7, 3.0)).tolist() == [3.0] * 7
    assert smooth(np.array([1.0, 2.0, 6.0]), width=1).tolist() == [1.0, 2.0, 6.0]
    assert smooth(np.array([1.0, 2.0, 6.0]), width=10).tolist() == [1.0, 1.5, 3.0]


def test_calibration_is_drawn_in_percent_with_the_diagonal() -> None:
    lines = lines_by_label(plot_calibration(iter(BINS)))
    x, y = lines["reward model"]
    assert x == pytest.approx([55, 90])
    assert y == pytest.approx([50, 80])
    assert lines["perfectly calibrated"] == ([50, 100], [50, 100])


def test_accuracy_is_the_mean_over_seeds_for_each_size_with_people_s_agreement() -> None:
    axes = plot_reward_model_accuracy(ACCURACIES, labeler_agreement=0.73, majority_agreement=0.8, title="t")
    lines = lines_by_label(axes)
    for size in ("small model", "medium model"):
        x, y = lines[size]
        assert x == [100, 1000]
        assert y == pytest.approx([62, 67])
    assert set(lines["one labeler"][1]) == {73.0}
    assert set(lines["majority of three"][1]) == {80.0}
    assert axes.get_xscale() == "log"
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((60, 69))


def test_people_s_majority_is_drawn_only_if_known() -> None:
    axes = plot_reward_model_accuracy(ACCURACIES, labeler_agreement=0.73, title="t")
    assert "majority of three" not in lines_by_label(axes)


def test_roles_have_different_colors() -> None:
    assert len({GOLD, PROXY, REFERENCE}) == 3


@pytest.mark.parametrize("name", PLOTS)
def test_a_title_is_bold_and_left_and_a_legend_has_no_frame(name: str) -> None:
    axes = PLOTS[name][0]()
    assert (axes.get_title("left"), axes.get_title("center")) == (PLOTS[name][1], "")
    assert axes._left_title.get_fontweight() == "bold"  # type: ignore[attr-defined]
    legend = axes.get_legend()
    assert (legend is None) == (name == "win rates")
    assert legend is None or not legend.get_frame_on()


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_cut_off(name: str) -> None:
    axes = PLOTS[name][0]()
    figure = axes.figure
    figure.canvas.draw()
    shown, whole = figure.get_tightbbox(), figure.bbox_inches  # type: ignore[union-attr]
    assert shown.x0 >= whole.x0 and shown.y0 >= whole.y0
    assert shown.x1 <= whole.x1 and shown.y1 <= whole.y1


def bold_lines(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    lines = [line for line in axes.get_lines() if line.get_linewidth() > 2]
    return {str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in lines}


def test_the_mean_over_seeds_is_bold_and_the_seeds_are_thin() -> None:
    """Seed 0 goes straight to (3, 3), seed 1 to (2, 6) and back a little: they are known together up to 2."""
    ends = {0: [(0.0, 0.0), (9.0, 3.0)], 1: [(0.0, 0.0), (4.0, 6.0), (1.0, 3.0)]}
    rows = [
        {"method": "ppo", "seed": seed, "kl": kl, "proxy": score, "gold": -score}
        for seed, points in ends.items()
        for kl, score in points
    ]
    axes = plot_overoptimization(rows)
    x, y = bold_lines(axes)["what the reward model says"]
    assert (x.min(), x.max()) == (0.0, 2.0)
    assert y == pytest.approx((x + 3 * x) / 2)
    assert bold_lines(axes)["what is true"][1] == pytest.approx(-2 * x)
    seeds = [line for line in axes.get_lines() if len(line.get_xdata()) in (2, 3) and line.get_linestyle() != "-"]  # type: ignore[arg-type]
    assert [line.get_linewidth() for line in seeds] == [0.8, 0.8]


def test_seeds_that_never_reach_the_same_distance_have_no_mean() -> None:
    rows = [{"method": "ppo", "seed": kl // 4, "kl": kl, "proxy": 1.0, "gold": 1.0} for kl in (0, 1, 4, 7)]
    axes = plot_overoptimization(rows)
    assert bold_lines(axes) == {}
    assert set(lines_by_label(axes)) >= {"what the reward model says", "what is true"}


def test_rows_without_seed_are_of_seed_0() -> None:
    without = [{key: value for key, value in row.items() if key != "seed"} for row in CURVES if row["seed"] == 0]
    alone, same = plot_overoptimization(without), plot_overoptimization([row for row in CURVES if row["seed"] == 0])
    assert lines_by_label(alone) == lines_by_label(same)
    both = plot_overoptimization([*without, *(row for row in CURVES if row["seed"] == 1)])
    assert set(bold_lines(both)) == {"what the reward model says", "what is true"}


def test_nothing_to_draw_is_refused() -> None:
    for rows, method in (([], "ppo"), (CURVES, "dpo")):
        with pytest.raises(
            ValueError, match=f"nothing to draw: none of the {len(rows)} rows has the method '{method}'"
        ):
            plot_overoptimization(rows, method=method)
    for history in ([], HISTORY):
        with pytest.raises(ValueError, match=f"nothing to draw: none of the {len(history)} rows has kl"):
            plot_training(history, {"kl": ("KL", GOLD)}, title="t", ylabel="y")
    assert plt.get_fignums() == []


def test_numbers_that_were_not_finite_are_left_out() -> None:
    history = [{"step": step, "kl": kl} for step, kl in enumerate([1.0, None, 3.0, float("nan")])]
    axes = plot_training(history, {"kl": ("KL", GOLD)}, title="t", ylabel="y")
    assert lines_by_label(axes)["KL"] == ([0, 2], [1.0, 2.0])


def test_every_size_has_a_line_of_its_own() -> None:
    sizes = ("small", "medium", "large", "huge", "vast")
    rows = [{"size": s, "num_pairs": n, "seed": 0, "accuracy": 0.6} for s in sizes for n in (300, 400, 900)]
    axes = plot_reward_model_accuracy(rows, labeler_agreement=0.73, title="t")
    lines = [line for line in axes.get_lines() if str(line.get_label()).endswith(" model")]
    assert [line.get_label() for line in lines] == [f"{size} model" for size in sizes]
    assert len({to_hex(line.get_color()) for line in lines}) == 5  # type: ignore[arg-type]
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels(which="both")] == ["300", "400", "900"]


def test_a_notebook_that_its_first_figure_makes_interactive_stays_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in Jupyter, whose backend is loaded by the first figure. Else no later figure would be shown.
    def first(subplots: Callable[[], Any] = plt.subplots) -> Any:
        matplotlib.interactive(True)
        return subplots()

    monkeypatch.setattr(plt, "subplots", first)
    with matplotlib.rc_context({"interactive": False}):
        new_axes("Claim", "x", "y")
        assert matplotlib.is_interactive()
