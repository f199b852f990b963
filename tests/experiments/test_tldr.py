"""The main job at the scale `tiny`: complete, resumable to the bit, and the same on two processes."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.experiments.tldr import TLDRConfig, run_tldr
from tests.capabilities import ROOT


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rlhf_lab.cli", "tldr", "--scale", "tiny", "--out", str(folder), *more]


def weights(folder: Path) -> dict[str, str]:
    """Digest of every result of every stage."""
    files = sorted(path for path in folder.glob("*/result/*.safetensors")) + sorted(folder.glob("*/result"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tldr") / "run"
    subprocess.run(command(folder), cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def results(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "results.json").read_text())


@pytest.mark.slow
def test_results_hold_what_is_promised(results: dict[str, Any]) -> None:
    for policy in ("pretrained", "supervised", "human_feedback"):
        assert set(results["win_rate_vs_reference"][policy]) == {"mean", "low", "high", "n"}
        assert results["win_rate_vs_reference"][policy]["n"] > 0
    assert {"accuracy", "labeler_agreement", "n"} <= set(results["reward_model"])
    assert {"method", "seed", "kl", "proxy", "gold"} <= set(results["overoptimization"][0])
    assert {point["method"] for point in results["overoptimization"]} == {"ppo", "ppo_penalty", "best_of_n"}
    assert {"supervised", "reward_model", "human_feedback", "no_penalty"} <= set(results["seconds"])
    assert results["versions"]["torch"]


@pytest.mark.slow
def test_points_are_gains_over_the_start_in_its_standard_deviations(finished: Path, results: dict[str, Any]) -> None:
    def rows(file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (finished / file).read_text().splitlines()]

    start, *_ = rows("best_of_n/result")
    assert start["n"] == 1
    for method, stage in (("ppo", "no_penalty"), ("ppo_penalty", "human_feedback")):
        seen = [row for row in rows(f"{stage}/metrics.jsonl") if "held_out/kl" in row]
        points = [point for point in results["overoptimization"] if point["method"] == method]
        assert [point["step"] for point in points] == [row["step"] for row in seen]
        assert len(points) >= 2
        for point, row in zip(points, seen, strict=True):
            assert point["kl"] == row["held_out/kl"]
            assert point["samples"] == 16 * 4  # the tiny scale's posts, and candidates for each
            for role, name in (("proxy", "held_out/score"), ("gold", "held_out/gold")):
                gain = (row[name] - start[role]) / (start[f"{role}_std"] or 1.0)
                assert point[role] == pytest.approx(gain)


@pytest.mark.slow
def test_the_report_is_one_file_with_figures(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((finished / "figures").glob("*.png"))) >= 6
    assert "http://" not in page
    assert "https://" not in page
    assert "NaN" not in re.sub(r"base64,[^\"]+", "", page)


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(finished: Path, results: dict[str, Any]) -> None:
    before = weights(finished)
    stamp = (finished / "human_feedback" / "metrics.jsonl").stat().st_mtime_ns
    again = run_tldr(TLDRConfig(scale="tiny", out=str(finished)))
    assert weights(finished) == before
    assert (finished / "human_feedback" / "metrics.jsonl").stat().st_mtime_ns == stamp
    assert json.loads(json.dumps(again)) == results


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, then the same command, until ten kills have landed."""
    rng = random.Random(0)
    seconds = sum(json.loads((finished / "results.json").read_text())["seconds"].values())
    attempt = landed = 0
    while landed < 10:
        folder = tmp_path / f"run{attempt}"
        process = subprocess.Popen(
            command(folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        # From the moment that its folder is there: what comes before is the import of libraries.
        while not (folder / "config.json").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.2, 2.0 + seconds / 6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            landed += 1
        else:
            assert weights(folder) == weights(finished)
            attempt += 1
        _, complaint = process.communicate()
        assert b"Traceback" not in complaint
        assert b"rlhf-lab:" not in complaint
    subprocess.run(command(folder), cwd=ROOT, check=True, capture_output=True)
    assert weights(folder) == weights(finished)


@pytest.mark.parametrize("name", ["num_pairs", "held_out_pairs"])
def test_a_negative_number_of_pairs_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, not -1"):
        TLDRConfig(**{name: -1})  # type: ignore[arg-type]
