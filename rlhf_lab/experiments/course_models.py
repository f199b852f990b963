"""Makes the trained models that ship with the course, and measures that half precision does what the run's own did.

The main job makes those of the largest base model. The smaller ones learn from its comparisons, since few of their own
summaries are good enough for people to agree on. Whatever the run has done is kept, so the same command continues.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.evaluation import compare_with_reference, reward_model_report
from rlhf_lab.experiments.job import load_rows
from rlhf_lab.experiments.tldr import TLDRConfig, run_tldr
from rlhf_lab.models import Policy, RewardModel, checkpoint_folder, load_base
from rlhf_lab.records import check_scale, write_json
from rlhf_lab.shipped import PARTS, SHIPPED, load_shipped_comparisons, load_trained, save_comparisons, save_trained

MEASURED_FILE = "measured.json"
"""Beside the models: what each does in the run's precision, and as it ships."""
TOLERANCE = 0.01
"""By how much the two may differ: a point of a win rate, or of an accuracy."""


@dataclass(frozen=True, kw_only=True)
class CourseModelsConfig:
    """Make the trained models that ship with the course."""

    out: str = "runs/course"
    """Folder of the runs; the same command continues what lies there."""
    data: str = "data/course"
    """Where the models go."""
    scale: str = "laptop"
    """tiny, laptop or gpu."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_scale(self.scale)


def make_course_models(config: CourseModelsConfig) -> Path:
    """Run what is missing, write models, histories and comparisons, and measure them; returns their folder.

    Raises:
        ValueError: A base model is missing, a folder holds a different run, or a model in half precision does not do
            what it did before.
    """
    for size in SHIPPED:
        load_base(size)  # What is missing is better said now than after the first job.
    largest = next(iter(SHIPPED))
    measured: dict[str, Any] = {}
    for size in tqdm(SHIPPED, desc="main jobs"):
        results = _main_job(config, size, largest)
        if size == largest:
            for part, stage in zip(PARTS, ("comparisons", "comparisons_held_out"), strict=True):
                save_comparisons(load_rows(_result(config, size, stage)), part, folder=config.data)
        for stage in SHIPPED[size]:
            save_trained(_loaded(config, size, stage), stage, size, folder=config.data)
        measured |= {f"{size}/{stage}": _measured(config, size, stage, results) for stage in SHIPPED[size]}
    write_json(Path(config.data) / MEASURED_FILE, {"config": {"scale": config.scale, "seed": config.seed}, **measured})
    for name, row in measured.items():
        if abs(row["half_precision"]["mean"] - row["full_precision"]["mean"]) > TOLERANCE:
            raise ValueError(
                f"{name} does not do in half precision what it did before: its {row['what']} is "
                f"{row['half_precision']['mean']:.3f}, and was {row['full_precision']['mean']:.3f}."
            )
    return Path(config.data)


def _main_job(config: CourseModelsConfig, size: str, largest: str) -> dict[str, Any]:
    comparisons = ""
    if size != largest:
        comparisons = str(Path(config.out) / "comparisons.jsonl")  # A file is known by its ending.
        shutil.copyfile(_result(config, largest, "comparisons"), comparisons)
    return run_tldr(
        TLDRConfig(
            scale=config.scale,
            seed=config.seed,
            out=str(Path(config.out) / size),
            comparisons=comparisons,
            model=str(checkpoint_folder() / size),
            overoptimize=size == largest,
        )
    )


def _result(config: CourseModelsConfig, size: str, stage: str) -> Path:
    return Path(config.out) / size / stage / "result"


def _loaded(config: CourseModelsConfig, size: str, stage: str) -> Policy | RewardModel:
    """A stage's result with the metrics of its steps."""
    result = _result(config, size, stage)
    lines = result.with_name("metrics.jsonl").read_text(encoding="utf-8").splitlines()
    loaded = (RewardModel if stage == "reward_model" else Policy).load(result)
    return type(loaded)(loaded.network, loaded.tokenizer, tuple(json.loads(line) for line in lines))


def _measured(config: CourseModelsConfig, size: str, stage: str, results: dict[str, Any]) -> dict[str, Any]:
    """What the model does as it ships, beside what it did in the run."""
    shipped = load_trained(stage, size, folder=config.data)
    if isinstance(shipped, RewardModel):
        held_out = load_shipped_comparisons("held_out", folder=config.data)
        own = _loaded(config, size, stage)
        assert isinstance(own, RewardModel)
        full, half = (reward_model_report(model, held_out)["accuracy"] for model in (own, shipped))
        return {"what": "accuracy on held-out comparisons", "full_precision": full, "half_precision": half}
    posts = load_tldr("world", scale=config.scale, seed=config.seed).validation
    known = results["win_rate_vs_reference"]
    full = known[stage] if stage in known else _win_rate(config, _loaded(config, size, stage), posts)
    half = _win_rate(config, shipped, posts)
    return {"what": "win rate against the reference", "full_precision": full, "half_precision": half}


def _win_rate(config: CourseModelsConfig, policy: Policy | RewardModel, posts: Dataset) -> dict[str, float]:
    assert isinstance(policy, Policy)
    return compare_with_reference({"policy": policy}, posts, seed=config.seed)["policy"]["win_rate"]
