"""The results page: its tables read back as written, and its numbers are those of the tables."""

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from rlhf_lab.experiments import results
from rlhf_lab.experiments.results import NUM_PAIRS, ResultsConfig, run_results
from rlhf_lab.experiments.results_page import (
    curve_summary,
    gao_fits,
    load_results,
    read_table,
    write_page,
    write_table,
)
from rlhf_lab.models import MODEL_SIZES

METHODS = ("ppo", "ppo_penalty")
POLICIES = {"pretrained": 0.1, "supervised": 0.4, "human_feedback": 0.7}


def ppo_points(method: str, seed: int, *, fall: float) -> list[dict[str, Any]]:
    """Gold follows R(d) = d (2 - fall log d), from d = 0 to 4."""
    points = []
    for step in range(41):
        distance = step / 10
        gold = distance * (2.0 - fall * math.log(distance)) if distance else 0.0
        row = {"method": method, "seed": seed, "step": step, "samples": 400, "kl": distance**2}
        points.append(row | {"proxy": 2.0 * distance, "gold": gold})
    return points


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    axes = {"overall": 5.0, "coverage": 5.5, "accuracy": 6.0, "coherence": 6.5, "wrong_facts": 0.25}
    rates = [
        {"size": size, "seed": seed, "policy": policy, "mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 512}
        | {"length_controlled": mean, "words": 20.0}
        | axes
        for size in MODEL_SIZES
        for seed in range(2)
        for policy, mean in POLICIES.items()
    ]
    models = [
        {"size": size, "num_pairs": number, "seed": seed, "accuracy": accuracy, "labeler_agreement": 0.73}
        | {"majority_agreement": 0.79, "n": 1000, "longer_preferred": 0.51}
        for size in MODEL_SIZES
        for seed in range(2)
        for number, accuracy in ((100, 0.5), (4000, 0.71))
    ]
    own = [
        {"size": size, "seed": seed, "n": 1000, "accuracy": 0.72}
        | ({"labeler_agreement": 0.73, "longer_preferred": 0.7} if size == "large" else {})
        for size in MODEL_SIZES
        for seed in range(2)
    ]
    curve = [
        {"method": "best_of_n", "seed": seed, "n": n, "kl": math.log(n) - (n - 1) / n, "proxy": n / 8, "gold": n / 10}
        for seed in range(2)
        for n in (1, 2, 4, 8)
    ]
    for seed in range(2):
        curve += ppo_points("ppo", seed, fall=3.0) + ppo_points("ppo_penalty", seed, fall=0.0)
    texts = {name: f" {name} text" for name in ("reference", "supervised", "human_feedback", "no_penalty")}
    samples = [{"prompt": 'POST: a, "b"\nTL;DR:', **texts, **{f"{name}_gold": 5.0 for name in texts}}]
    for name, rows in (
        ("win_rates", rates),
        ("reward_models", models),
        ("overoptimization", curve),
        ("own_comparisons", own),
        ("samples", samples),
    ):
        write_table(tmp_path / "tables" / f"{name}.csv", rows)
    return tmp_path / "tables"


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        {"method": "ppo", "seed": 0, "kl": 0.125, "text": 'a "quoted", cut\nline'},
        {"method": "best_of_n", "seed": 1, "kl": 1e-7, "text": ""},
    ]
    write_table(tmp_path / "rows.csv", rows)
    assert read_table(tmp_path / "rows.csv") == rows
    assert (tmp_path / "rows.csv").read_text().startswith("# rlhf-lab results\n")


def test_the_tables_that_ship_can_be_read_by_name() -> None:
    rates = load_results("win_rates")
    # The line that says which command made them is no row, and numbers are numbers.
    assert {row["size"] for row in rates} == set(MODEL_SIZES)
    assert all(type(row["mean"]) is float and row["n"] == 512 for row in rates)
    assert {"\n" in row["prompt"] for row in load_results("samples")} == {True}
    for name in ("win_rate", "../results/win_rates", ""):
        with pytest.raises(ValueError, match=f"no table {name!r} ships; there are .*reward_models, .*win_rates"):
            load_results(name)


def test_the_tables_are_in_the_wheel() -> None:
    root = Path(__file__).parents[2]
    included = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert included["force-include"]["data/results"] == "rlhf_lab/_data/results"


def test_a_missing_table_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make it with: rlhf-lab results"):
        read_table(tmp_path / "win_rates.csv")


def test_the_curve_is_summed_up_by_hand(tables: Path) -> None:
    rows = read_table(tables / "overoptimization.csv")
    for row in curve_summary(rows):
        # d (2 - 3 log d) peaks where 2 - 3 log d = 3, at d = exp(-1/3) = 0.717: 3 exp(-1/3) = 2.15.
        assert row["free_peak"] == pytest.approx(3 * math.exp(-1 / 3), abs=1e-3)
        assert row["free_peak_kl"] == pytest.approx(0.7**2)
        assert row["free_peak_proxy"] == pytest.approx(1.4)
        assert row["free_end"] == pytest.approx(4 * (2 - 3 * math.log(4)), abs=1e-3)
        assert row["free_end_proxy"] == row["free_proxy_max"] == 8.0
        assert row["free_peak_proxy"] < row["free_end_proxy"]
        assert row["penalized_end"] == row["penalized_peak"]


def test_the_last_row_sums_up_the_mean_of_the_seeds_curves() -> None:
    up = [{"method": m, "seed": 0, "step": n, "kl": n, "proxy": n, "gold": n} for m in METHODS for n in range(12)]
    down = [row | {"seed": 1, "gold": -row["gold"] / 2} for row in up]
    first, second, mean = curve_summary(up + down)
    assert [row["seed"] for row in (first, second, mean)] == [0, 1, "mean"]
    assert (first["free_end"], second["free_end"], mean["free_end"]) == (11, -5.5, 2.75)
    assert (first["free_peak"], second["free_peak"], mean["free_peak"]) == (11, 0.0, 2.75)


def test_the_fit_finds_the_form_that_made_the_points(tables: Path) -> None:
    fit = gao_fits(read_table(tables / "overoptimization.csv"))["ppo"]
    assert fit
    assert (fit.alpha, fit.beta) == pytest.approx((2.0, 3.0), abs=1e-3)


def test_the_page_shows_the_tables_numbers(tables: Path, tmp_path: Path) -> None:
    page = write_page(tables, tmp_path / "docs" / "results.md")
    text = page.read_text()
    assert "| large | human feedback | 70.0 % | 65.0 % to 75.0 % |" in text
    assert "| 4000 | 71.0 % | 71.0 % | 71.0 % |" in text
    assert "72.0 % (small, 1000 pairs for each seed), 72.0 % (medium, 1000" in text
    assert "and another person on 73.0 %." in text
    assert "The longer summary is the preferred one in 51.0 %" in text
    assert "The longer one is the\npreferred one in 70.0 %" in text
    assert "best-of-8 has gold +0.80" in text
    assert "no_penalty text" in text
    assert "for each base model (small, medium, large) and\n2 seeds" in text
    assert "ends at 100.0 % of its peak; the seeds' own end at 100.0 %, 100.0 % of theirs" in text
    # Best-of-8 spends log 8 - 7/8 = 1.20 nats, d = 1.10; by the form the gold there is 1.10 (2 - 3 log 1.10) = 1.89.
    found = re.search(r"at 1.20 nats; the mean of the seeds' PPO without penalty has \+(.*) when", text)
    assert found
    assert float(found[1]) == pytest.approx(1.89, abs=0.01)
    assert "the mean of 400 samples on\n" in text
    assert "their standard error is about 0.05." in text
    figures = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert figures == {"win_rates", "reward_models", "overoptimization", "penalized", "best_of_n"}
    assert all(f"figures/{name}.png" in text for name in figures)


def test_the_longer_summary_is_counted_by_hand() -> None:
    pairs = [("one two three", "one two"), ("one", "one two"), ("one two", "two one"), ("a b c d", "a b")]
    rows = Dataset.from_list([{"chosen": chosen, "rejected": rejected} for chosen, rejected in pairs])
    assert results._longer_preferred(rows) == (1 + 0 + 0.5 + 1) / 4


@pytest.mark.slow
def test_the_command_makes_tables_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MODEL_SIZES", {size: MODEL_SIZES[size] for size in ("small", "medium")})
    monkeypatch.setattr(results, "LARGEST", "medium")
    config = ResultsConfig(
        scale="tiny",
        num_seeds=1,
        out=str(tmp_path / "runs"),
        tables=str(tmp_path / "tables"),
        page=str(tmp_path / "results.md"),
    )
    page = run_results(config).read_text()
    models = read_table(tmp_path / "tables" / "reward_models.csv")
    assert [(row["size"], row["num_pairs"]) for row in models] == [
        (size, number) for size in ("small", "medium") for number in NUM_PAIRS["tiny"]
    ]
    # The smaller model learnt from the larger one's comparisons, and so from no people of its own.
    assert json.loads((tmp_path / "runs" / "small-0" / "config.json").read_text())["comparisons"].endswith("-0.jsonl")
    assert not (tmp_path / "runs" / "small-0" / "comparisons").exists()
    assert (tmp_path / "runs" / "medium-0" / "comparisons" / "result").exists()
    # Both sizes' reward models learnt from pairs of summaries by the two.
    assert (tmp_path / "runs" / "reward_models" / "train-0.jsonl").read_text().count("\n") == NUM_PAIRS["tiny"][-1]
    assert "for each base model (small, medium)" in page
    before = {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    run_results(config)
    assert before == {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}


def test_no_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="num_seeds must be at least 1, not 0"):
        ResultsConfig(num_seeds=0)
