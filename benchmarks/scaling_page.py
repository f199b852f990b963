"""Writes docs/scaling.md and its figures from docs/scaling.json, which `benchmarks.scaling` makes."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.cluster import H100, TRAINED_BYTES
from benchmarks.scaling import RUN_EPISODES
from benchmarks.scaling_check import typical_error
from benchmarks.scaling_figures import draw_check, draw_parts, draw_speed, rate, run_of

TEMPLATE = Path(__file__).with_name("scaling_page.txt")
TOLD = (1, 8, 64, 512, 1000)
"""GPUs in the tables."""
LABELS, LABELERS, MINUTES = 64_832, 40, 3.0
"""Comparisons of Stiennon et al. 2020's release; labelers of Ouyang et al. 2022; minutes for each, an assumption."""


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(heads), None, *(list(row) for row in rows)]
    width = len(lines[0] or [])
    return "\n".join("|" + "---|" * width if line is None else f"| {' | '.join(map(str, line))} |" for line in lines)


def rates_table(result: dict[str, Any]) -> str:
    """What is taken of a GPU."""
    heads = ["", *(rates["name"] for rates in result["rates"])]

    def line(label: str, name: str, unit: float) -> list[str]:
        peak = H100[name]
        return [label, *(f"{one[name] / unit:.3g} ({one[name] / peak:.0%})" for one in result["rates"])]

    rows = [
        line("training, reading, prefill [TFLOP/s]", "compute", 1e12),
        line("memory in decoding [TB/s]", "memory", 1e12),
        line("wires in a machine, one way [GB/s]", "inside", 1e9),
        line("wires of a machine to others [GB/s]", "between", 1e9),
        ["a layer's start, a token [us]", *(f"{one['token_layer_s'] * 1e6:.0f}" for one in result["rates"])],
        ["messages that hide behind computing", *(f"{one['hidden_share']:.0%}" for one in result["rates"])],
        ["a hop [us]", *(f"{one['hop_s'] * 1e6:.0f}" for one in result["rates"])],
    ]
    return _table(heads, rows)


def check_table(result: dict[str, Any]) -> str:
    """Predicted beside measured."""
    heads = ["one step, as it grows", "", "measured [s]", "predicted [s]", "predicted / measured"]
    return _table(
        heads,
        (
            [row["what"], f"{row['value']:g}", f"{row['measured']:.2f}", f"{row['predicted']:.2f}"]
            + [f"{row['predicted'] / row['measured']:.2f}"]
            for row in result["check"]
        ),
    )


def memory_table(result: dict[str, Any]) -> str:
    """What fits where."""
    rows = [
        [
            row["shape"],
            row["placement"],
            f"{row['whole'] / 1e9:.0f}",
            f"{row['shared'] / 1e9:.0f}",
            row["fewest"] or "-",
        ]
        for row in result["memory"]
    ]
    return _table(["model", "placement", "on every GPU [GB]", "shared by all [GB]", "fewest GPUs"], rows)


def steps_table(result: dict[str, Any], job: str, a_gpu: int) -> str:
    """Both placements at the GPUs that are told."""
    rows = []
    for run in _runs(result, job=job, a_gpu=a_gpu):
        for step in run["steps"]:
            if step["gpus"] in TOLD:
                rows.append([run["shape"], _placed(run, step), step["gpus"], *_told(run, step)])
    heads = ["model", "placement", "GPUs", "seconds a step", "episodes a second", "efficiency", "where the time goes"]
    return _table(heads, rows)


def _runs(result: dict[str, Any], **asked: Any) -> list[dict[str, Any]]:
    middle = result["rates"][len(result["rates"]) // 2]["name"]
    asked = {"rates": middle} | asked
    return [run for run in result["runs"] if all(run[name] == value for name, value in asked.items())]


def _placed(run: dict[str, Any], step: dict[str, Any]) -> str:
    if run["placement"] == "apart":
        return f"apart, {step['writers']} write"
    return f"in turns, {step['placement'].upper()}"


def _told(run: dict[str, Any], step: dict[str, Any]) -> list[str]:
    best = max(rate(one) / one["gpus"] for one in run["steps"])
    total = step["gpus"] * step["seconds"]
    largest = sorted(step["parts"].items(), key=lambda part: -part[1])[:3]
    shares = ", ".join(f"{name} {spent / total:.0%}" for name, spent in largest if spent > 0.005 * total)
    return [_number(step["seconds"]), _number(rate(step)), f"{rate(step) / step['gpus'] / best:.0%}", shares]


def _number(value: float) -> str:
    """Three digits.

    Example:
        >>> _number(16559.0), _number(2.345)
        ('16,600', '2.35')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def saturation_table(result: dict[str, Any]) -> str:
    """For each model and placement, what saturates and at how many GPUs, by every guess."""
    cases = dict.fromkeys((run["job"], run["a_gpu"], run["shape"], run["placement"]) for run in result["runs"])
    rows = []
    for job, a_gpu, shape, placement in cases:
        asked = {"job": job, "a_gpu": a_gpu, "shape": shape, "placement": placement}
        found = [_runs(result, rates=rates["name"], **asked) for rates in result["rates"]]
        cells = [_saturation(runs[0]) if runs else "" for runs in found]
        if any(run["steps"] for runs in found for run in runs):
            rows.append([job, f"{a_gpu} a GPU" if a_gpu else "512", shape, placement, *cells])
    return _table(["lengths", "episodes", "model", "placement", *(one["name"] for one in result["rates"])], rows)


def _saturation(run: dict[str, Any]) -> str:
    if not run["steps"]:
        return "-"
    parts = [f"{name} {gpus}" for name, gpus in run["saturates"].items()]
    return ", then ".join(parts[:2]) if parts else f"nothing up to {run['steps'][-1]['gpus']}"


def _ever(result: dict[str, Any], part: str) -> str:
    gpus = [run["saturates"][part] for run in result["runs"] if part in run["saturates"]]
    return f"saturates at {min(gpus):,} GPUs at the earliest" if gpus else "never saturates"


def best_steps(result: dict[str, Any], shape: str) -> dict[int, dict[str, Any]]:
    """The faster placement's step of TL;DR, 512 episodes, at each number of GPUs."""
    steps: dict[int, dict[str, Any]] = {}
    for run in _runs(result, job="TL;DR", a_gpu=0, shape=shape):
        for step in run["steps"]:
            known = steps.get(step["gpus"])
            steps[step["gpus"]] = step if known is None or rate(step) > rate(known) else known
    return dict(sorted(steps.items()))


def label_hours(labelers: float = LABELERS, minutes: float = MINUTES) -> float:
    """Hours in which people make the comparisons of one round.

    Example:
        >>> round(label_hours(40, 3.0))
        81
    """
    return LABELS * minutes / 60 / labelers


def run_hours(result: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Of a whole PPO run of each model, by GPUs."""
    shapes = dict.fromkeys(run["shape"] for run in result["runs"])
    return {
        shape: {gpus: RUN_EPISODES / rate(step) / 3600 for gpus, step in best_steps(result, shape).items()}
        for shape in shapes
    }


def labels_last(result: dict[str, Any]) -> dict[str, int]:
    """Fewest GPUs on which PPO is faster than the labels before it."""
    return {
        shape: next(gpus for gpus, taken in hours.items() if taken < label_hours())
        for shape, hours in run_hours(result).items()
    }


def labels_table(result: dict[str, Any]) -> str:
    """A PPO run beside the round of labels before it."""
    rows, first = [], labels_last(result)
    for shape, hours in run_hours(result).items():
        told = [f"{hours[gpus]:.3g}" if gpus in hours else "-" for gpus in TOLD]
        fastest = min(hours.values())
        rows.append([shape, *told, first[shape], f"{LABELERS * label_hours() / fastest:,.0f}"])
    heads = [
        "model",
        *(f"{gpus} GPU{'s' * (gpus > 1)} [h]" for gpus in TOLD),
        "labels last longer from",
        "labelers to keep up",
    ]
    return _table(heads, rows)


def sync_table(result: dict[str, Any]) -> str:
    """Sending the new weights."""
    heads = ["model", "ring of 64 [s]", "ring of 1000 [s]", "of which hops [s]", "one machine to each [s]"]
    names = ("small_ring_s", "ring_s", "hops_s", "one_by_one_s")
    return _table(heads, ([row["shape"], *(f"{row[name]:.2g}" for name in names)] for row in result["sync"]))


def refusals(result: dict[str, Any]) -> str:
    """What the simulation says to placements that do not fit: of each model in turns, the last."""
    lines = []
    for run in _runs(result, job="TL;DR", a_gpu=0, placement="in turns"):
        if run["refused"]:
            lines.append(f"- {list(run['refused'].values())[-1]}")
    return "\n".join(lines)


def numbers(result: dict[str, Any]) -> dict[str, str]:
    """What the sentences of the page say in figures."""
    small, middle = best_steps(result, "1B"), best_steps(result, "7B")
    turns, apart = (run_of(result, shape="7B", placement=name, a_gpu=0)["steps"] for name in ("in turns", "apart"))
    grown = run_of(result, shape="7B", placement="apart", a_gpu=64)["steps"]
    most = max(middle.values(), key=rate)
    at = {gpus: next(step for step in grown if step["gpus"] == gpus) for gpus in (64, 1000)}
    off = [row["predicted"] / row["measured"] for row in result["check"] if row["what"] != "hidden size"]
    days = 64 * RUN_EPISODES / rate(middle[64]) / 86400
    gradients = [
        next(step["parts"]["gradients"] / step["gpus"] / step["seconds"] for step in steps if step["gpus"] == 1000)
        for steps in (turns, apart)
    ]
    long = run_of(result, shape="7B", placement="apart", a_gpu=0, job="long answers")
    runs, one = TOLD[-1] // 64, next(step for step in apart if step["gpus"] == TOLD[-1])
    sixty_four = [next(step for step in steps if step["gpus"] == 64) for steps in (turns, apart)]
    return {
        "first_7b": _saturation(run_of(result, shape="7B", placement="apart", a_gpu=0)),
        "first_long": _saturation(long),
        "sync": _ever(result, "weight sync"),
        "label_gpus": ", ".join(f"{gpus} ({shape})" for shape, gpus in labels_last(result).items()) + " GPUs",
        "reading": _ever(result, "reading"),
        "low_1b": _saturation(
            run_of(result, shape="1B", placement="in turns", a_gpu=0, rates=result["rates"][0]["name"])
        ),
        "high_1b": _saturation(
            run_of(result, shape="1B", placement="in turns", a_gpu=0, rates=result["rates"][-1]["name"])
        ),
        "many_runs": str(runs),
        "many_rate": _number(runs * rate(middle[64])),
        "one_rate": _number(rate(one)),
        "apart_gain": f"{rate(sixty_four[1]) / rate(sixty_four[0]) - 1:.0%}",
        "trained": str(TRAINED_BYTES),
        "error": f"{typical_error(result['check']):.0%}",
        "off": f"{min(off):.2f} to {max(off):.2f}",
        "knee_1b": f"{max(small.values(), key=rate)['gpus']}",
        "knee_7b": f"{most['gpus']}",
        "times_7b": f"{rate(most) / rate(middle[64]):.1f}",
        "grown_7b": f"{rate(at[1000]) / rate(at[64]) / (1000 / 64):.0%}",
        "days_7b": f"{days:.0f}",
        "gradients_turns": f"{gradients[0]:.0%}",
        "gradients_apart": f"{gradients[1]:.0%}",
        "start_us": f"{result['shares']['token_layer_s'] * 1e6:.0f}",
        "ppo_share": f"{result['shares']['ppo_share']:.0%}",
        "decode_share": f"{result['shares']['decode_share']:.0%}",
        "label_hours": f"{label_hours():.0f}",
        "label_range": f"{label_hours(minutes=1):.0f} to {label_hours(minutes=6):.0f}",
        "labels": f"{LABELS:,}",
        "labelers": str(LABELERS),
        "minutes": f"{MINUTES:g}",
    }


def page(result: dict[str, Any]) -> str:
    """The text: `scaling_page.txt` with its {names} filled in."""
    filled = numbers(result) | {
        "rates": rates_table(result),
        "check": check_table(result),
        "memory": memory_table(result),
        "refusals": refusals(result),
        "fixed": steps_table(result, "TL;DR", 0),
        "long": steps_table(result, "long answers", 0),
        "saturation": saturation_table(result),
        "sync_table": sync_table(result),
        "label_table": labels_table(result),
    }
    return re.sub(r"\{(\w+)\}", lambda name: filled[name[1]], TEMPLATE.read_text(encoding="utf-8"))


def write(result: dict[str, Any], folder: Path) -> None:
    """The page and its figures."""
    figures = folder / "figures" / "scaling"
    figures.mkdir(parents=True, exist_ok=True)
    draw_speed(result, figures / "speed.png")
    draw_parts(result, figures / "parts.png")
    draw_check(result, figures / "check.png")
    (folder / "scaling.md").write_text(page(result), encoding="utf-8")
