"""What a network of some shape needs, and how long GPUs and the wires between them take for it: equations, no plan.

Numbers are of three kinds, which are never mixed up: measured (docs/performance.json), a vendor's (`H100`), assumed
(`SETTINGS`). A file of measured rates can stand in for the last two.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.limits import Work

TRAINED_BYTES = 16
"""A weight that is trained: float32 itself 4, its gradient 4, Adam's two moments 8."""
UPDATE_BYTES = 28
"""What AdamW reads (all 16) and writes (all but the gradient) for a weight."""
ACTIVATION_BYTES = 34
"""Kept for the backward: a token, layer and hidden unit. Korthikanti et al. 2022, arXiv:2205.05198, without attention's
matrix, which flash attention does not keep."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A network: `PYTHIA_1B`, say. Feed-forwards count as gated: one without a gate as one of two thirds its width."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    key_width: int = 0
    """Of all keys of a token together; 0 is `hidden`."""
    is_tied: bool = False
    """Whether the logits' matrix is that of the embeddings."""
    ways: int = 1
    """GPUs that one generating copy is spread over, by tensor parallelism."""

    def work(self, prompt: float, response: float, responses: int = 1) -> Work:
        """One prompt with its responses."""
        return Work(
            hidden=self.hidden,
            intermediate=self.intermediate,
            layers=self.layers,
            vocabulary=self.vocabulary,
            key_width=self.key_width,
            prompt=prompt,
            response=response,
            responses=responses,
        )

    @property
    def read_weights(self) -> int:
        """Weights that a token passes: all but the table of embeddings."""
        return self.layers * sum(self.work(0, 0).weights) + self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.read_weights + (0 if self.is_tied else self.vocabulary * self.hidden)

    @property
    def cache_numbers(self) -> int:
        """Keys and values of a token."""
        return 2 * self.layers * (self.key_width or self.hidden)


PYTHIA_1B = Shape(name="1B", hidden=2048, intermediate=8 * 2048 // 3, layers=16, vocabulary=50_304)
PYTHIA_7B = Shape(name="7B", hidden=4096, intermediate=8 * 4096 // 3, layers=32, vocabulary=50_432)
LLAMA_70B = Shape(name="70B", hidden=8192, intermediate=28_672, layers=80, vocabulary=32_000, key_width=1024, ways=8)
SHAPES = (PYTHIA_1B, PYTHIA_7B, LLAMA_70B)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one GPU and its wires do; a peak times the share of it that is reached."""

    name: str
    compute: float
    """FLOP/s when training, reading and prefilling."""
    memory: float
    """Bytes/s when decoding."""
    inside: float = math.inf
    """Bytes/s that a GPU sends to the others of its machine."""
    between: float = math.inf
    """Bytes/s that a machine, with all its adapters, sends to others."""
    hop_s: float = 0.0
    """Seconds from one GPU to the next, however little is sent."""
    token_layer_s: float = 0.0
    """Seconds that a layer takes to read one token of each response, however few: the cost of starting its work."""
    hidden_share: float = 0.0
    """Share of a computation's time in which messages can travel behind it."""
    gpu_bytes: float = 80e9
    working_bytes: float = 6e9
    """Of those, for buffers, one layer's weights gathered, and what the libraries hold."""
    machine: int = 8
    """GPUs in one."""
    number_bytes: int = 2
    """Of a weight that is only read: bfloat16."""

    def wire(self, gpus: int) -> float:
        """Bytes/s of a ring over so many GPUs: the slower of the wires in a machine and those between machines."""
        return self.inside if gpus <= self.machine else min(self.inside, self.between)


H100 = {"compute": 989e12, "memory": 3.35e12, "inside": 450e9, "between": 8 * 50e9}
"""Peaks: dense bfloat16; HBM3; NVLink, 900 GB/s in both directions; eight adapters of 400 Gb/s. NVIDIA's data sheets of
the H100 SXM and of the DGX H100."""


def settings(measured: dict[str, float]) -> tuple[Rates, Rates, Rates]:
    """Three guesses at what an H100 reaches, from the shares that were measured on a CPU.

    Args:
        measured: `ppo_share` and `decode_share` of the matrix-product rate, and `token_layer_s`.
    """
    shared = {"hop_s": 2e-6}
    return (
        _reached("low", 0.2, 0.3, 0.5, token_layer_s=measured["token_layer_s"], hidden_share=0.0, **shared),
        _reached("middle", 0.45, 0.6, 0.8, token_layer_s=20e-6, hidden_share=0.5, **shared),
        _reached(
            "high",
            measured["ppo_share"],
            max(0.6, measured["decode_share"]),
            0.9,
            token_layer_s=10e-6,
            hidden_share=0.8,
            **shared,
        ),
    )


def _reached(name: str, compute: float, memory: float, wires: float, **more: float) -> Rates:
    peak = H100
    return Rates(
        name=name,
        compute=compute * peak["compute"],
        memory=memory * peak["memory"],
        inside=wires * peak["inside"],
        between=wires * peak["between"],
        **more,  # type: ignore[arg-type]
    )


def rates_of(path: Path) -> Rates:
    """Rates from a JSON file with the fields of `Rates`: measured ones, where there are GPUs."""
    return Rates(**json.loads(path.read_text(encoding="utf-8")))


def all_gather_s(rates: Rates, size: float, gpus: int, pieces: int = 1) -> float:
    """Until every GPU has `size` bytes of which each had its part; a ring, as is a reduce-scatter, which takes as long.

    pieces (n - 1) hop + (n - 1) / n size / wire
    """
    return pieces * (gpus - 1) * rates.hop_s + (gpus - 1) / gpus * size / rates.wire(gpus)


def all_reduce_s(rates: Rates, size: float, gpus: int, pieces: int = 1) -> float:
    """Until every GPU has the sum of `size` bytes: a reduce-scatter and an all-gather, along trees where it is hops.

    pieces 2 ceil(log2 n) hop + 2 (n - 1) / n size / wire
    """
    hops = 2 * math.ceil(math.log2(gpus))
    return pieces * hops * rates.hop_s + 2 * (gpus - 1) / gpus * size / rates.wire(gpus)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of a step, and how long answers are."""

    name: str = "TL;DR"
    prompt: float = 512
    limit: int = 53
    """Tokens of a response, at most."""
    median: float = 32
    spread: float = 0.38
    """Standard deviation of log length: that of our trained policy's summaries."""
    responses: int = 1
    """That share a prompt."""
    epochs: int = 4
    updates: int = 1
    """In an epoch."""

    def lengths(self, copies: int, rows: int, seed: int) -> np.ndarray:
        """Of the responses that each copy writes: (copies rows)."""
        rng = np.random.default_rng(seed)
        drawn = rng.lognormal(math.log(self.median), self.spread, (copies, rows))
        return np.clip(np.rint(drawn), 1, self.limit).astype(int)


TLDR = Job()
LONG = Job(name="long answers", limit=1024, median=400, spread=0.6, epochs=1)
"""Invented lengths; one epoch, as Ouyang et al. 2022."""


def token_step_s(shape: Shape, job: Job, rates: Rates, live: np.ndarray, written: np.ndarray) -> np.ndarray:
    """Seconds to read one token of each of `live` responses that have `written` tokens: weights and cache, or FLOPs.

    max(bytes / memory, FLOPs / compute) / ways + layers (start + 2 all-reduces among the ways)
    """
    context = job.prompt / job.responses + written
    numbers = shape.read_weights + live * context * shape.cache_numbers
    flops = live * (2 * shape.read_weights + 4 * shape.layers * shape.hidden * (job.prompt + written))
    busy = np.maximum(numbers * rates.number_bytes / rates.memory, flops / rates.compute) / shape.ways
    together = all_reduce_s(rates, live * shape.hidden * rates.number_bytes, shape.ways)  # type: ignore[arg-type]
    return np.where(live > 0, busy + shape.layers * (rates.token_layer_s + 2 * together), 0.0)


def writing(shape: Shape, job: Job, rates: Rates, lengths: np.ndarray, free_bytes: float) -> np.ndarray:
    """Seconds of each copy: it reads its prompts, and writes until its longest response ends; who has ended is free.

    Args:
        lengths: (copies rows).
        free_bytes: Of each GPU of a copy, for keys and values; more rows than it holds wait for the next wave.
    """
    copies, rows = lengths.shape
    row_bytes = (job.prompt / job.responses + job.limit) * shape.cache_numbers * rates.number_bytes
    fit = int(free_bytes * shape.ways // row_bytes)
    assert fit >= 1
    waves = -(-rows // fit)
    size = -(-rows // waves)
    padded = np.zeros((copies, waves * size), dtype=int)  # A response of no tokens is never read.
    padded[:, :rows] = lengths
    batches = np.arange(copies * waves)[:, None]
    slots = batches * (job.limit + 1) + padded.reshape(-1, size)
    ends = np.bincount(slots.ravel(), minlength=len(batches) * (job.limit + 1)).reshape(-1, job.limit + 1)
    live = size - ends.cumsum(1)[:, :-1]
    # A response's first token comes from its prompt, and its last is never read.
    each = token_step_s(shape, job, rates, live[:, 1:], np.arange(1, job.limit))
    decode = each.sum(1).reshape(copies, waves).sum(1)
    return prefill_s(shape, job, rates, rows) + decode


def prefill_s(shape: Shape, job: Job, rates: Rates, rows: int) -> float:
    """Seconds until one copy has read the prompts of so many responses."""
    prompts = rows / job.responses
    flops = prompts * shape.work(job.prompt, 0).forward(1, 1)
    size = prompts * job.prompt * shape.hidden * rates.number_bytes
    together = 2 * shape.layers * all_reduce_s(rates, size, shape.ways)
    return max(flops / rates.compute, shape.read_weights * rates.number_bytes / rates.memory) / shape.ways + together
