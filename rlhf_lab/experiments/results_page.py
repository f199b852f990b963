"""The tables behind `docs/results.md`, and the page with its figures, which is written from the tables alone."""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from rlhf_lab import plots
from rlhf_lab.equations.overoptimization import GaoFit, fit_gao
from rlhf_lab.experiments.systems.sections import SYSTEMS, mean, section, where
from rlhf_lab.records import write_atomic

COMMAND = "rlhf-lab results"


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, command: str = COMMAND) -> None:
    """Rows as CSV, with the command that made them in the first line; numbers to 5 digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    text.write(f"# {command}\n")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue())


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a table that `write_table` wrote.

    Raises:
        ValueError: The file is not there.
    """
    if not path.exists():
        raise ValueError(f"{path} is not there; make it with: {COMMAND}.")
    lines = path.read_text(encoding="utf-8").split("\n", 1)[1]
    return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(lines))]


def load_results(name: str) -> list[dict[str, Any]]:
    """The rows of a table that ships: what `rlhf-lab results` measured, numbers as numbers.

    Args:
        name: Its file's name in `data/results`, without the ending.

    Raises:
        ValueError: No such table ships; the message lists those that do.

    Example:
        >>> load_results("win_rates")[0]["policy"]
        'pretrained'
    """
    folder = _tables_folder()
    known = sorted(path.stem for path in folder.glob("*.csv"))
    if name not in known:
        raise ValueError(f"no table {name!r} ships; there are {', '.join(known)}.")
    return read_table(folder / f"{name}.csv")


def _tables_folder() -> Path:
    """Where the tables lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data" / "results"
    return installed if installed.is_dir() else package.parent / "data" / "results"


def _number(text: str) -> Any:
    try:
        return float(text) if any(mark in text for mark in ".en") else int(text)
    except ValueError:
        return text


def write_page(tables_folder: Path, page: Path) -> Path:
    """The page and its figures, from the tables alone; returns the page's path.

    Raises:
        ValueError: A table of the main jobs is not there.
    """
    names = ("win_rates", "reward_models", "overoptimization", "own_comparisons", "samples")
    tables = {name: read_table(tables_folder / f"{name}.csv") for name in names}
    fits = gao_fits(tables["overoptimization"])
    for name, axes in _figures(tables, fits).items():
        path = page.parent / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.save(axes, path)
    sizes = list(dict.fromkeys(row["size"] for row in tables["win_rates"]))
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    template = environment.from_string((files("rlhf_lab.experiments") / "results.md.j2").read_text())
    command = _command_of(tables_folder / "win_rates.csv")
    settings = {"command": command, "sizes": sizes, "mean": mean, "where": where}
    text = template.render(**settings, **tables, fits=fits, **_claims(tables["overoptimization"], fits))
    for system in SYSTEMS:
        path = tables_folder / f"{system}.csv"
        if path.exists():
            text += "\n" + section(system, read_table(path), page.parent / "figures", _command_of(path))
    write_atomic(page, text)
    return page


def _command_of(table: Path) -> str:
    return table.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


def _claims(points: Sequence[Mapping[str, Any]], fits: Mapping[str, GaoFit | None]) -> dict[str, Any]:
    """The numbers of section (c)."""
    summary = curve_summary(points)
    ppo = where(points, method="ppo")
    kl, gold = (np.array([row[key] for row in ppo]) for key in ("kl", "gold"))
    far = kl >= kl.max() / 4  # a quarter of the KL is half of the distance
    early = _fit(kl[~far], gold[~far], "rl")
    best = max(row["n"] for row in where(points, method="best_of_n"))
    chosen = where(points, method="best_of_n", n=best)
    best_of_n = {"n": best, "kl": mean(chosen, "kl"), "gold": mean(chosen, "gold")}
    return {
        "summary": summary,
        "proxy_slack": float(np.mean([row["free_proxy_max"] - row["free_end_proxy"] for row in summary[:-1]])),
        "samples_a_point": ppo[0]["samples"],
        "extrapolation_error": _miss(early, kl[far], gold[far]),
        "fit_error": _miss(fits["ppo"], kl[far], gold[far]),
        "best_of_n": best_of_n,
        "ppo_gold_there": _gold_at(best_of_n["kl"], _mean_of_seeds(points)),
    }


def gao_fits(rows: Sequence[Mapping[str, Any]]) -> dict[str, GaoFit | None]:
    """Gao's form fitted to the gold points of all seeds, for PPO without penalty and for best-of-n."""
    fits: dict[str, GaoFit | None] = {}
    for method, form in (("ppo", "rl"), ("best_of_n", "best_of_n")):
        chosen = where(rows, method=method)
        # Tables write whole numbers without a point.
        kl, gold = (np.array([row[key] for row in chosen], dtype=float) for key in ("kl", "gold"))
        fits[method] = _fit(kl, gold, form)
    return fits


def _fit(kl: np.ndarray, gold: np.ndarray, form: Any) -> GaoFit | None:
    """The fit to points that have left the start; None if they are too few."""
    known = kl > 0.05
    return fit_gao(kl[known], gold[known], form=form) if known.sum() > 1 else None


def _miss(fit: GaoFit | None, kl: np.ndarray, gold: np.ndarray) -> float:
    """Root mean square of what the fit misses; NaN without a fit."""
    return float(np.sqrt(np.mean((fit.predict(kl) - gold) ** 2))) if fit else float("nan")


def curve_summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of PPO without penalty: gold's peak and end, the proxy's then; of PPO with it: gold's peak and end.

    In standard deviations of the start's scores. One row for each seed; the last row,
    of seed "mean", sums up the mean of the seeds' curves: the highest of many noisy points lies above the truth, the
    less so the less noise.
    """
    seeds = sorted({row["seed"] for row in rows})
    summary = [{"seed": seed} | _ends(where(rows, seed=seed)) for seed in seeds]
    return [*summary, {"seed": "mean"} | _ends(_mean_of_seeds(rows))]


def _ends(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    ends: dict[str, float] = {}
    for method, name in (("ppo", "free"), ("ppo_penalty", "penalized")):
        mine = where(rows, method=method)
        gold, proxy, kl = (np.array([row[key] for row in mine]) for key in ("gold", "proxy", "kl"))
        top = gold.argmax()
        named = {"peak": gold[top], "peak_kl": kl[top], "peak_proxy": proxy[top], "end": gold[-1], "end_kl": kl[-1]}
        named |= {"end_proxy": proxy[-1], "proxy_max": proxy.max()}
        ends |= {f"{name}_{key}": float(value) for key, value in named.items()}
    return ends


def _gold_at(kl: float, rows: Sequence[Mapping[str, Any]]) -> float:
    """Gold of PPO without penalty where it first reaches a KL, between two looks; NaN if it does not."""
    ppo = where(rows, method="ppo")
    for before, after in pairwise(ppo):
        if before["kl"] <= kl <= after["kl"]:
            return float(np.interp(kl, (before["kl"], after["kl"]), (before["gold"], after["gold"])))
    return float("nan")


def _mean_of_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """PPO's points, each the mean over the seeds at the same step."""
    points = []
    for method in ("ppo", "ppo_penalty"):
        mine = where(rows, method=method)
        for step in sorted({row["step"] for row in mine}):
            here = where(mine, step=step)
            points.append({"method": method, "step": step} | {key: mean(here, key) for key in ("kl", "proxy", "gold")})
    return points


def _figures(tables: Mapping[str, list[dict[str, Any]]], fits: Mapping[str, GaoFit | None]) -> dict[str, Any]:
    rows = tables["reward_models"]
    points = tables["overoptimization"]
    return {
        "win_rates": plots.plot_win_rates_by_size(tables["win_rates"], title="Preference by size and by training"),
        "reward_models": plots.plot_reward_model_accuracy(
            rows,
            labeler_agreement=mean(rows, "labeler_agreement"),
            majority_agreement=mean(rows, "majority_agreement"),
            title="More comparisons and larger models, better judges",
        ),
        "overoptimization": plots.plot_overoptimization(
            points, fit=fits["ppo"], title="Without a penalty, the proxy rises and the truth falls"
        ),
        "penalized": plots.plot_overoptimization(
            points,
            method="ppo_penalty",
            by_step=True,
            title="With the penalty, the truth stays up",
        ),
        "best_of_n": plots.plot_overoptimization(
            points, method="best_of_n", fit=fits["best_of_n"], title="Best-of-n spends few nats"
        ),
    }
