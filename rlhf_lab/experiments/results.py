"""Every figure and number of `docs/results.md`: the main job over sizes and seeds, and reward models over data.

The runs keep what is done, so an interrupted command continues; the small tables that come out ship with the course.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jinja2 import Environment, StrictUndefined
from tqdm.auto import tqdm

from rlhf_lab import plots
from rlhf_lab.equations.overoptimization import GaoFit, fit_gao
from rlhf_lab.evaluation import reward_model_report, write_summaries
from rlhf_lab.experiments.report import smoothed
from rlhf_lab.experiments.tldr import TLDRConfig, load_rows, run_tldr
from rlhf_lab.feedback import gold_judge, population
from rlhf_lab.models import MODEL_SIZES, Policy, checkpoint_folder, load_base
from rlhf_lab.records import check_scale, write_atomic
from rlhf_lab.runs import Run
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

COMMAND = "rlhf-lab results"
NUM_PAIRS = {"tiny": (16, 64, 128), "laptop": (100, 300, 1000, 4000), "gpu": (100, 1000, 10_000, 64_000)}
"""Comparisons that a reward model learns from, for the curve of each scale."""
LARGEST = list(MODEL_SIZES)[-1]


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """Reproduce docs/results.md: its tables, its figures and its text."""

    out: str = "runs/results"
    """Folder of the runs; the same command continues what lies there."""
    scale: str = "laptop"
    """tiny, laptop or gpu."""
    num_seeds: int = 3
    tables: str = "data/results"
    """Where the CSV files go."""
    page: str = "docs/results.md"
    """The page; its figures go to `figures/` beside it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_scale(self.scale)
        if self.num_seeds < 1:
            raise ValueError(f"num_seeds must be at least 1, not {self.num_seeds}.")


def run_results(config: ResultsConfig) -> Path:
    """Run what is missing, write the tables, draw the figures and write the page; returns its path."""
    for size in MODEL_SIZES:
        load_base(size)  # What is missing is better said now than after an hour.
    jobs = [(size, seed) for seed in range(config.num_seeds) for size in MODEL_SIZES]
    results = {
        (size, seed): run_tldr(
            TLDRConfig(
                scale=config.scale,
                seed=seed,
                out=str(_folder(config, size, seed)),
                model=str(checkpoint_folder() / size),
                num_pairs=NUM_PAIRS[config.scale][-1],
                overoptimize=size == LARGEST,
            )
        )
        for size, seed in tqdm(jobs, desc="main jobs")
    }
    tables = {
        "win_rates": _win_rates(results),
        "reward_models": [row for job in tqdm(jobs, desc="reward models") for row in _reward_models(config, *job)],
        "overoptimization": [
            row for (size, _), result in results.items() if size == LARGEST for row in result["overoptimization"]
        ],
        "samples": _samples(config),
    }
    for name, rows in tables.items():
        write_table(Path(config.tables) / f"{name}.csv", rows)
    return write_page(config)


def _folder(config: ResultsConfig, size: str, seed: int) -> Path:
    return Path(config.out) / f"{size}-{seed}"


def _win_rates(results: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "size": size,
            "seed": seed,
            "policy": policy,
            **rate,
            "length_controlled": result["length_controlled_win_rate"][policy]["mean"],
            "words": result["words"][policy],
            **result["axes"][policy],
        }
        for (size, seed), result in results.items()
        for policy, rate in result["win_rate_vs_reference"].items()
    ]


def _reward_models(config: ResultsConfig, size: str, seed: int) -> list[dict[str, Any]]:
    """Accuracy of reward models of one size on the largest model's comparisons, by how many they learnt from."""
    home = _folder(config, LARGEST, seed)
    train = load_rows(home / "comparisons" / "result")
    held_out = load_rows(home / "comparisons_held_out" / "result")
    policy = Policy.load(_folder(config, size, seed) / "supervised" / "result")
    preset = reward_model_config(config.scale)
    rows = []
    for number in NUM_PAIRS[config.scale]:
        folder = Path(config.out) / "reward_models" / f"{size}-{seed}-{number}"
        done = folder / "report.json"
        if not done.exists():
            run = Run(folder, seed=seed, identity={"num_pairs": number})
            chosen = train.select(range(min(number, len(train))))
            model = train_reward_model(policy, chosen, preset, run=run)
            report = reward_model_report(model, held_out, population(seed=seed), seed=seed)
            write_atomic(done, json.dumps(report))
            run.clear_checkpoint()
        report = json.loads(done.read_text())
        rows.append(
            {
                "size": size,
                "num_pairs": number,
                "seed": seed,
                **{key: report[key]["mean"] for key in ("accuracy", "labeler_agreement", "majority_agreement")},
                "n": report["n"],
            }
        )
    return rows


def _samples(config: ResultsConfig, number: int = 6) -> list[dict[str, Any]]:
    """What the supervised policy and PPO with and without the penalty write about the same held-out posts."""
    home = _folder(config, LARGEST, 0)
    examples = json.loads((home / "results.json").read_text())["examples"][:number]
    posts = Dataset.from_list([{"prompt": row["prompt"]} for row in examples])
    hard = write_summaries(Policy.load(home / "no_penalty" / "result"), posts)
    judge = gold_judge()
    rows = []
    for example, text in zip(examples, hard, strict=True):
        texts = {name: example[name] for name in ("reference", "supervised", "human_feedback")} | {"no_penalty": text}
        grades = {f"{name}_gold": judge.judge(example["prompt"], written).overall for name, written in texts.items()}
        rows.append({"prompt": example["prompt"], **texts, **grades})
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV, with the command that made them in the first line; numbers to 5 digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    text.write(f"# {COMMAND}\n")
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


def _number(text: str) -> Any:
    try:
        return float(text) if any(mark in text for mark in ".en") else int(text)
    except ValueError:
        return text


def write_page(config: ResultsConfig) -> Path:
    """The page and its figures, from the tables alone."""
    tables = {path.stem: read_table(path) for path in sorted(Path(config.tables).glob("*.csv"))}
    page = Path(config.page)
    fits = gao_fits(tables["overoptimization"])
    for name, axes in _figures(tables, fits).items():
        path = page.parent / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.save(axes, path)
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    template = environment.from_string((files("rlhf_lab.experiments") / "results.md.j2").read_text())
    settings = {"command": COMMAND, "scale": config.scale, "sizes": list(MODEL_SIZES), "mean": _mean, "where": _where}
    write_atomic(page, template.render(**settings, **tables, fits=fits, **_claims(tables["overoptimization"], fits)))
    return page


def _claims(points: Sequence[Mapping[str, Any]], fits: Mapping[str, GaoFit]) -> dict[str, Any]:
    """The numbers of section (c)."""
    summary = curve_summary(points)
    ppo = smoothed(points, "ppo")
    kl, gold = (np.array([row[key] for row in ppo]) for key in ("kl", "gold"))
    near = (np.sqrt(kl) < np.sqrt(kl.max()) / 2) & (kl > 0.05)
    far = np.sqrt(kl) >= np.sqrt(kl.max()) / 2
    early = fit_gao(kl[near], gold[near], form="rl")
    numbers = sorted({row["n"] for row in points if row["method"] == "best_of_n"})
    best = [row for row in points if row["method"] == "best_of_n" and row["n"] == numbers[-1]]
    reached = kl[gold >= _mean(best, "gold")]
    return {
        "summary": summary,
        "proxy_slack": float(np.mean([row["free_proxy_max"] - row["free_end_proxy"] for row in summary[:-1]])),
        "noise": _noise(points),
        "extrapolation_error": float(np.sqrt(np.mean((early.predict(kl[far]) - gold[far]) ** 2))),
        "fit_error": float(np.sqrt(np.mean((fits["ppo"].predict(kl[far]) - gold[far]) ** 2))),
        "best_of_n": {"n": numbers[-1], "kl": _mean(best, "kl"), "gold": _mean(best, "gold")},
        "ppo_kl_for_it": f"{reached.min():.2f} nats" if len(reached) else "no KL",
    }


def _where(rows: Iterable[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _mean(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def gao_fits(rows: Sequence[Mapping[str, Any]]) -> dict[str, GaoFit]:
    """Gao's form fitted to the gold points of all seeds, for PPO without penalty and for best-of-n."""
    fits: dict[str, GaoFit] = {}
    for method, form in (("ppo", "rl"), ("best_of_n", "best_of_n")):
        chosen = [row for row in rows if row["method"] == method and row["kl"] > 0.05]
        # Tables write whole numbers without a point.
        kl, gold = (np.array([row[key] for row in chosen], dtype=float) for key in ("kl", "gold"))
        fits[method] = fit_gao(kl, gold, form=form)  # type: ignore[arg-type]
    return fits


def curve_summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of PPO without penalty: gold's peak and end, the proxy's then; of PPO with it: gold's peak and end.

    Each is the mean over 5 steps, in standard deviations of the start's scores. One row for each seed; the last row,
    of seed "mean", sums up the mean of the seeds' curves: the highest of many noisy points lies above the truth, the
    less so the less noise.
    """
    seeds = sorted({row["seed"] for row in rows})
    summary = [{"seed": seed} | _ends(_where(rows, seed=seed)) for seed in seeds]
    return [*summary, {"seed": "mean"} | _ends(_mean_of_seeds(rows))]


def _ends(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    ends: dict[str, float] = {}
    for method, name in (("ppo", "free"), ("ppo_penalty", "penalized")):
        mine = _where(rows, method=method)
        gold, proxy, kl = (plots.smooth(np.array([row[key] for row in mine])) for key in ("gold", "proxy", "kl"))
        top = gold.argmax()
        named = {"peak": gold[top], "peak_kl": kl[top], "peak_proxy": proxy[top], "end": gold[-1], "end_kl": kl[-1]}
        named |= {"end_proxy": proxy[-1], "proxy_max": proxy.max()}
        ends |= {f"{name}_{key}": float(value) for key, value in named.items()}
    return ends


def _noise(rows: Sequence[Mapping[str, Any]]) -> float:
    """Standard error of gold's mean over 5 steps, from the differences of neighbouring steps with the penalty."""
    mine = _where(rows, method="ppo_penalty")
    gold = [np.array([row["gold"] for row in _where(mine, seed=seed)]) for seed in sorted({r["seed"] for r in mine})]
    # A difference of two steps has twice the variance of one; a mean of five has a fifth of it.
    return float(np.sqrt(np.mean([np.var(np.diff(values)) for values in gold]) / 2 / 5))


def _mean_of_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """PPO's points, each the mean over the seeds at the same step."""
    points = []
    for method in ("ppo", "ppo_penalty"):
        mine = _where(rows, method=method)
        for step in sorted({row["step"] for row in mine}):
            here = _where(mine, step=step)
            points.append({"method": method, "step": step} | {key: _mean(here, key) for key in ("kl", "proxy", "gold")})
    return points


def _figures(tables: Mapping[str, list[dict[str, Any]]], fits: Mapping[str, GaoFit]) -> dict[str, Any]:
    rows = tables["reward_models"]
    points = tables["overoptimization"]
    return {
        "win_rates": plots.plot_win_rates_by_size(tables["win_rates"], title="Preference by size and by training"),
        "reward_models": plots.plot_reward_model_accuracy(
            rows,
            labeler_agreement=_mean(rows, "labeler_agreement"),
            majority_agreement=_mean(rows, "majority_agreement"),
            title="More comparisons, better judge",
        ),
        "overoptimization": plots.plot_overoptimization(
            smoothed(points, "ppo"), fit=fits["ppo"], title="Without a penalty, the proxy rises and the truth falls"
        ),
        "penalized": plots.plot_overoptimization(
            smoothed(points, "ppo_penalty"), method="ppo_penalty", title="With the penalty, the truth keeps up"
        ),
        "best_of_n": plots.plot_overoptimization(
            points, method="best_of_n", fit=fits["best_of_n"], title="Best-of-n spends few nats"
        ),
    }
