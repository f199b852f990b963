"""`rlhf-lab launch`: the same command on several processes, by Accelerate.

    rlhf-lab launch --num-processes 8 --strategy fsdp2 -- tldr --scale gpu --out runs/gpu

What is more than this (several machines) is said in a file that `accelerate config` writes.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

_FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` says to its processes; every process loads the networks itself."""


@dataclass(frozen=True, kw_only=True)
class LaunchCommand:
    """Run a command on several processes: rlhf-lab launch [options] -- COMMAND ..."""

    command: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """The command of rlhf-lab, with its options; what stands after `--`."""
    num_processes: int = 0
    """Usually one a GPU; 0 takes all GPUs."""
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """ddp: each process holds all weights that are trained. fsdp2: they share them, and the optimizer's moments."""
    mixed_precision: Literal["no", "bf16"] | None = None
    """By default what the config file says, or no."""
    cpu: bool = False
    """Processes on the CPU, to try a job without GPUs."""
    config_file: str | None = None
    """Of `accelerate config`: several machines, and all else; the options here come on top."""


def run_launch(argv: Sequence[str]) -> int:
    """Start the processes and wait; returns their exit status.

    Args:
        argv: Options, `--`, and the command with its own.

    Raises:
        ValueError: There is no command, or there are fewer GPUs than processes and the CPU was not asked for.
    """
    at = list(argv).index("--") if "--" in argv else len(argv)
    own, rest = argv[:at], argv[at + 1 :]
    command = replace(tyro.cli(LaunchCommand, args=own, prog="rlhf-lab launch"), command=tuple(rest))
    arguments, environment = launched(command, num_devices=_num_devices())
    return subprocess.run(arguments, env=os.environ | environment, check=False).returncode


def launched(command: LaunchCommand, *, num_devices: int) -> tuple[Sequence[str], Mapping[str, str]]:
    """The command line, and what it needs in its environment.

    Args:
        command: What to run.
        num_devices: GPUs of this machine.

    Raises:
        ValueError: There is no command, or there are fewer GPUs than processes and the CPU was not asked for.
    """
    _check(command)
    module = ["--module", "rlhf_lab.cli", *command.command]
    environment = dict(_FSDP2) if command.strategy == "fsdp2" else {}
    if command.mixed_precision:
        environment["ACCELERATE_MIXED_PRECISION"] = command.mixed_precision
    if command.cpu:
        number = command.num_processes or 1
        # `accelerate launch --cpu` starts one process only.
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
        threads = max(1, (os.cpu_count() or 1) // number)
        environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(threads)}
        return [sys.executable, *start, *module], environment
    if command.config_file:
        count = ["--num_processes", str(command.num_processes)] if command.num_processes else []
        start = ["-m", "accelerate.commands.launch", "--config_file", command.config_file, *count]
        return [sys.executable, *start, *module], environment
    number = command.num_processes or num_devices
    if not 1 <= number <= num_devices:
        raise ValueError(
            f"{number} processes need as many GPUs, and this machine has {num_devices}; give --num-processes, or --cpu "
            f"to try it without."
        )
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    return [sys.executable, *start, *module], environment


def _check(command: LaunchCommand) -> None:
    if not command.command:
        raise ValueError("launch needs a command: rlhf-lab launch --num-processes 2 -- tldr --scale gpu --out DIR")
    if command.num_processes < 0:
        raise ValueError(f"num_processes must be 0 or more, not {command.num_processes}.")
    if command.config_file and not Path(command.config_file).is_file():
        raise ValueError(f"there is no file {command.config_file}; `accelerate config --config_file FILE` makes one.")
    if command.cpu and command.config_file:
        raise ValueError("--cpu and --config-file do not go together; say the CPU in the file.")


def _num_devices() -> int:
    import torch

    return torch.cuda.device_count()
