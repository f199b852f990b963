"""1, 2 and 4 processes make the same losses and the same weights, by DDP and by FSDP2; a checkpoint fits them all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlhf_lab.launch import LaunchCommand, launched
from tests.capabilities import ROOT

STAGES = ("sft", "lora", "reward", "dpo", "a2c", "rloo", "grpo", "ppo")
COMPARED = ("loss", "accuracy", "margin", "score", "kl")
CLOSE = {"atol": 1e-5, "rtol": 0.0}

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def start(out: Path, processes: int, strategy: str, *more: str) -> None:
    """Run all stages; the command is `launch`'s own, but for the module."""
    out.mkdir(exist_ok=True)
    arguments = [sys.executable, "-m", "tests.training.many_processes", str(out), *more]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if processes > 1:
        command = LaunchCommand(command=(str(out), *more), num_processes=processes, strategy=strategy, cpu=True)  # type: ignore[arg-type]
        line, environment = launched(command, num_devices=0)
        arguments = ["tests.training.many_processes" if word == "rlhf_lab.cli" else word for word in line]
    done = subprocess.run(
        arguments, cwd=ROOT, env=os.environ | environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("processes") / "one"
    start(folder, 1, "ddp")
    return folder


def assert_same(folder: Path, one: Path) -> None:
    for stage in STAGES:
        rows, expected = (
            [json.loads(line) for line in (place / stage / "metrics.jsonl").read_text().splitlines()]
            for place in (folder, one)
        )
        assert len(rows) == len(expected) == 4
        for row, other in zip(rows, expected, strict=True):
            names = [name for name in other if name.split("/")[-1].split("_")[-1] in COMPARED]
            assert names
            for name in names:
                assert row[name] == pytest.approx(other[name], abs=1e-5), (stage, row["step"], name)
        weights, expected_weights = (torch.load(place / f"{stage}.pt", weights_only=True) for place in (folder, one))
        assert weights.keys() == expected_weights.keys()
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, expected_weights[name], **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


def test_the_weights_have_moved(one: Path) -> None:
    sft, tuned = (torch.load(one / f"{stage}.pt", weights_only=True) for stage in ("sft", "ppo"))
    moved = max((tensor - tuned[name]).abs().max().item() for name, tensor in sft.items())
    assert moved > 1e-4  # Ten times what the comparison allows.


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_many_processes_make_what_one_makes(strategy: str, processes: int, one: Path, tmp_path: Path) -> None:
    start(tmp_path / "many", processes, strategy)
    assert_same(tmp_path / "many", one)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_checkpoint_of_two_processes_goes_on_with_one_and_with_four(strategy: str, one: Path, tmp_path: Path) -> None:
    start(tmp_path / "cut", 2, strategy, "2")
    assert len((tmp_path / "cut" / "ppo" / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "cut" / "ppo.pt").exists()
    for processes in (1, 4):
        folder = tmp_path / f"from_{processes}"
        shutil.copytree(tmp_path / "cut", folder)
        start(folder, processes, strategy)
        assert_same(folder, one)
