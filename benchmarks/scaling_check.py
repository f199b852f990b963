"""The step model of `benchmarks.scaling` held against what was measured: a PPO step on a CPU as it grows.

Two numbers are taken from other rows of docs/performance.json, at hidden size 128: the rate of SFT, and what a layer
costs for each token that is written. No PPO step is fitted.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.cluster import Job, Rates, Shape, writing
from benchmarks.scaling import in_turns
from benchmarks.workload import SHAPES as MEASURED_SHAPES
from rlhf_lab.experiments.pretraining import VOCABULARY
from rlhf_lab.models import MODEL_SIZES

CPU_BYTES = 1e12
"""So that memory, of which a CPU has enough, plays no part."""
ON_CPU = Job(name="growth", prompt=69, limit=48, median=21, spread=0.38, epochs=2, updates=2)
"""`benchmarks.run.PPO`; lengths as the trained policy's, of which the page keeps the mean only."""
CHANGED: Mapping[str, str] = {
    "responses a prompt": "responses",
    "prompt tokens": "prompt",
    "response tokens, at most": "limit",
}
"""Field of the job that a row of the growth table changes; the others change episodes or shape."""


def shape_of(size: str) -> Shape:
    """A network of the benchmarks."""
    shape = MEASURED_SHAPES[size]
    return Shape(
        name=size,
        hidden=shape["hidden_size"],
        intermediate=shape["intermediate_size"],
        layers=shape["num_hidden_layers"],
        vocabulary=VOCABULARY,
        is_tied=True,
    )


def _row(performance: Mapping[str, Any], name: str, size: str) -> dict[str, Any]:
    (row,) = (row for row in performance["compared"] if row["name"] == name and row["settings"]["size"] == size)
    return row


def cpu_rates(performance: Mapping[str, Any]) -> Rates:
    """The machine of docs/performance.json: SFT's rate, its bandwidth, and a layer's cost for each token written."""
    sft, wrote = _row(performance, "SFT", "large"), _row(performance, "generation", "large")
    plain = Rates(
        name="cpu",
        compute=sft["ours"]["share"] * sft["limit"],
        memory=performance["machine"]["bandwidth"],
        gpu_bytes=CPU_BYTES,
        number_bytes=4,
    )
    settings, shape = wrote["settings"], shape_of("large")
    lengths = ON_CPU.lengths(1, settings["batch_size"], settings["seed"])

    def seconds(rates: Rates) -> float:
        return float(writing(shape, ON_CPU, rates, lengths, CPU_BYTES)[0])

    without = seconds(plain)
    a_second_each = seconds(replace(plain, token_layer_s=1.0)) - without
    missing = wrote["ours"]["seconds"] / settings["num_steps"] - without
    return replace(plain, token_layer_s=missing / a_second_each)


def measured_shares(performance: Mapping[str, Any]) -> dict[str, float]:
    """Shares of the matrix-product rate at hidden size 256, and a layer's cost for each token."""
    return {
        "sft_share": _row(performance, "SFT", "wide")["ours"]["share"],
        "ppo_share": _row(performance, "PPO, one response a prompt", "wide")["ours"]["share"],
        "decode_share": _row(performance, "generation", "wide")["ours"]["share"],
        "token_layer_s": cpu_rates(performance).token_layer_s,
    }


def checked(performance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every measured step beside the predicted one."""
    rates, sizes = cpu_rates(performance), {shape["hidden_size"]: size for size, shape in MODEL_SIZES.items()}
    rows = []
    for what, series in performance["growing"].items():
        for row in series:
            value = row["value"]
            job = replace(ON_CPU, **{CHANGED[what]: value}) if what in CHANGED else ON_CPU
            shape = shape_of(sizes[value] if what == "hidden size" else "large")
            episodes = value if what == "episodes in a rollout" else 64
            predicted = in_turns(shape, job, rates, 1, episodes).seconds
            rows.append({"what": what, "value": value, "measured": row["seconds"], "predicted": predicted})
    return rows


def typical_error(rows: list[dict[str, Any]]) -> float:
    """By how much predictions are off: exp of the mean |log ratio|, less 1."""
    logs = [abs(math.log(row["predicted"] / row["measured"])) for row in rows]
    return math.exp(sum(logs) / len(logs)) - 1
