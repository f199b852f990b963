"""Simulates RLHF with PPO on N GPUs: seconds a step, where they go, and what stops growing with N first.

Two placements: all in turns on the same GPUs, as `rlhf-lab launch` does, and generation on GPUs of its own, one step
behind. Nothing here is measured; `benchmarks.scaling_check` holds the same equations against what was.

Example: python -m benchmarks.scaling --out docs/scaling.json
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cluster import (
    ACTIVATION_BYTES,
    LONG,
    SHAPES,
    TLDR,
    UPDATE_BYTES,
    Job,
    Rates,
    Shape,
    all_gather_s,
    all_reduce_s,
    rates_of,
    settings,
    writing,
)
from benchmarks.fitting import free_bytes, memory

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000)
EPISODES, A_GPU = 512, 64
"""Of a step: as in Huang et al. 2024, or so many for each GPU, which is the same at eight."""
RUN_EPISODES = 1_000_000
"""Of Stiennon et al. 2020 and Huang et al. 2024."""
LOST = 0.1
"""A part has saturated when this share of all GPU time is what it costs beyond its cost on the fewest GPUs."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: how long, and the GPU-seconds of each part, which together are all GPUs' time."""

    placement: str
    gpus: int
    writers: int
    """GPUs that generate; all, if in turns."""
    episodes: int
    seconds: float
    parts: dict[str, float]

    @property
    def rate(self) -> float:
        """Episodes a second."""
        return self.episodes / self.seconds


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Seconds in which the GPUs that train do their part of a step."""

    reading: float
    training: float
    update: float
    """AdamW's own reading and writing of weights and moments."""
    gradients: float
    """Messages that no computation hides: gradients, and weights that are gathered."""


def learning(shape: Shape, job: Job, rates: Rates, gpus: int, episodes: int, length: float, placement: str) -> Learning:
    """Reading by policy, reference, critic and reward model, then updates of policy and critic.

    Args:
        gpus: That learn; each does the same number of rows, so that some have none if there are more GPUs than rows.
        length: Of a response, mean.
        placement: ddp, fsdp2 or trainers.
    """
    work = shape.work(job.prompt, length, job.responses)
    updates, rows, updated = job.epochs * job.updates, _each(episodes, gpus), _each(episodes, gpus * job.updates)
    written = length * job.responses
    language, values = work.forward(written, written), work.forward(written, 0)
    row_bytes = (job.prompt / job.responses + job.limit) * ACTIVATION_BYTES * shape.layers * shape.hidden
    fit = int(free_bytes(placement, shape, job, rates, gpus) // row_bytes)
    reads, passes = math.ceil(rows / fit), math.ceil(updated / fit)
    # However few the tokens, a pass reads all weights; a backward reads them twice.
    once = shape.read_weights * rates.number_bytes / rates.memory
    read_flops = (2 * language + values + work.forward(job.responses, 0)) / job.responses
    reading = max(rows * read_flops / rates.compute, 4 * reads * once)
    trained_flops = 3 * (language + values) / job.responses
    training = updates * max(updated * trained_flops / rates.compute, 6 * passes * once)
    holders = 1 if placement == "ddp" else gpus
    update = updates * 2 * shape.parameters * UPDATE_BYTES / holders / rates.memory
    sent = updates * _update_messages_s(shape, rates, gpus, passes, placement)
    if placement == "trainers":
        sent += 4 * reads * all_gather_s(rates, rates.number_bytes * shape.parameters, gpus, shape.layers)
    hidden = rates.hidden_share * (training + (reading if placement == "trainers" else 0.0))
    return Learning(reading=reading, training=training, update=update, gradients=max(0.0, sent - hidden))


def _each(episodes: int, gpus: int) -> int:
    return math.ceil(episodes / gpus)


def _update_messages_s(shape: Shape, rates: Rates, gpus: int, passes: int, placement: str) -> float:
    """Of policy and critic: gradients summed (ddp), or weights gathered twice a pass and gradients dealt out."""
    gradients = 4 * shape.parameters
    if placement == "ddp":
        return 2 * all_reduce_s(rates, gradients, gpus, shape.layers)
    weights = all_gather_s(rates, rates.number_bytes * shape.parameters, gpus, shape.layers)
    return 2 * (2 * passes * weights + all_gather_s(rates, gradients, gpus, shape.layers))


def in_turns(shape: Shape, job: Job, rates: Rates, gpus: int, episodes: int, seed: int = 0) -> Step:
    """All GPUs generate, then read, then train: DDP where it fits, else FSDP2.

    Raises:
        ValueError: The networks do not fit.
    """
    try:
        placement, free = "ddp", free_bytes("ddp", shape, job, rates, gpus)
    except ValueError:
        placement, free = "fsdp2", free_bytes("fsdp2", shape, job, rates, gpus)
    alone = replace(shape, ways=1)
    lengths = job.lengths(gpus, _each(episodes, gpus), seed)
    wrote = writing(alone, job, rates, lengths, free)
    learnt = learning(shape, job, rates, gpus, episodes, float(lengths.mean()), placement)
    # Policy and critic, once a rollout.
    gathered = 2 * all_gather_s(rates, rates.number_bytes * shape.parameters, gpus, shape.layers)
    parts = {
        "generation": float(wrote.mean()),
        "waiting": float(wrote.max() - wrote.mean()),
        **asdict(learnt),
        "weight sync": gathered if placement == "fsdp2" else 0.0,
    }
    spent = {name: gpus * seconds for name, seconds in parts.items()}
    seconds = sum(parts.values())
    return Step(placement=placement, gpus=gpus, writers=gpus, episodes=episodes, seconds=seconds, parts=spent)


def apart(shape: Shape, job: Job, rates: Rates, gpus: int, episodes: int, seed: int = 0) -> Step:
    """Some GPUs write the next step's responses while the others learn from the last; the fastest division of them.

    Raises:
        ValueError: The networks do not fit, however the GPUs are divided.
    """
    steps = []
    refused = (
        f"{shape.name} apart needs more than {shape.ways} GPUs: {shape.ways} for a copy that writes, and trainers."
    )
    for writers in _divisions(gpus, shape.ways):
        try:
            steps.append(_divided(shape, job, rates, gpus, writers, episodes, seed))
        except ValueError as error:
            refused = str(error)
            break  # More that write leave fewer that train.
    if not steps:
        raise ValueError(refused)
    return min(steps, key=lambda step: step.seconds)


def _divisions(gpus: int, ways: int) -> Iterable[int]:
    unit = ways * max(1, gpus // (24 * ways))
    return range(unit, gpus, unit)


def _divided(shape: Shape, job: Job, rates: Rates, gpus: int, writers: int, episodes: int, seed: int) -> Step:
    copies, trainers = writers // shape.ways, gpus - writers
    lengths = job.lengths(copies, _each(episodes, copies), seed)
    wrote = writing(shape, job, rates, lengths, free_bytes("writer", shape, job, rates, writers))
    learnt = learning(shape, job, rates, trainers, episodes, float(lengths.mean()), "trainers")
    sync = all_gather_s(rates, rates.number_bytes * shape.parameters, gpus, shape.layers)
    learns = sum(asdict(learnt).values())
    slower = max(float(wrote.max()), learns)
    spent = {
        "generation": writers * float(wrote.mean()),
        "waiting": writers * float(wrote.max() - wrote.mean()),
        **{name: trainers * seconds for name, seconds in asdict(learnt).items()},
        "weight sync": gpus * sync,
        "idle": writers * (slower - float(wrote.max())) + trainers * (slower - learns),
    }
    return Step(placement="apart", gpus=gpus, writers=writers, episodes=episodes, seconds=slower + sync, parts=spent)


def growing(shape: Shape, job: Job, rates: Rates, placement: str, a_gpu: int = 0) -> dict[str, Any]:
    """Steps on more and more GPUs, and what saturates.

    Args:
        placement: in turns, or apart.
        a_gpu: Episodes for each GPU; 0 keeps the batch as it is.
    """
    place = {"in turns": in_turns, "apart": apart}[placement]
    steps, refused = [], {}
    for gpus in GPUS:
        try:
            steps.append(place(shape, job, rates, gpus, a_gpu * gpus or EPISODES))
        except ValueError as error:
            refused[gpus] = str(error)
    return {
        "shape": shape.name,
        "job": job.name,
        "rates": rates.name,
        "placement": placement,
        "a_gpu": a_gpu,
        "steps": [asdict(step) for step in steps],
        "refused": refused,
        "saturates": saturates(steps),
    }


def saturates(steps: Sequence[Step]) -> dict[str, int]:
    """GPUs from which on a part is saturated; only parts that get there, the first first."""
    found: dict[str, int] = {}
    for step in steps:
        for name, spent in step.parts.items():
            lost = spent - steps[0].parts[name] * step.episodes / steps[0].episodes
            # Who is idle waits for the others: it is they who have saturated.
            if name != "idle" and lost > LOST * step.seconds * step.gpus:
                found.setdefault(name, step.gpus)
    return found


def sync(rates: Rates, gpus: int = 1000) -> list[dict[str, Any]]:
    """Until all have the new weights: around a ring, of which hops, and from one machine to each of the others."""
    rows = []
    for shape in SHAPES:
        size = rates.number_bytes * shape.parameters
        machines = gpus // rates.machine
        rows.append(
            {
                "shape": shape.name,
                "gpus": gpus,
                "ring_s": all_gather_s(rates, size, gpus, shape.layers),
                "hops_s": all_gather_s(rates, 0.0, gpus, shape.layers),
                "small_ring_s": all_gather_s(rates, size, 64, shape.layers),
                "one_by_one_s": (machines - 1) * size / rates.between,
            }
        )
    return rows


def simulated(performance: Mapping[str, Any], rates: Sequence[Rates] = ()) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        performance: What `benchmarks.run` measured.
        rates: Of GPUs; by default three guesses. The middle one is told most about.
    """
    from benchmarks.scaling_check import checked, measured_shares

    shares = measured_shares(performance)
    rates = rates or settings(shares)
    middle = rates[len(rates) // 2]
    runs = [
        growing(shape, job, one, placement, a_gpu)
        for one in rates
        for job in ((TLDR, LONG) if one is middle else (TLDR,))
        for shape in SHAPES
        for placement in ("in turns", "apart")
        for a_gpu in (0, A_GPU)
    ]
    return {
        "shares": shares,
        "rates": [asdict(one) for one in rates],
        "jobs": [asdict(job) for job in (TLDR, LONG)],
        "memory": memory(middle),
        "sync": sync(middle),
        "check": checked(performance),
        "runs": runs,
    }


def rounded(value: Any) -> Any:
    """Four digits of every number: a simulation knows no more, and less differs between machines."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {str(name): rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Simulate, and write the numbers and the page."""
    from benchmarks.scaling_page import write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.json"))
    parser.add_argument("--performance", type=Path, default=Path("docs/performance.json"), help="what was measured")
    parser.add_argument("--rates", type=Path, help="a JSON file of measured GPU rates, in place of the three guesses")
    options = parser.parse_args()
    performance = json.loads(options.performance.read_text(encoding="utf-8"))
    result = rounded(simulated(performance, (rates_of(options.rates),) if options.rates else ()))
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write(result, options.out.parent)


if __name__ == "__main__":
    main()
