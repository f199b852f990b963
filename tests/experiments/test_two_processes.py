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
    "human_feedback looks": ["held_out/score", "held_out/kl"],
}


def losses(folder: Path, stage: str) -> list[dict[str, float]]:
    name, _, only = stage.partition(" ")
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if not only or "held_out/kl" in row]


@pytest.mark.slow
def test_two_processes_make_the_losses_of_one(tmp_path: Path) -> None:
    job = ["rlhf_lab.cli", "tldr", "--scale", "tiny", "--no-overoptimize", "--out"]
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--module"]
    for prefix, folder in (([], tmp_path / "one"), (launch, tmp_path / "two")):
        subprocess.run(
            [sys.executable, "-m", *prefix, *job, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
        )
    for stage, names in STAGES.items():
        one, two = losses(tmp_path / "one", stage), losses(tmp_path / "two", stage)
        assert len(one) == len(two) >= 2
        for first, second in zip(one, two, strict=True):
            for name in names:
                assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-5), (stage, first["step"], name)
