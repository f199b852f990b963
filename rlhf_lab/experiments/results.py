"""Every figure and number of `docs/results.md`: the main job over sizes and seeds, and reward models over data.

The runs keep what is done, so an interrupted command continues; the small tables that come out ship with the course.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.judge import words_of
from rlhf_lab.evaluation import reward_model_report, wins, write_summaries
from rlhf_lab.experiments.job import load_rows, save_rows
from rlhf_lab.experiments.results_page import COMMAND, write_page, write_table
from rlhf_lab.experiments.tldr import SIZES, TLDRConfig, run_tldr
from rlhf_lab.feedback import Population, gold_judge, population, simulated_labels
from rlhf_lab.models import MODEL_SIZES, Policy, checkpoint_folder, load_base
from rlhf_lab.records import check_scale, write_atomic
from rlhf_lab.runs import Run
from rlhf_lab.training.ppo import ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

NUM_PAIRS = {"tiny": (16, 64, 128), "laptop": (100, 300, 1000, 4000), "gpu": (100, 1000, 10_000, 64_000)}
"""Comparisons that a reward model learns from, for the curve of each scale."""
HELD_OUT_PAIRS = {"tiny": 64, "laptop": 1000, "gpu": 4000}
"""Comparisons to test each reward model on."""
CURVE_POSTS = {"tiny": 16, "laptop": 512, "gpu": 512}
"""Held-out posts on which the over-optimization curves are measured."""
LEARNING_RATE = {"tiny": 1e-3, "laptop": 1e-3, "gpu": 3e-6}
"""Of those reward models: between policies there is more to learn than within one."""
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
    # The largest model first: the smaller ones learn from the comparisons of its summaries.
    jobs = [(size, seed) for seed in range(config.num_seeds) for size in reversed(MODEL_SIZES)]
    made = {job: _main_job(config, *job) for job in tqdm(jobs, desc="main jobs")}
    results = {job: made[job] for job in sorted(jobs, key=lambda job: list(MODEL_SIZES).index(job[0]))}
    tables = {
        "win_rates": _win_rates(results),
        "reward_models": [row for job in tqdm(results, desc="reward models") for row in _reward_models(config, *job)],
        "own_comparisons": _own_comparisons(config, results),
        "overoptimization": [
            row for (size, _), result in results.items() if size == LARGEST for row in result["overoptimization"]
        ],
        "samples": _samples(config),
    }
    for name, rows in tables.items():
        write_table(Path(config.tables) / f"{name}.csv", rows, command=f"{COMMAND} --scale {config.scale}")
    return write_page(Path(config.tables), Path(config.page))


def _main_job(config: ResultsConfig, size: str, seed: int) -> dict[str, Any]:
    """The main job; smaller models take their comparisons from the largest, as few of their own summaries are good."""
    comparisons = ""
    if size != LARGEST:
        comparisons = str(Path(config.out) / f"comparisons-{seed}.jsonl")
        shutil.copyfile(_folder(config, LARGEST, seed) / "comparisons" / "result", comparisons)
    return run_tldr(
        TLDRConfig(
            scale=config.scale,
            seed=seed,
            out=str(_folder(config, size, seed)),
            comparisons=comparisons,
            model=str(checkpoint_folder() / size),
            num_pairs=NUM_PAIRS[config.scale][-1],
            held_out_pairs=HELD_OUT_PAIRS[config.scale],
            # Curves are drawn for the largest alone.
            curve_posts=CURVE_POSTS[config.scale] if size == LARGEST else 0,
            overoptimize=size == LARGEST,
        )
    )


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


def _own_comparisons(
    config: ResultsConfig, results: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """How the main jobs' reward models do on pairs that the largest policy wrote both."""
    rows: list[dict[str, Any]] = []
    for (size, seed), result in results.items():
        report = result["reward_model"]
        # Whom to ask about the same pairs is known where they were made.
        rates = {key: report[key]["mean"] for key in ("accuracy", "labeler_agreement") if key in report}
        rows.append({"size": size, "seed": seed, "n": report["n"], **rates})
        if size == LARGEST:
            held_out = load_rows(_folder(config, size, seed) / "comparisons_held_out" / "result")
            rows[-1]["longer_preferred"] = _longer_preferred(held_out)
    return rows


def _longer_preferred(comparisons: Dataset) -> float:
    """How often the summary of more words is the preferred one; ties count half."""
    chosen, rejected = (
        [float(len(words_of(text))) for text in column(comparisons, key)] for key in ("chosen", "rejected")
    )
    return float(wins(chosen, rejected).mean())


def _comparisons(config: ResultsConfig, seed: int) -> tuple[Dataset, Dataset]:
    """Summaries by two of the sizes' supervised policies each, compared by simulated people: to train on, held out.

    Samples of one policy differ in length more than in truth: all sizes would judge alike. Stiennon et al. 2020 compare
    summaries of many policies too.
    """
    data, people = load_tldr("world", scale=config.scale, seed=seed), _people(config, seed)
    sampling = ppo_config(config.scale).sampling
    made = []
    for part, prompts, number in (
        ("train", data.prompts, NUM_PAIRS[config.scale][-1]),
        ("held_out", data.validation, HELD_OUT_PAIRS[config.scale]),
    ):
        path = Path(config.out) / "reward_models" / f"{part}-{seed}.jsonl"
        if not path.exists():
            policies = [_supervised(config, size, seed) for size in MODEL_SIZES]
            draw = len(made) + 1
            path.parent.mkdir(parents=True, exist_ok=True)
            save_rows(
                simulated_labels(policies, prompts, num_pairs=number, people=people, sampling=sampling, seed=draw), path
            )
        made.append(load_rows(path))
    return made[0], made[1]


def _people(config: ResultsConfig, seed: int) -> Population:
    return population(seed=seed, agreement=SIZES[config.scale].agreement)


def _supervised(config: ResultsConfig, size: str, seed: int) -> Policy:
    return Policy.load(_folder(config, size, seed) / "supervised" / "result")


def _reward_models(config: ResultsConfig, size: str, seed: int) -> list[dict[str, Any]]:
    """Accuracy of reward models of one size on comparisons between the sizes, by how many they learnt from."""
    train, held_out = _comparisons(config, seed)
    preset = reward_model_config(config.scale)
    optimizer = replace(preset.optimizer, learning_rate=LEARNING_RATE[config.scale])
    rows = []
    for number in NUM_PAIRS[config.scale]:
        folder = Path(config.out) / "reward_models" / f"{size}-{seed}-{number}"
        done = folder / "report.json"
        if not done.exists():
            run = Run(folder, seed=seed, identity={"num_pairs": number, **asdict(optimizer)})
            chosen = train.select(range(min(number, len(train))))
            model = train_reward_model(_supervised(config, size, seed), chosen, preset, optimizer=optimizer, run=run)
            report = reward_model_report(model, held_out, _people(config, seed), seed=seed)
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
                "longer_preferred": _longer_preferred(held_out),
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
