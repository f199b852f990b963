"""`rlhf-lab launch`: which processes it starts, and what it refuses."""

import sys
from pathlib import Path

import pytest

from rlhf_lab.cli import main
from rlhf_lab.launch import LaunchCommand, launched

JOB = ("tldr", "--scale", "tiny")


def test_processes_on_the_cpu() -> None:
    arguments, environment = launched(LaunchCommand(command=JOB, num_processes=2, cpu=True), num_devices=0)
    assert arguments[0] == sys.executable
    assert list(arguments[-5:]) == ["--module", "rlhf_lab.cli", *JOB]
    assert "--nproc_per_node 2" in " ".join(arguments)
    assert environment["ACCELERATE_USE_CPU"] == "true" and int(environment["OMP_NUM_THREADS"]) >= 1
    assert "ACCELERATE_USE_FSDP" not in environment


def test_all_gpus_share_the_weights() -> None:
    command = LaunchCommand(command=JOB, strategy="fsdp2", mixed_precision="bf16")
    arguments, environment = launched(command, num_devices=8)
    assert "--nproc_per_node 8" in " ".join(arguments)
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_a_file_of_accelerate_says_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text("distributed_type: MULTI_GPU\n")
    arguments, environment = launched(LaunchCommand(command=JOB, config_file=str(file)), num_devices=0)
    assert list(arguments[1:5]) == ["-m", "accelerate.commands.launch", "--config_file", str(file)]
    assert not environment


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["launch", "--num-processes", "2", "--cpu"],
            "launch needs a command: rlhf-lab launch --num-processes 2 -- tldr",
        ),
        (["launch", "--num-processes", "-1", "--", "tldr"], "num_processes must be 0 or more, not -1"),
        (["launch", "--config-file", "no.yaml", "--", "tldr"], "there is no file no.yaml; `accelerate config"),
        (["launch", "--num-processes", "99", "--", "tldr"], "99 processes need as many GPUs, and this machine has"),
    ],
)
def test_what_cannot_be_started_is_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_processes_run_the_command_and_their_failure_is_ours(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--num-processes", "2", "--cpu", "--", "tldr", "--scale", "huge"]) != 0
    assert "huge" in capfd.readouterr().err
