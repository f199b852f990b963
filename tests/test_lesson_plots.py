"""Figures of the lessons: each draws the numbers that it is given."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer

import rlhf_lab as lab
from rlhf_lab.evaluation import rate
from rlhf_lab.plots import REFERENCE, SHADES

OUTCOMES = {"supervised": np.array([0.0, 0.5, 1.0, 0.0]), "both\norders": np.ones(3)}
NARROWING = {"human_feedback": [(4, 0.5, 0.2, 0.8), (16, 0.6, 0.4, 0.75)]}
BY_POLICY = [
    {"policy": policy, "seed": seed, "mean": mean + 0.02 * seed, "length_controlled": 0.6}
    | {"coverage": 4.0 + seed, "accuracy": 6.5, "coherence": 6.0, "overall": 5.0}
    for policy, mean in (("supervised", 0.3), ("human_feedback", 0.7))
    for seed in (0, 1)
]
POINTS = [
    {"method": method, "seed": seed, "kl": float(step), "gold": 0.3 * step}
    | ({"n": 2**step, "step": ""} if method == "best_of_n" else {"n": "", "step": step})
    for method in ("best_of_n", "ppo", "ppo_penalty")
    for seed in (0, 1)
    for step in (0, 1, 2)
]
MEMORY = {"all weights": {"weights": 16e9, "moments": 8e9}, "adapters": {"weights": 2e9, "moments": 1e9}}
OWN = [{"n": n, "proxy": n + 1.0, "gold": 5.0 + n, "proxy_std": 2.0, "gold_std": 4.0} for n in (1, 2, 4)]
SAMPLES = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
RULES = {"large alone": -SAMPLES, "mean": SAMPLES}
OPINIONS = {
    "supervised": {judge: np.array([1.0, 3.0]) for judge in ("small reward model", "people", "truth")},
    "no_penalty": {"small reward model": np.full(2, 4.0), "people": np.full(2, 3.0), "truth": np.full(2, 1.0)},
}
CLIPS = {name: [np.full((4, 6, 3), shade, np.uint8)] * number for name, shade, number in (("A", 10, 3), ("B", 200, 2))}
KL, GOLD = np.array([1.0, 4.0, 9.0]), np.array([0.5, 0.4, -0.2])


def extrapolation() -> Axes:
    fits = {"first half": np.array([0.5, 0.4]), "all": (0.4, 0.5)}
    return lab.plot_extrapolation(KL, GOLD, np.array([True, False, False]), fits, title="Claim")


PLOTS: dict[str, tuple[Callable[[], Axes], str, str]] = {
    "shares": (lambda: lab.plot_shares(OUTCOMES, title="Claim"), "", "win rate against the reference [%]"),
    "narrowing": (
        lambda: lab.plot_narrowing(NARROWING, title="Claim"),
        "posts",
        "win rate against the reference [%]",
    ),
    "raw and controlled": (
        lambda: lab.plot_raw_and_controlled(BY_POLICY, title="Claim"),
        "win rate against the reference [%]",
        "",
    ),
    "axes": (lambda: lab.plot_axes_of(BY_POLICY, title="Claim"), "", "the judge's mean grade [1 to 7]"),
    "memory": (lambda: lab.plot_memory(MEMORY, marks={"24 GB": 24e9}, title="Claim"), "", "memory [GB]"),
    "extrapolation": (
        extrapolation,
        "distance from the start, $\\sqrt{KL}$ [$\\sqrt{nat}$]",
        "gold above the start [std at the start]",
    ),
    "rules": (
        lambda: lab.plot_rules(RULES, SAMPLES, title="Claim"),
        "n",
        "gold of the best of n [std of samples]",
    ),
    "opinions": (
        lambda: lab.plot_opinions(OPINIONS, title="Claim"),
        "",
        "score above the first policy's [std there]",
    ),
    "clips": (lambda: lab.plot_clips(CLIPS, title="Claim", xlabel="seconds"), "seconds", ""),
    "frontiers": (
        lambda: lab.plot_frontiers(POINTS, title="Claim"),
        "distance from the start, $\\sqrt{KL}$ [$\\sqrt{nat}$]",
        "gold above the start [std at the start]",
    ),
}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_says_its_claim_and_its_units(name: str) -> None:
    draw, xlabel, ylabel = PLOTS[name]
    axes = draw()
    assert (axes.get_title(loc="left") or axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "Claim",
        xlabel,
        ylabel,
    )


def line(axes: Axes, label: str) -> Any:
    return next(line for line in axes.lines if line.get_label() == label)


def test_shares_are_means_with_wilsons_interval() -> None:
    axes = lab.plot_shares(OUTCOMES, people=["both\norders"], title="Claim")
    bars = [patch for box in axes.containers if isinstance(box, BarContainer) for patch in box.patches]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [SHADES["supervised"], REFERENCE]
    assert [bar.get_height() for bar in bars] == [37.5, 100.0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["supervised", "both\norders"]
    tops = {round(float(path.vertices[:, 1].max()), 6) for box in axes.collections for path in box.get_paths()}
    assert round(100 * rate(OUTCOMES["supervised"]).high, 6) in tops


def test_narrowing_draws_mean_and_band_in_percent() -> None:
    axes = lab.plot_narrowing(NARROWING, title="Claim")
    drawn = line(axes, "human feedback")
    assert drawn.get_xdata().tolist() == [4, 16]
    assert drawn.get_ydata().tolist() == [50.0, 60.0]
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (20.0, 80.0)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "16"]


def test_an_arrow_goes_from_the_raw_rate_to_the_controlled_one() -> None:
    axes = lab.plot_raw_and_controlled(BY_POLICY, title="Claim")
    said = [text.get_text() for text in axes.texts if text.get_text()]
    assert said == ["31 % becomes 60 %", "71 % becomes 60 %"]
    arrows = [text for text in axes.texts if not text.get_text()]
    assert [(round(arrow.xyann[0]), round(arrow.xy[0])) for arrow in arrows] == [(31, 60), (71, 60)]  # type: ignore[attr-defined]
    # The first policy is on top.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_axes_of_are_means_over_seeds() -> None:
    axes = lab.plot_axes_of(BY_POLICY, title="Claim")
    tops = [patch.get_y() + patch.get_height() for patch in axes.containers[0].patches]  # type: ignore[attr-defined]
    assert tops == [4.5, 6.5, 6.0, 5.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["supervised", "human feedback"]  # type: ignore[union-attr]


def test_an_own_run_is_counted_from_its_first_sample_in_its_own_deviations() -> None:
    axes = lab.plot_overoptimization([row | {"proxy": 1.0} for row in POINTS], method="best_of_n")
    lab.draw_best_of_n(axes, OWN, label="mine")
    assert line(axes, "mine, proxy").get_ydata().tolist() == [0.0, 0.5, 1.5]
    assert line(axes, "mine, gold").get_ydata().tolist() == [0.0, 0.25, 0.75]
    assert np.square(line(axes, "mine, gold").get_xdata()).round(3).tolist() == [0.0, 0.193, 0.636]


def test_extrapolation_parts_the_points_and_draws_the_form_for_rl() -> None:
    axes = extrapolation()
    assert line(axes, "first half").get_xdata().tolist() == [1.0]
    assert line(axes, "second half").get_ydata().tolist() == [0.4, -0.2]
    curve = next(line for line in axes.lines if line.get_label() == "all")
    distance, gold = curve.get_xdata(), curve.get_ydata()
    assert np.allclose(gold, distance * (0.4 - 0.5 * np.log(distance)))  # type: ignore[operator]
    assert distance[-1] == 3.0  # type: ignore[index]


def test_frontiers_are_means_of_the_seeds_at_each_n_or_step() -> None:
    rows = [row | ({"gold": row["gold"] + 0.2} if row["seed"] else {}) for row in POINTS]
    axes = lab.plot_frontiers(rows, title="Claim")
    for label in ("best-of-n", "PPO with the penalty", "PPO without it"):
        assert np.allclose(line(axes, label).get_ydata(), [0.1, 0.4, 0.7])
        assert np.allclose(line(axes, label).get_xdata(), np.sqrt([0, 1, 2]))


def test_rules_are_the_best_of_n_by_each_score() -> None:
    axes = lab.plot_rules(RULES, SAMPLES, title="Claim")
    best, worst = line(axes, "mean").get_ydata(), line(axes, "large alone").get_ydata()
    assert list(line(axes, "mean").get_xdata()) == [1, 2, 4]
    assert np.allclose(best, [0.0, best[1], (4.0 - 2.5) / SAMPLES.std()])
    assert np.allclose(best, -np.array(worst))


def test_opinions_are_counted_from_the_first_policy_in_the_judges_own_deviations() -> None:
    axes = lab.plot_opinions(OPINIONS, title="Claim")
    drawn = {judge: list(line(axes, judge).get_ydata()) for judge in OPINIONS["supervised"]}
    assert drawn == {"small reward model": [0.0, 2.0], "people": [0.0, 1.0], "truth": [0.0, -1.0]}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["supervised", "PPO\nwithout it"]


def test_clips_are_strips_one_under_the_other() -> None:
    axes = lab.plot_clips(CLIPS, title="Claim")
    drawn = {image.get_array()[0, 0, 0]: image for image in axes.images}  # type: ignore[index]
    assert [drawn[shade].get_extent() for shade in (10, 200)] == [[0, 18, 4, 0], [0, 12, 8, 4]]
    assert [image.get_array().shape for image in axes.images] == [(4, 18, 3), (4, 12, 3)]  # type: ignore[union-attr]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A", "B"]
    assert list(axes.get_yticks()) == [2.0, 6.0]


def test_memory_is_stacked_in_gigabytes() -> None:
    axes = lab.plot_memory(MEMORY, marks={"24 GB": 24e9}, title="Claim")
    weights, moments = axes.containers[:2]
    assert [bar.get_height() for bar in weights] == [16, 2]  # type: ignore[union-attr]
    assert [bar.get_y() for bar in moments] == [16, 2]  # type: ignore[union-attr]
    assert [bar.get_height() for bar in moments] == [8, 1]  # type: ignore[union-attr]
    assert axes.lines[0].get_ydata()[0] == 24  # type: ignore[index]
