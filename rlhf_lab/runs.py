"""A run: its folder, seed, metrics, checkpoint and processes.

All randomness is a function of (seed, purpose, step), and the learning rate of the step alone, so a checkpoint is just
weights and optimizer moments, and an interrupted run that is started again ends with the very same bits.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from tqdm.auto import tqdm

from rlhf_lab.devices import new_accelerator
from rlhf_lab.records import naming, write_atomic, write_json

Config = TypeVar("Config")


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        ...


def configured(default: Config, config: Config | None, overrides: Mapping[str, Any]) -> Config:
    """`config` (or `default`) with some fields replaced.

    Raises:
        ValueError: A name is not a field of the config, or a value is refused by it.
    """
    config = default if config is None else config
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise ValueError(f"{type(config).__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}.")
    return dataclasses.replace(config, **overrides)  # type: ignore[type-var]


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}), so nobody can tell which run this is; delete {path.parent}, or choose "
            f"another folder."
        ) from error


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # which one depends on where the damage is
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}); delete it to do this stage again from its first step, or "
            f"choose another folder."
        ) from error


def _load(part: Stateful, checkpoint: Mapping[str, Any], name: str, path: Path) -> None:
    try:
        part.load_state_dict(checkpoint["state"][name])
    except Exception as error:  # which one depends on what is different
        raise ValueError(
            f"{path} does not fit this stage ({type(error).__name__}): it is of another model or an earlier version; "
            f"delete it to do this stage again from its first step, or choose another folder."
        ) from error


def _json_line(row: Mapping[str, Any], *, ensure_ascii: bool = True) -> str:
    """`row` as a line of a JSONL file; JSON has no NaN and no infinity, so they become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    return json.dumps(finite, ensure_ascii=ensure_ascii) + "\n"


def _append(path: Path, line: str) -> None:
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(line)


def _lines_before(step: int, data: bytes) -> bytes:
    """The lines of rows with a smaller `step`; one that cannot be read was cut short by a kill."""
    kept = []
    # Not splitlines: a sample may hold a U+2028 or a U+0085, which end a line for Python but not in JSONL.
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] < step:
                kept.append(line + b"\n")
    return b"".join(kept)


class Run:
    """Where a stage keeps what it needs to be watched, stopped and continued. Without a folder it lives in memory.

    A folder holds `config.json` (what identifies the run), `metrics.jsonl`, `tensorboard/` and, while a stage is under
    way, `checkpoint.pt`.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        seed: int = 0,
        identity: Mapping[str, Any] | None = None,
        checkpoint_every: int = 50,
        mixed_precision: str | None = None,
    ) -> None:
        """Open `folder`, or make it.

        Args:
            folder: Where to write; None keeps everything in memory.
            seed: Seed of every random number of the run.
            identity: Resolved settings; a folder made with other ones is refused.
            checkpoint_every: Steps between checkpoints.
            mixed_precision: Accelerate's setting ("no", "bf16"); None leaves it to `accelerate launch`.

        Raises:
            ValueError: The folder holds a different run, or other files, or a config.json that cannot be read; or it is
                a file. The device lacks the precision.
        """
        self.folder = Path(folder) if folder is not None else None
        self.seed = seed
        self.checkpoint_every = checkpoint_every
        self.history: list[dict[str, Any]] = []
        self.accelerator = new_accelerator(self.folder, mixed_precision)
        self._identity = json.loads(json.dumps({"seed": seed, **(identity or {})}, default=str))
        if self.folder:
            self._claim(self.folder)

    def _claim(self, folder: Path) -> None:
        if not self.is_main:
            # The main process is claiming it: to look now would find a folder without its config.json.
            self.accelerator.wait_for_everyone()
        self._check(folder)
        if self.is_main:
            if not (folder / "config.json").exists():
                write_json(folder / "config.json", self._identity)
            self.accelerator.wait_for_everyone()

    def _check(self, folder: Path) -> None:
        path = folder / "config.json"
        for place in (folder, *folder.parents):
            if place.is_file():
                raise ValueError(f"{place} is a file, and a run needs a folder; choose another name.")
        if path.exists():
            found = _read_identity(path)
            differing = sorted(key for key in {*found, *self._identity} if found.get(key) != self._identity.get(key))
            if differing:
                key = differing[0]
                raise ValueError(
                    f"{folder} holds a different run ({key} is {found.get(key)!r} there, {self._identity.get(key)!r} "
                    f"here); choose another folder, or delete this one."
                )
        elif folder.exists() and any(not file.name.startswith(f".{path.name}.") for file in folder.iterdir()):
            # What a kill left of an unfinished config.json is nobody's.
            raise ValueError(f"{folder} is not empty and holds no run (no config.json); choose another folder.")

    @property
    def is_main(self) -> bool:
        """True in the one process that writes."""
        return self.accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        """Where networks and batches live."""
        return self.accelerator.device

    @property
    def place(self) -> dict[str, Any]:
        """Where and in which precision networks run, and among how many processes they are shared."""
        shards = self.accelerator.num_processes if self.accelerator.is_fsdp2 else 1
        return {"device": self.device, "mixed_precision": self.accelerator.mixed_precision, "num_shards": shards}

    def rng(self, purpose: str, step: int = 0) -> torch.Generator:
        """The random numbers of one purpose at one step: the same on every process and after a resume."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}/{step}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def batch_rows(self, step: int, num_rows: int, batch_size: int) -> list[int]:
        """Rows of the *global* batch of `step`: without replacement, reshuffled each epoch.

        Raises:
            ValueError: There are no rows, or the batch does not divide among the processes.
        """
        if num_rows < 1:
            raise ValueError("the dataset is empty; give at least one row.")
        self.share(batch_size)
        rows: list[int] = []
        position = step * batch_size
        while len(rows) < batch_size:
            epoch, start = divmod(position + len(rows), num_rows)
            order = torch.randperm(num_rows, generator=self.rng("epoch", epoch)).tolist()
            rows += order[start : start + batch_size - len(rows)]
        return rows

    def share(self, global_size: int) -> slice:
        """This process's part of `global_size` rows.

        Raises:
            ValueError: The rows do not divide among the processes.
        """
        processes = self.accelerator.num_processes
        if global_size % processes:
            raise ValueError(
                f"a batch of {global_size} does not divide among {processes} processes; change one of them."
            )
        size = global_size // processes
        return slice(self.accelerator.process_index * size, (self.accelerator.process_index + 1) * size)

    def steps(self, num_steps: int, state: Mapping[str, Stateful], *, name: str) -> Iterator[int]:
        """The steps that are still to do, with a progress bar; saves a checkpoint as it goes.

        Args:
            num_steps: Steps of the whole stage.
            state: What changes from step to step; restored first if there is a checkpoint.
            name: Shown before the bar and used for the tracker.

        Raises:
            ValueError: The checkpoint cannot be read.
        """
        first = self._restore(state)
        if self.folder:
            self.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": first}})
        bar = tqdm(range(num_steps), initial=first, total=num_steps, desc=name, disable=not self.is_main, delay=1)
        for step in range(first, num_steps):
            yield step
            bar.update()
            done = step + 1
            if self.folder and done < num_steps and done % self.checkpoint_every == 0:
                self._save(done, state)
        bar.close()
        if self.folder:
            self._save(num_steps, state)
            # Not `end_training`: it takes the processes apart, and the next stage needs them.
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _save(self, step: int, state: Mapping[str, Stateful]) -> None:
        content = {name: part.state_dict() for name, part in state.items()}
        if self.is_main and self.folder:
            buffer = io.BytesIO()
            torch.save({"step": step, "history": self.history, "state": content}, buffer)
            write_atomic(self.folder / "checkpoint.pt", buffer.getvalue())
        self.accelerator.wait_for_everyone()

    def _restore(self, state: Mapping[str, Stateful]) -> int:
        path = self.folder / "checkpoint.pt" if self.folder else None
        if path is None or not path.exists():
            self.history = []
            step = 0
        else:
            checkpoint = _read_checkpoint(path)
            for name, part in state.items():
                _load(part, checkpoint, name, path)
            self.history, step = checkpoint["history"], checkpoint["step"]
        if self.folder and self.is_main:
            # Lines written after the checkpoint belong to steps that are done again.
            write_atomic(self.folder / "metrics.jsonl", "".join(map(_json_line, self.history)))
            samples = self.folder / "samples.jsonl"
            if samples.exists():
                write_atomic(samples, _lines_before(step, samples.read_bytes()))
        return step

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add one row of metrics to the history, the file (null where a number is not finite) and the tracker."""
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        self.history.append(row)
        if self.folder and self.is_main:
            _append(self.folder / "metrics.jsonl", _json_line(row))
            self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=step)

    def keep_sample(self, step: int, sample: Mapping[str, Any]) -> None:
        """Add what a model wrote at `step` to `samples.jsonl`."""
        if self.folder and self.is_main:
            _append(self.folder / "samples.jsonl", _json_line({"step": step, **sample}, ensure_ascii=False))

    def stage(self, name: str, **settings: Any) -> "Run":
        """A run of its own in a folder below this one (in memory if this one is), with a seed of its own."""
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:4], "big")
        settings = {"checkpoint_every": self.checkpoint_every, **settings}
        return Run(self.folder / name if self.folder else None, seed=seed, **settings)

    def clear_checkpoint(self) -> None:
        """Forget the checkpoint of a stage whose result has been saved."""
        if self.folder and self.is_main:
            (self.folder / "checkpoint.pt").unlink(missing_ok=True)
