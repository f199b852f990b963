"""Figures of the lesson on policy gradients."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer

from rlhf_lab.plots import POLICY, PROXY
from rlhf_lab.policy_plots import (
    WARNING,
    plot_changes,
    plot_estimates,
    plot_own_run,
    plot_runs,
    plot_surrogate,
    plot_tokens,
)

HISTORY = [{"step": step, "score": float(step)} for step in range(8)]


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def lines_by_label(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}  # type: ignore[arg-type]


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def labels_of(axes: Axes) -> tuple[str, str, str]:
    return axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()


def test_runs_are_their_mean_in_the_band_of_most() -> None:
    values = np.arange(11.0)[:, None] * np.ones((11, 3))
    axes = plot_runs({"mine": (values, POLICY)}, title="t", xlabel="update", ylabel="chance [%]")
    assert labels_of(axes) == ("t", "update", "chance [%]")
    assert lines_by_label(axes)["mine"] == ([0, 1, 2], pytest.approx([5, 5, 5]))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]  # type: ignore[index]
    assert (band.min(), band.max()) == pytest.approx((1, 9))


def test_tokens_are_named_below_their_numbers() -> None:
    axes = plot_tokens([" My", " cat", ""], {"reward": ([0.0, -1.0, 2.0], PROXY)}, title="t", ylabel="reward")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["My", "cat", "_"]
    assert lines_by_label(axes)["reward"] == ([0, 1, 2], [0, -1, 2])
    with pytest.raises(ValueError, match="reward has 1 numbers, and there are 2 tokens"):
        plot_tokens(["a", "b"], {"reward": ([0.0], PROXY)}, title="t", ylabel="y")


def test_bars_stand_on_each_other_and_hang_from_each_other() -> None:
    series = {"price": ([-1.0, 1.0], "grey"), "score": ([-2.0, 3.0], PROXY)}
    axes = plot_tokens(["a", "b"], series, title="t", ylabel="y", bars=True)
    bars = [bar for one in axes.containers if isinstance(one, BarContainer) for bar in one.patches]
    assert [(bar.get_y(), bar.get_height()) for bar in bars] == [(0, -1), (0, 1), (-1, -2), (1, 3)]


def test_ones_own_run_lies_on_top_of_the_one_that_ships() -> None:
    own = [{"step": 0, "score": 9.0}, {"step": 1, "score": 8.0}, {"step": 2}]
    axes = plot_own_run(HISTORY, own, "score", title="t", ylabel="score")
    assert labels_of(axes) == ("t", "step of PPO", "score")
    assert lines_by_label(axes)["your run"] == ([0, 1], [9, 8])
    assert lines_by_label(axes)["the run that ships, mean of 5 steps"][1][-1] == pytest.approx(5.0)
    with pytest.raises(ValueError, match="your run has no score"):
        plot_own_run(HISTORY, [{"step": 0}], "score", title="t", ylabel="y")


def test_the_surrogate_is_dotted_where_it_has_no_gradient() -> None:
    ratios, gain, gradient = [0.5, 1.0, 1.5], [0.5, 1.0, 1.2], [1.0, 1.0, 0.0]
    axes = plot_surrogate(ratios, {1.0: (gain, gradient), -1.0: (gain, [1.0] * 3)}, clip_range=0.2, title="t")
    lines = lines_by_label(axes)
    assert np.nan_to_num(lines["advantage +1"][1]).tolist() == [0.5, 1.0, 0.0]
    assert np.nan_to_num(lines["advantage +1, gradient 0"][1]).tolist() == [0.0, 0.0, 1.2]
    assert legend_of(axes) == ["advantage +1", "advantage +1, gradient 0", "advantage -1"]
    colors = {str(line.get_label()): to_hex(str(line.get_color())) for line in axes.get_lines()}
    assert (colors["advantage +1"], colors["advantage -1"]) == (POLICY.lower(), WARNING.lower())


def test_estimates_are_drawn_against_the_kl_itself() -> None:
    axes = plot_estimates([{"kl": 0.01, "k1": 0.14, "k3": 0.02}, {"kl": 0.1, "k1": 0.4, "k3": 0.2}], title="t")
    lines = lines_by_label(axes)
    assert (lines["k1"], lines["k3"]) == (([0.01, 0.1], [0.14, 0.4]), ([0.01, 0.1], [0.02, 0.2]))
    assert lines["the KL itself"][1] == [0.01, 0.1]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_each_post_is_a_dot() -> None:
    axes = plot_changes({"free": ([1.0, 2.0], [-1.0, 0.5], WARNING)}, title="t")
    assert lines_by_label(axes)["free"] == ([1, 2], [-1, 0.5])
    assert ([1.5], [-0.25]) in lines_by_label(axes).values()
    assert labels_of(axes) == ("t", "change of the reward model's score", "change of the gold grade")
