"""Measures every stage beside its peer, and how ours grows; writes the figures that `benchmarks.report` shows.

Example: python -m benchmarks.run --out docs/performance.json --pairs 5
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from benchmarks.limits import Work, bandwidth, product_rate
from benchmarks.pairs import PYTHONS, Peer, measure, median
from benchmarks.workload import PYTHIA, SHAPES, Settings, rows
from rlhf_lab import load_base

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRAINERS = Peer("TRL", "trl", "trl_trainers.py")
TRL_PPO = Peer("TRL 1.12.0", "ppo", "trl_ppo.py")
TRANSFORMERS = Peer("Transformers", "trl", "transformers_generate.py")
PPO = Settings(stage="ppo", batch_size=64, num_steps=3, max_response_tokens=48)
"""Two epochs of two minibatches of 32 episodes."""
COMPARED: Sequence[tuple[str, Settings, Peer]] = (
    ("SFT", Settings(stage="sft"), TRAINERS),
    ("reward model", Settings(stage="reward"), TRAINERS),
    ("DPO", Settings(stage="dpo"), TRAINERS),
    ("PPO, one response a prompt", PPO, TRL_PPO),
    ("PPO, four responses a prompt", replace(PPO, num_candidates=4), TRL_PPO),
    ("generation", Settings(stage="generate", batch_size=64, num_steps=3, max_response_tokens=48), TRANSFORMERS),
    (
        "best of 64",
        Settings(stage="best_of_n", batch_size=256, num_candidates=64, num_steps=3, max_response_tokens=48),
        TRANSFORMERS,
    ),
)
"""At the size that ships trained; `wide` is measured with the same settings and random weights."""
GROWING: dict[str, Sequence[tuple[float, dict[str, Any]]]] = {
    "episodes in a rollout": [(size, {"batch_size": size}) for size in (16, 32, 64, 128)],
    "responses a prompt": [(count, {"num_candidates": count}) for count in (1, 2, 4, 8)],
    "prompt tokens": [(high - 10, {"prompt_tokens": (high - 20, high)}) for high in (70, 90, 120)],
    "response tokens, at most": [(limit, {"max_response_tokens": limit}) for limit in (12, 24, 48)],
    "hidden size": [(SHAPES[size]["hidden_size"], {"size": size}) for size in ("small", "medium", "large")],
}


def element_of(settings: Settings, response_tokens: float) -> Work:
    """The tokens that a prompt or a pair of these settings has on average."""
    tokenizer, shape = load_base("laptop").tokenizer, SHAPES[settings.size]
    table = rows(settings, tokenizer)

    def mean(*names: str) -> float:
        lengths = [len(tokenizer(row[name])["input_ids"]) for row in table for name in names]  # type: ignore[arg-type]
        return sum(lengths) / len(lengths)

    if settings.stage in ("reward", "dpo"):
        response_tokens, count = mean("chosen", "rejected") + 1, 2
    else:
        count = settings.num_candidates
    if settings.stage == "sft":
        response_tokens = mean("completion") + 1
    return Work(
        hidden=shape["hidden_size"],
        intermediate=shape["intermediate_size"],
        layers=shape["num_hidden_layers"],
        vocabulary=shape.get("vocab_size", len(tokenizer)),
        is_gated=settings.size not in PYTHIA,
        prompt=mean("prompt"),
        response=response_tokens,
        responses=count,
    )


def compared(name: str, settings: Settings, peer: Peer, pairs: int) -> dict[str, Any]:
    """Both sides of one row of the table."""
    dtype: torch.dtype = getattr(torch, settings.dtype)
    limit = product_rate(dtype, SHAPES[settings.size]["hidden_size"], DEVICE)
    sides = measure(settings, peer, pairs)
    ours, theirs = sides["ours"], sides[peer.name]
    element = element_of(settings, ours[0].get("response_tokens", 0.0))
    elements = settings.num_steps * settings.batch_size
    prompts, epochs = elements // settings.num_candidates, settings.num_epochs
    least = element.seconds(
        settings.stage,
        prompts=prompts,
        batches=settings.num_steps,
        num_epochs=epochs,
        products=limit,
        bandwidth=bandwidth(DEVICE),
        size=dtype.itemsize,
    )
    return {
        "name": name,
        "settings": asdict(settings),
        "peer": peer.name,
        "elements": elements,
        "prompt_tokens": element.prompt,
        "response_tokens": element.response,
        "flops": element.flops(settings.stage, epochs) * prompts,
        "limit": limit,
        "ratios": [their["seconds"] / our["seconds"] for our, their in zip(ours, theirs, strict=True)],
        "ours": _summary(ours, least),
        "theirs": _summary(theirs, least),
    }


def _summary(runs: Sequence[dict[str, Any]], least: float) -> dict[str, Any]:
    seconds = median(runs, "seconds")
    kept = {name: runs[0][name] for name in ("losses", "score", "kl", "response_tokens") if name in runs[0]}
    memory = {"peak_mb": runs[0]["peak_mb"], "loaded_mb": runs[0]["loaded_mb"]}
    return {"seconds": seconds, "share": least / seconds, **memory, **kept}


def growing(settings: Settings, pairs: int) -> dict[str, float]:
    """Time and memory of a PPO step with these settings, ours alone."""
    runs = measure(settings, None, pairs)["ours"]
    seconds = median(runs, "seconds") / settings.num_steps
    return {"seconds": seconds, "peak_mb": runs[0]["peak_mb"], "loaded_mb": runs[0]["loaded_mb"]}


def machine() -> dict[str, Any]:
    """What it was measured on, and with."""
    packages = {name: version(name) for name in ("torch", "transformers", "accelerate", "rlhf-lab")}
    ask = "from importlib.metadata import version; print(version('trl'), version('transformers'), version('torch'))"
    peers = {
        name: subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
        for name, python in PYTHONS.items()
    }
    return {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "bandwidth": bandwidth(DEVICE),
        "packages": packages,
        "peers": peers,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure, and write after every row, so that an interrupted run, with --go-on, has lost one only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/performance.json"))
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["large", "wide"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--go-on", action="store_true", help="keep the rows that the file has, on the same machine")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "pairs": options.pairs, "compared": [], "growing": {}}
    if options.go_on and options.out.exists():
        result |= json.loads(options.out.read_text())
    done = {(row["name"], row["settings"]["size"]) for row in result["compared"]}
    grown = {(what, row["value"]) for what, rows in result["growing"].items() for row in rows}
    jobs = [
        (name, replace(settings, size=size, dtype=options.dtype, **_for(size, settings)), peer)
        for size in options.sizes
        for name, settings, peer in COMPARED
        if options.only in name and (name, size) not in done
    ]
    for name, settings, peer in tqdm(jobs, desc="beside peers"):
        result["compared"].append(compared(name, settings, peer, options.pairs))
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    points = [
        (what, value, changes)
        for what, series in GROWING.items()
        for value, changes in series
        if (what, value) not in grown and not options.only and "large" in options.sizes
    ]
    for what, value, changes in tqdm(points, desc="growth"):
        row = {"value": value, **growing(replace(PPO, num_steps=2, **changes), min(3, options.pairs))}
        result["growing"].setdefault(what, []).append(row)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _for(size: str, settings: Settings) -> dict[str, Any]:
    """Random weights end no response: they get the length that trained ones have, and there is less time."""
    is_writing = settings.stage in ("ppo", "generate", "best_of_n")
    if size in PYTHIA:
        # TL;DR's lengths; what is learnt from has two short summaries, about 55 tokens, and is never cut.
        shorter = {"max_response_tokens": 53} if is_writing else {"max_response_tokens": 128, "batch_size": 16}
        return {"num_steps": 2, "prompt_tokens": (482, 512), **shorter}
    if size != "wide":
        return {}
    return {"num_steps": max(1, settings.num_steps // 2)} | ({"max_response_tokens": 24} if is_writing else {})


if __name__ == "__main__":
    main()
