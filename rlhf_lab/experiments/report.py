"""One self-contained page about a run: figures, examples and numbers, with the PNGs beside it."""

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, select_autoescape

from rlhf_lab import plots
from rlhf_lab.equations.overoptimization import fit_gao
from rlhf_lab.records import write_atomic

NAMES = {"pretrained": "pretrained", "supervised": "supervised", "human_feedback": "human feedback"}


def write_report(folder: Path, results: Mapping[str, Any], histories: Mapping[str, list[dict[str, Any]]]) -> Path:
    """Draw the figures and write `report.html` into `folder`; returns its path.

    Args:
        folder: The run's folder.
        results: What `results.json` holds.
        histories: Stage to its metrics.
    """
    figures = _figures(results, histories)
    images = {}
    for name, axes in figures.items():
        path = folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        plots.save(axes, path)
        images[name] = base64.b64encode(path.read_bytes()).decode()
    environment = Environment(autoescape=select_autoescape(default=True, default_for_string=True))
    template = environment.from_string((files("rlhf_lab.experiments") / "report.html.j2").read_text())
    page = template.render(results=results, images=images, names=NAMES, post=_post)
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def _post(prompt: str) -> dict[str, str]:
    """The parts of a query that a reader wants to see."""
    head, _, post = prompt.partition("\n\nPOST: ")
    return {
        "head": head.replace("SUBREDDIT: ", "").replace("\n\nTITLE: ", " · "),
        "body": post.removesuffix("\n\nTL;DR:"),
    }


def _figures(results: Mapping[str, Any], histories: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rates = {name: {"win_rate": row} for name, row in results["win_rate_vs_reference"].items()}
    figures = {
        "win_rates": plots.plot_win_rates(rates, title=_win_rate_claim(results["win_rate_vs_reference"])),
        "calibration": plots.plot_calibration(results["reward_model"]["calibration"]),
        "reward_model": plots.plot_training(
            histories["reward_model"],
            {"rm/accuracy": ("on its training batches", plots.PROXY)},
            title="The reward model while it learns",
            ylabel="accuracy",
        ),
        "ppo_score": plots.plot_training(
            histories["human_feedback"],
            {"objective/score": ("reward model's score", plots.PROXY)},
            title="The reward that PPO earns ...",
            ylabel="score [reward units]",
        ),
        "ppo_kl": plots.plot_training(
            histories["human_feedback"],
            {"objective/kl": ("KL(policy || reference)", plots.POLICY)},
            title="... and how far it goes for it",
            ylabel="KL [nats]",
        ),
    }
    points = results["overoptimization"]
    if points:
        figures["overoptimization"] = _overoptimization(points)
        figures["best_of_n"] = plots.plot_overoptimization(
            points, method="best_of_n", title="Best-of-n: the best of more and more samples"
        )
    return figures


def _overoptimization(points: Sequence[Mapping[str, Any]]) -> Any:
    rows = [row for row in points if row["method"] == "ppo"]
    known = [row for row in rows if row["kl"] > 0.05]
    fit = fit_gao([row["kl"] for row in known], [row["gold"] for row in known], form="rl") if len(known) > 3 else None
    return plots.plot_overoptimization(rows, fit=fit, title=_overoptimization_claim(rows))


def _win_rate_claim(rates: Mapping[str, Mapping[str, float]]) -> str:
    """What the intervals allow to say."""
    beats = rates["human_feedback"]["low"] > rates["supervised"]["high"]
    return "Human feedback beats imitation" if beats else "Win rates against the reference"


def _overoptimization_claim(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the curves allow to say: a fall is one of more than 0.3 standard deviations."""
    falls = max(row["gold"] for row in rows) - rows[-1]["gold"] > 0.3
    rises = rows[-1]["proxy"] > rows[0]["proxy"]
    return "Without a penalty, the proxy rises and the truth falls" if falls and rises else "PPO without a penalty"
