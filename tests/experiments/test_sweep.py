"""A sweep is the same table whoever did its runs, and however often a worker was killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_lab.cli import main
from rlhf_lab.experiments.sweep import SweepConfig, run_sweep
from tests.capabilities import ROOT

NUM_SEEDS = int(os.environ.get("RLHF_LAB_SWEEP_SEEDS", "3"))
"""Of six KL coefficients each: with 10, the sixty runs of docs/scaling.md."""
SMALL = ["--scale", "tiny", "--size", "small", "--num-posts", "4"]

CLUSTER = """
import sys
from dask.distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        for worker in cluster.workers.values():
            print(worker.pid, flush=True)
        from rlhf_lab.cli import main
        sys.exit(main([*sys.argv[1:], "--cluster", cluster.scheduler_address]))
"""


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_interrupted_sweep_does_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SweepConfig(out=str(tmp_path), scale="tiny", size="small", kl_coefs=(0.0, 0.5), num_seeds=1, num_posts=4)
    table = run_sweep(config)
    first = table.read_bytes()
    assert [row["kl_coef"] for row in rows(table)] == ["0.0", "0.5"]
    (tmp_path / "runs" / "kl-0.5-seed-0" / "result.json").unlink()
    table.unlink()
    monkeypatch.setattr("rlhf_lab.experiments.sweep.SweepConfig.__post_init__", lambda self: None)
    assert run_sweep(config).read_bytes() == first


def test_nobody_at_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *SMALL, "--out", str(tmp_path), "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9; check the address." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_coefs": (-0.1,)}, "kl_coefs must be 0 or more"),
        ({"num_seeds": 0}, "num_seeds"),
        ({"size": "huge"}, "huge"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SweepConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.alone
def test_runs_survive_a_worker_killed_with_kill_9(tmp_path: Path) -> None:
    kl_coefs = ["0", "0.1", "0.2", "0.4", "0.8", "1.6"]
    sweep = ["sweep", *SMALL, "--num-seeds", str(NUM_SEEDS), "--kl-coefs", *kl_coefs]
    number = NUM_SEEDS * len(kl_coefs)
    assert main([*sweep, "--out", str(tmp_path / "whole"), "--jobs", "2"]) == 0
    script = tmp_path / "run.py"
    script.write_text(CLUSTER)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(script), *sweep, "--out", str(tmp_path / "killed")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        victim = int(process.stdout.readline())
        done = tmp_path / "killed" / "runs"
        while process.poll() is None and len(list(done.glob("*/result.json"))) < number // 6:
            time.sleep(0.2)
        os.kill(victim, signal.SIGKILL)
        assert len(list(done.glob("*/result.json"))) < number
        process.stdout.read()
    assert process.returncode == 0
    table = tmp_path / "killed" / "results.csv"
    assert len(rows(table)) == number
    assert table.read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
