"""Two processes under `accelerate launch` make the losses of one, with the same global batches."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capabilities import ROOT

STAGES = {
    "supervised": ["sft/loss"],
    "reward_model": ["rm/loss", "rm/accuracy"],
    "human_feedback": ["ppo/policy_loss", "ppo/value_loss", "objective/score", "objective/kl"],
}
LOOKS = ["held_out/score", "held_out/kl"]


def losses(folder: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_make_the_losses_of_one(tmp_path: Path) -> None:
    # With seed 0 a token of step 0 lies so near to a boundary that even the number of threads decides it.
    job = ["rlhf_lab.cli", "tldr", "--scale", "tiny", "--no-overoptimize", "--seed", "1"]
    job += ["--curve-posts", "5", "--out"]  # does not divide by two
    # What `accelerate launch` runs; its own `--cpu --num_processes 2` starts one process only.
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--module"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for prefix, folder in (([], tmp_path / "one"), (launch, tmp_path / "two")):
        if prefix:
            # The same comparisons: sums in another order may choose another token, and so write another summary.
            for stage in ("comparisons", "comparisons_held_out"):
                shutil.copytree(tmp_path / "one" / stage, folder / stage)
            shutil.copy(tmp_path / "one" / "config.json", folder)
        done = subprocess.run(
            [sys.executable, "-m", *prefix, *job, str(folder)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("Report: ") == (2 if prefix else 1), "each process says where its report is"
    for stage, names in STAGES.items():
        one, two = losses(tmp_path / "one", stage), losses(tmp_path / "two", stage)
        assert len(one) == len(two) >= 4
        for first, second in zip(one, two, strict=True):
            for name in [*names, *(name for name in LOOKS if name in first)]:
                assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-5), (stage, first["step"], name)
    looks = [row for row in losses(tmp_path / "two", "human_feedback") if all(name in row for name in LOOKS)]
    assert len(looks) >= 2
