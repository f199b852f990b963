"""PPO over KL coefficients and seeds, from the trained models that ship: what a price of drift buys.

Each run is a job of its own, in a folder of its own. Jobs go to processes or to a Dask cluster; one that is lost goes
on from its checkpoint, and the table is made of one result a folder, so it is the same whoever did what, how often.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.fan_out import each
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import check_size
from rlhf_lab.records import check_scale, write_atomic, write_json
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.ppo import ppo, ppo_config

LOOKED_AT = ("score", "gold", "kl", "response_tokens")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """PPO over KL coefficients and seeds; the same command continues what was interrupted."""

    out: str = "runs/sweep"
    """Folder of the runs; the table is its results.csv."""
    scale: str = "laptop"
    """Preset of PPO: tiny or laptop."""
    size: str = "large"
    """Of the models that it starts from: small, medium or large."""
    kl_coefs: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
    num_seeds: int = 10
    num_posts: int = 64
    """Held-out posts that are answered at the end."""
    jobs: int = 1
    """Processes of this machine."""
    cluster: str = ""
    """Address of a Dask scheduler, whose workers see the same folder and do the runs."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_scale(self.scale)
        check_size(self.size)
        if not self.kl_coefs or min(self.kl_coefs) < 0:
            raise ValueError(f"kl_coefs must be 0 or more, one at least, not {self.kl_coefs}.")
        if self.num_seeds < 1 or self.num_posts < 1 or self.jobs < 1:
            raise ValueError(
                f"num_seeds ({self.num_seeds}), num_posts ({self.num_posts}) and jobs ({self.jobs}) must be at least 1."
            )


@dataclass(frozen=True)
class _Job:
    config: SweepConfig
    kl_coef: float
    seed: int

    @property
    def folder(self) -> Path:
        return Path(self.config.out).resolve() / "runs" / f"kl-{self.kl_coef:g}-seed-{self.seed}"


def run_sweep(config: SweepConfig) -> Path:
    """Run what is missing, and write the table; returns its path.

    Raises:
        ValueError: Nobody answers at the address of the cluster, or a folder holds a run of other settings.
    """
    jobs = [_Job(config, kl_coef, seed) for kl_coef in config.kl_coefs for seed in range(config.num_seeds)]
    missing = [job for job in jobs if not (job.folder / "result.json").exists()]
    for _ in each(_run, missing, num_jobs=config.jobs, cluster=config.cluster, name="sweep"):
        pass
    rows = [json.loads((job.folder / "result.json").read_text(encoding="utf-8")) for job in jobs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table = Path(config.out) / "results.csv"
    write_atomic(table, text.getvalue())
    return table


def _run(job: _Job) -> None:
    """One run, to its end; what it leaves is the same on any machine and after any number of interruptions."""
    torch.set_num_threads(1)  # Sums on more threads would have other last digits.
    config = job.config
    data = load_tldr(scale=config.scale)
    identity = {"scale": config.scale, "size": config.size, "num_posts": config.num_posts, "kl_coef": job.kl_coef}
    run = Run(job.folder, seed=job.seed, identity=identity, checkpoint_every=2)
    tuned = ppo(
        load_trained("supervised", config.size),  # type: ignore[arg-type]
        load_trained("reward_model", config.size),  # type: ignore[arg-type]
        data.prompts,
        ppo_config(config.scale),
        watch={"gold": gold_judge()},
        held_out=data.validation.select(range(min(config.num_posts, len(data.validation)))),
        run=run,
        kl_coef=job.kl_coef,
        evaluate_every=10**9,  # At the last step only.
    )
    last: dict[str, Any] = dict(tuned.history[-1])
    means = {name: round(last[f"held_out/{name}"], 4) for name in LOOKED_AT}
    write_json(job.folder / "result.json", {"kl_coef": job.kl_coef, "seed": job.seed, **means})
    run.clear_checkpoint()
