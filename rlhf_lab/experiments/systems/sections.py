"""Tables of the systems, as sections of the results page: written from the tables alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from rlhf_lab import plots

SYSTEMS: tuple[str, ...] = (
    "tamer",
    "control_preferences",
    "rankings",
    "pretraining_mix",
    "context_distillation",
    "preference_pretraining",
    "ranked_or_binary",
    "a2c",
    "rules",
    "quotes",
    "best_of_n_or_rl",
    "annotation_budget",
    "other_feedback",
    "rating_scales",
    "noise",
    "sureness",
    "minority",
    "successors",
    "model_feedback",
    "iterated",
)
"""A module and a template of this package each, in the order of the page."""


@dataclass(frozen=True)
class Job:
    """One seed of one system."""

    system: str
    seed: int
    scale: str
    folder: Path
    """Of its own, for what is to outlive an interruption."""


def module_of(system: str) -> ModuleType:
    """Its `rows` and `figures`, and perhaps a `summary` of rows: what its template knows besides, by name."""
    return import_module(f"rlhf_lab.experiments.systems.{system}")


def section(system: str, rows: Sequence[Mapping[str, Any]], figures: Path, command: str) -> str:
    """What came out, in words; its figures are written to a folder.

    Args:
        system: Whose.
        rows: Of all seeds.
        figures: A folder beside the page.
        command: What made the rows.
    """
    figures.mkdir(parents=True, exist_ok=True)
    for name, axes in module_of(system).figures(rows).items():
        plots.save(axes, figures / f"{name}.png")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"percent": lambda value: f"{100 * value:.1f} %", "plain": lambda value: f"{value:.2f}"}
    template = environment.from_string((files("rlhf_lab.experiments.systems") / f"{system}.md.j2").read_text())
    known = {"rows": rows, "mean": mean, "where": where, "seeds": seeds_of(rows), "command": command}
    return template.render(**known, **getattr(module_of(system), "summary", lambda rows: {})(rows))


def seeds_of(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The seeds, in order."""
    return sorted({row["seed"] for row in rows})


def where(rows: Iterable[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def mean(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    """Of a column."""
    return float(np.mean([row[key] for row in rows]))
