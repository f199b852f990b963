"""Two processes under `accelerate launch` make the losses of one, with the same global batches."""

import json
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
def test_two_processes_make_the_losses_of_one(tmp_path: Path) -> None:
    job = ["rlhf_lab.cli", "tldr", "--scale", "tiny", "--no-overoptimize"]
    job += ["--curve-posts", "5", "--out"]  # does not divide by two
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--module"]
    for prefix, folder in (([], tmp_path / "one"), (launch, tmp_path / "two")):
        subprocess.run(
            [sys.executable, "-m", *prefix, *job, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
        )
    for stage, names in STAGES.items():
        one, two = losses(tmp_path / "one", stage), losses(tmp_path / "two", stage)
        assert len(one) == len(two) >= 4
        for first, second in zip(one, two, strict=True):
            for name in [*names, *(name for name in LOOKS if name in first)]:
                assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-5), (stage, first["step"], name)
    looks = [row for row in losses(tmp_path / "two", "human_feedback") if all(name in row for name in LOOKS)]
    assert len(looks) >= 2
