"""Which networks fit on how many GPUs, and what is left for a batch."""

import contextlib
import math
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cluster import ACTIVATION_BYTES, SHAPES, TLDR, TRAINED_BYTES, Job, Rates, Shape


@dataclass(frozen=True)
class Need:
    """Bytes that a placement holds: on every GPU, and shared by all."""

    whole: float
    shared: float = 0.0

    def on(self, gpus: int) -> float:
        """Bytes on each."""
        return self.whole + self.shared / gpus


def need(placement: str, shape: Shape, rates: Rates) -> Need:
    """Policy and critic are trained, reference and reward model are read.

    - ddp: every GPU holds all.
    - fsdp2: what is trained is shared; during a rollout every GPU gathers it whole (`Fit.whole`), beside the whole
      reference and reward model.
    - trainers: all four are shared, and gathered layer by layer.
    - writer: a copy of the policy, on `ways` GPUs.
    """
    trained, read = 2 * TRAINED_BYTES * shape.parameters, 2 * rates.number_bytes * shape.parameters
    return {
        "ddp": Need(trained + read),
        "fsdp2": Need(2 * read, trained),
        "trainers": Need(0.0, trained + read),
        "writer": Need(rates.number_bytes * shape.parameters / shape.ways),
    }[placement]


def free_bytes(placement: str, shape: Shape, job: Job, rates: Rates, gpus: int) -> float:
    """What is left on each GPU for a batch.

    Raises:
        ValueError: One response does not fit beside the networks.
    """
    held = need(placement, shape, rates)
    row = (job.prompt + job.limit) * (
        shape.cache_numbers * rates.number_bytes / shape.ways
        if placement == "writer"
        else ACTIVATION_BYTES * shape.layers * shape.hidden
    )
    free = rates.gpu_bytes - rates.working_bytes - held.on(gpus)
    if free >= row:
        return free
    room = rates.gpu_bytes - rates.working_bytes - row - held.whole
    mend = (
        f"share it over {math.ceil(held.shared / room)} GPUs or more"
        if room > 0 and held.shared
        else "no number of GPUs mends that; give generation GPUs of its own and share all networks"
    )
    raise ValueError(
        f"{shape.name} as {placement} on {gpus} GPUs holds {held.on(gpus) / 1e9:.0f} GB on each, needs "
        f"{(rates.working_bytes + row) / 1e9:.0f} GB to work, and a GPU has {rates.gpu_bytes / 1e9:.0f} GB: {mend}."
    )


def fewest(placement: str, shape: Shape, rates: Rates, most: int = 1024) -> int | None:
    """GPUs that it takes for TL;DR; None if no number up to `most` does."""
    for gpus in range(1, most + 1):
        with contextlib.suppress(ValueError):
            free_bytes(placement, shape, TLDR, rates, gpus * (shape.ways if placement == "writer" else 1))
            return gpus
    return None


def memory(rates: Rates) -> list[dict[str, Any]]:
    """What each placement of each model holds, and the fewest GPUs it takes."""
    rows = []
    for shape in SHAPES:
        for placement in ("ddp", "fsdp2", "trainers", "writer"):
            held, number = need(placement, shape, rates), fewest(placement, shape, rates)
            gpus = number and number * (shape.ways if placement == "writer" else 1)
            rows.append({"shape": shape.name, "placement": placement, **asdict(held), "fewest": gpus})
    return rows
