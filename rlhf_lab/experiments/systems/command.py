"""`rlhf-lab systems`: measure what the lecture's systems claim, over seeds, and put it on the results page."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_lab.experiments.results_page import write_page, write_table
from rlhf_lab.experiments.systems.sections import SYSTEMS, Job, module_of
from rlhf_lab.fan_out import each
from rlhf_lab.records import check_scale, write_json


@dataclass(frozen=True, kw_only=True)
class SystemsConfig:
    """Measure the systems of the lecture; the same command continues what was interrupted."""

    out: str = "runs/systems"
    """Folder of the runs."""
    only: tuple[str, ...] = SYSTEMS
    """Which systems."""
    scale: str = "laptop"
    """tiny or laptop."""
    num_seeds: int = 3
    jobs: int = 1
    """Processes of this machine."""
    tables: str = "data/results"
    """Where the CSV files go."""
    page: str = "docs/results.md"
    """The page; its figures go to `figures/` beside it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_scale(self.scale)
        if unknown := set(self.only) - set(SYSTEMS):
            raise ValueError(f"no system {', '.join(sorted(unknown))} is known; choose among {', '.join(SYSTEMS)}.")
        if self.num_seeds < 1 or self.jobs < 1:
            raise ValueError(f"num_seeds ({self.num_seeds}) and jobs ({self.jobs}) must be at least 1.")


def run_systems(config: SystemsConfig) -> Path:
    """Measure what is missing, write the tables and the page; returns its path."""
    jobs = [
        Job(system, seed, config.scale, Path(config.out).resolve() / f"{system}-{seed}")
        for system in config.only
        for seed in range(config.num_seeds)
    ]
    missing = [job for job in jobs if not (job.folder / "rows.json").exists()]
    for _ in each(_measure, missing, num_jobs=config.jobs, name="systems"):
        pass
    for system in config.only:
        mine = [job for job in jobs if job.system == system]
        rows = [row for job in mine for row in json.loads((job.folder / "rows.json").read_text(encoding="utf-8"))]
        command = f"rlhf-lab systems --only {system} --scale {config.scale} --num-seeds {config.num_seeds}"
        write_table(Path(config.tables) / f"{system}.csv", rows, command=command)
    return write_page(Path(config.tables), Path(config.page))


def _measure(job: Job) -> None:
    """One seed, the same on any machine."""
    torch.set_num_threads(1)  # Sums on more threads would have other last digits.
    job.folder.mkdir(parents=True, exist_ok=True)
    rows = [{"seed": job.seed, **row} for row in module_of(job.system).rows(job)]
    write_json(job.folder / "rows.json", rows)
