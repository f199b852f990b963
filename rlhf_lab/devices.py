"""What there is to run on: processes by Accelerate, the precision that a device has, and its memory."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin

_ENGINES = {"DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM"}
"""Engines that take over the update of the one network that they serve, by Accelerate's flags."""


def new_accelerator(folder: Path | None, mixed_precision: str | None) -> Accelerator:
    """The processes of a run, and where they compute.

    Args:
        folder: For the tracker; without one nothing is tracked.
        mixed_precision: "no" or "bf16"; None leaves it to `accelerate launch`.

    Raises:
        ValueError: The device lacks the precision, or we do; or processes are to work together as we cannot.
    """
    _check_engine(os.environ)
    accelerator = Accelerator(
        mixed_precision=mixed_precision, log_with="tensorboard" if folder else None, project_dir=folder
    )
    check_precision(accelerator.mixed_precision, accelerator.device)
    _shard_on_cpu(accelerator)
    return accelerator


def _check_engine(environment: Mapping[str, str]) -> None:
    """Refuse engines of `accelerate launch` that `training.fit.Fit` does not serve, before they are loaded."""

    def asked(name: str) -> bool:
        return environment.get(f"ACCELERATE_USE_{name}", "").lower() == "true"

    engine = next((name for flag, name in _ENGINES.items() if asked(flag)), None)
    if engine is None and asked("FSDP") and environment.get("FSDP_VERSION", "1") != "2":
        engine = "FSDP of version 1"
    if engine:
        raise ValueError(
            f"{engine} is not supported: PPO trains two networks, and each with an update of its own; choose DDP, or "
            f"FSDP2 for networks that are shared among processes (rlhf-lab launch --strategy fsdp2)."
        )


def check_precision(mixed_precision: str, device: torch.device) -> None:
    """Refuse a precision that we do not have, or the device has not.

    Raises:
        ValueError: It is neither "no" nor "bf16", or the GPU does not compute in bf16.
    """
    if mixed_precision not in ("no", "bf16"):
        raise ValueError(
            f"mixed precision {mixed_precision!r} is not supported: its losses would need scaling; choose bf16, or no."
        )
    if mixed_precision == "bf16" and device.type == "cuda":
        with torch.cuda.device(device):
            has_it = torch.cuda.is_bf16_supported(including_emulation=False)
        if not has_it:
            name = torch.cuda.get_device_name(device)
            raise ValueError(f"{name} does not compute in bf16; choose the precision no, or a newer GPU.")


def available_memory(device: torch.device) -> float:
    """What this process may use of `device`, with what it uses already [bytes]."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    limit = Path("/sys/fs/cgroup/memory.max")  # Of a container.
    text = limit.read_text().strip() if limit.exists() else "max"
    return float(free) if text == "max" else min(float(free), float(text))


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """Let FSDP serve processes on the CPU too: Accelerate has it for other devices only, PyTorch for all."""
    state = accelerator.state
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if asked and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if accelerator.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(accelerator.mixed_precision)
