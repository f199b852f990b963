"""A job is a row of stages, each with a folder of its own: done, it is loaded; cut short, it goes on."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from rlhf_lab.records import write_atomic, write_json
from rlhf_lab.runs import Run


class Job:
    """The run's folder, seen as named stages with results."""

    def __init__(self, folder: str | Path, *, seed: int, identity: Mapping[str, Any], checkpoint_every: int) -> None:
        """Open or make the folder; see `Run`."""
        self.run = Run(folder, seed=seed, identity=identity, checkpoint_every=checkpoint_every)
        self.folder = Path(folder)
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, make: Callable[[Run], Any], load: Callable[[Path], Any]) -> Any:
        """The result of stage `name`: loaded if it is there, else made, saved in one piece, and loaded."""
        result, timing = self.folder / name / "result", self.folder / name / "seconds.json"
        run = self.run.stage(name)
        if not result.exists():
            start = time.perf_counter()
            made = make(run)
            if self.run.is_main:
                made.save(result)
                write_json(timing, time.perf_counter() - start)
            run.clear_checkpoint()
            self.run.accelerator.wait_for_everyone()
        self.seconds[name] = json.loads(timing.read_text()) if timing.exists() else float("nan")
        return load(result)

    def history(self, name: str) -> list[dict[str, Any]]:
        """The metrics of a stage's steps."""
        path = self.folder / name / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Rows:
    """A dataset that is saved as one JSONL file."""

    rows: Dataset

    def save(self, path: Path) -> None:
        """Write the file."""
        save_rows(self.rows, path)


def save_rows(rows: Dataset, path: Path) -> None:
    """Write rows as JSONL, in one piece."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_rows(path: Path) -> Dataset:
    """What `save_rows` wrote."""
    # Not splitlines: a text may hold a character that ends a line for Python, but not in JSONL.
    lines = path.read_text(encoding="utf-8").split("\n")
    return Dataset.from_list([json.loads(line) for line in lines if line])
