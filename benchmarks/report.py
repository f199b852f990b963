"""Writes docs/performance.md and its figures from what `benchmarks.run` measured.

Example: python -m benchmarks.report docs/performance.json
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

from benchmarks.workload import PYTHIA, SHAPES
from rlhf_lab.plots import POLICY, REFERENCE, STYLE

DEMANDED = {
    "SFT": 1.8,
    "reward model": 3.0,
    "DPO": 2.5,
    "PPO, one response a prompt": 2.0,
    "PPO, four responses a prompt": 4.0,
    "best of 64": 5.0,
}
"""The speed-up that the kit is to have at hidden sizes 128 to 256."""
ON_GPU = {"PPO, one response a prompt": 4.0}
"""At Pythia-1B's shape."""
SHARES = {"SFT": 0.45, "reward model": 0.45, "DPO": 0.45, "generation": 0.6}
"""There too: of the peak that the maker of the GPU states; in writing, of the least time, most of which is memory's."""
PEAKS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""FLOP/s in bf16, of dense products, in NVIDIA's datasheets."""
ELEMENTS = {"sft": "examples", "reward": "pairs", "dpo": "pairs", "ppo": "episodes", "generate": "texts"}

PAGE = """# Performance

Every number here is the output of

    make {target}

which measures each stage beside its peer, in turns, with both programs loaded, and writes `docs/{name}.json` and
this page from it. The same model, rows, batches, updates and precision on both sides; each side runs in an environment
of its own, with the same memory settings of glibc. A row is the median of {pairs} runs of each side; a ratio is taken
within a pair.

Machine: {device}, {threads} threads; matrix products {products}, copying {bandwidth:.0f} GB/s, both measured in
the same run. Python {python}, {packages}. Peers: TRL {trl} (with Transformers {trl_transformers}) and, for PPO, TRL
{ppo} (with Transformers {ppo_transformers}), the last that has it; Transformers' `generate`.

## Beside the peers

{figure}

{table}

- *a second*: training examples, pairs, episodes, or texts written.
- *share*: the time of the arithmetic that the stage cannot do without (real tokens, a shared prompt once, logits for
  targets, the last feed-forward where it is asked for) at the machine's rate of matrix products, over the time that it
  took. Padding counts as nothing. Where writing waits for the memory, it is the time of reading weights and cache.
- *memory*: the most that the process held, and in brackets how much of it came after models were loaded.
- *asked*: the ratio that the kit set itself.

{models}

{short}

{losses}
{growth}"""
MODELS = """At hidden size 128 the models are the trained ones that ship, so responses end where they end. At 256 the
weights are random: nearly every response has 24 tokens, and a peer that pads responses loses little by it."""
PYTHIA_MODELS = "The models have Pythia's shape and random weights: prompts of 482 to 512 tokens, responses of 53."
GROWTH = """
## How a PPO step grows

![Time and memory of a PPO step]({path})

One step: a rollout of 64 episodes unless the axis says otherwise, two epochs of two minibatches, hidden size 128. On
the right, what the process held above what it holds with its models loaded.
"""


def table(result: dict[str, Any]) -> str:
    """Rows of both sides, side by side."""
    lines = [
        "| hidden | stage | ours a second | peer a second | ratio | asked | our share | peer's share "
        "| our memory [MB] | peer's memory [MB] |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["compared"]:
        settings, ours, theirs = row["settings"], row["ours"], row["theirs"]
        unit = ELEMENTS.get(settings["stage"], "texts")
        rates = [row["elements"] / side["seconds"] for side in (ours, theirs)]
        memory = [f"{side['peak_mb']:.0f} ({side['peak_mb'] - side['loaded_mb']:.0f})" for side in (ours, theirs)]
        lines.append(
            f"| {_hidden(settings['size'])} | {row['name']} | {rates[0]:.0f} {unit} | {rates[1]:.0f} | "
            f"**{statistics.median(row['ratios']):.2f}** ({min(row['ratios']):.2f} to {max(row['ratios']):.2f}) | "
            f"{_asked(row) or ''} | {ours['share']:.0%} | {theirs['share']:.0%} | {memory[0]} | {memory[1]} |"
        )
    return "\n".join(lines)


def _hidden(size: str) -> int:
    return SHAPES[size]["hidden_size"]


def _asked(row: dict[str, Any]) -> float:
    """The speed-up; 0 where none was asked for."""
    size = row["settings"]["size"]
    demands = {"large": DEMANDED, "wide": DEMANDED, "pythia-1b": ON_GPU}.get(size, {})
    return demands.get(row["name"], 0.0)


def falls_short(result: dict[str, Any]) -> str:
    """Rows below what was asked, and which share of the machine it would take: a peer near the limit leaves no room."""
    lines = []
    for row in result["compared"]:
        ratio, asked = statistics.median(row["ratios"]), _asked(row)
        if ratio < asked:
            needed = row["ours"]["share"] * asked / ratio
            lines.append(
                f"- {row['name']}, hidden {_hidden(row['settings']['size'])}: {ratio:.2f} of {asked}; ours does "
                f"{row['ours']['share']:.0%} of what the machine can, and would need {needed:.0%}."
            )
        share, asked_share = _share_of_datasheet(row, result["machine"]["device"]), SHARES.get(row["name"], 0.0)
        if share is not None and share < asked_share:
            of = "time that it takes at least" if row["name"] == "generation" else "peak in the GPU's datasheet"
            lines.append(f"- {row['name']}: {share:.0%} of the {of}; {asked_share:.0%} were asked.")
    return "\n".join(["What falls short of what was asked:", "", *lines]) if lines else "Nothing falls short."


def _share_of_datasheet(row: dict[str, Any], device: str) -> float | None:
    """Of the stated peak for training, of the least time for writing; None where it is unknown or was not asked for."""
    if row["settings"]["size"] != "pythia-1b" or row["name"] not in SHARES:
        return None
    if row["name"] == "generation":
        return row["ours"]["share"]
    return row["flops"] / row["ours"]["seconds"] / PEAKS[device] if device in PEAKS else None


def losses(result: dict[str, Any]) -> str:
    """How far the two sides' losses are apart, where both train on the same batches."""
    lines = ["The two sides' losses, update by update, and their largest difference:", ""]
    for row in result["compared"]:
        ours, theirs = row["ours"].get("losses"), row["theirs"].get("losses")
        if not ours or not theirs or row["settings"]["stage"] == "ppo":
            continue
        worst = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        lines.append(
            f"- {row['name']}, hidden {_hidden(row['settings']['size'])}: {len(ours)} updates, from {ours[0]:.4f} to "
            f"{ours[-1]:.4f}; at most {worst:.1e} apart."
        )
    lines += ["", "PPO draws other texts on either side; they are alike in score and length:", ""]
    for row in result["compared"]:
        if row["settings"]["stage"] == "ppo":
            ours, theirs = row["ours"], row["theirs"]
            lines.append(
                f"- {row['name']}, hidden {_hidden(row['settings']['size'])}: mean score {ours['score']:.2f} and "
                f"{theirs['score']:.2f}; {ours['response_tokens']:.1f} tokens a response."
            )
    return "\n".join(lines)


def draw_ratios(result: dict[str, Any], path: Path) -> None:
    """Ratios with their range, and what was asked."""
    rows = list(reversed(result["compared"]))
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(rows) + 1.2))
    middles = np.array([statistics.median(row["ratios"]) for row in rows])
    low, high = (np.array([pick(row["ratios"]) for row in rows]) for pick in (min, max))
    axes.barh(range(len(rows)), middles, color=POLICY, xerr=[middles - low, high - middles], ecolor="#333333")
    mark = None
    for place, row in enumerate(rows):
        if asked := _asked(row):
            ends = [place - 0.42, place + 0.42]
            (mark,) = axes.plot([asked, asked], ends, color="#D55E00", lw=2.5, label="what was asked")
    axes.axvline(1, color=REFERENCE, lw=1)
    axes.set_yticks(range(len(rows)), [f"{row['name']} ({_hidden(row['settings']['size'])})" for row in rows])
    axes.set_title("How many times as fast as the peer (hidden size)", loc="left", fontweight="bold")
    axes.set_xlabel("time of the peer / our time", loc="left")
    if mark is not None:
        axes.legend(handles=[mark], loc="upper right", bbox_to_anchor=(1.0, -0.06))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_growth(growing: dict[str, Sequence[dict[str, float]]], path: Path) -> None:
    """Seconds on the left, memory on the right, one row of panels for each quantity that grows."""
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(len(growing), 2, figsize=(7.5, 2.1 * len(growing)), squeeze=False)
    for (left, right), (what, rows) in zip(panels, growing.items(), strict=True):
        values = [row["value"] for row in rows]
        memory = [row["peak_mb"] - row["loaded_mb"] for row in rows]
        for axes, numbers, label in ((left, [row["seconds"] for row in rows], "seconds"), (right, memory, "MB")):
            axes.plot(values, numbers, marker="o", color=POLICY)
            axes.set(xlabel=what, ylabel=label, ylim=(0, 1.12 * max(numbers)), xticks=values)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Time and memory of a PPO step", fontweight="bold")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write(result: dict[str, Any], path: Path) -> None:
    """The page, at `path`, and its figures."""
    machine, sizes = result["machine"], {row["settings"]["size"] for row in result["compared"]}
    figures = path.parent / "figures" / path.stem
    figures.mkdir(parents=True, exist_ok=True)
    draw_ratios(result, figures / "peers.png")
    growth = ""
    if result["growing"]:
        draw_growth(result["growing"], figures / "growth.png")
        growth = GROWTH.format(path=f"figures/{path.stem}/growth.png")
    limits = [row["limit"] for row in result["compared"]]
    unit, name = (1e12, "TFLOP/s") if max(limits) > 1e13 else (1e9, "GFLOP/s")
    trl, trl_transformers, _ = machine["peers"]["trl"]
    ppo, ppo_transformers, _ = machine["peers"]["ppo"]
    page = PAGE.format(
        target="bench-gpu" if sizes <= set(PYTHIA) else "bench",
        name=path.stem,
        pairs=result["pairs"],
        device=machine["device"],
        threads=machine["threads"],
        products=f"{min(limits) / unit:.0f} to {max(limits) / unit:.0f} {name}",
        bandwidth=machine["bandwidth"] / 1e9,
        python=machine["python"],
        packages=", ".join(f"{name} {number}" for name, number in machine["packages"].items()),
        trl=trl,
        trl_transformers=trl_transformers,
        ppo=ppo,
        ppo_transformers=ppo_transformers,
        figure=f"![Ratios](figures/{path.stem}/peers.png)",
        table=table(result),
        models=PYTHIA_MODELS if sizes <= set(PYTHIA) else MODELS,
        short=falls_short(result),
        losses=losses(result),
        growth=growth,
    )
    path.write_text(page, encoding="utf-8")


def main() -> None:
    """Read the figures, write the page beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, nargs="?", default=Path("docs/performance.json"))
    options = parser.parse_args()
    write(json.loads(options.figures.read_text(encoding="utf-8")), options.figures.with_suffix(".md"))


if __name__ == "__main__":
    main()
