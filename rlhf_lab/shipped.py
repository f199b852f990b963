"""The trained models and the comparisons that ship with the course, so that each notebook runs alone.

A model is its weights in half precision, as safetensors, compressed with xz: `xz -d` gives an ordinary file. Shape and
tokenizer are those of its base model. What training logged lies beside it as CSV.
"""

import csv
import io
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from pyarrow import Table, parquet
from safetensors import torch as safetensors

from rlhf_lab.models import (
    Policy,
    RewardModel,
    checkpoint_folder,
    load_tokenizer,
    new_policy,
    new_reward_model,
)
from rlhf_lab.records import write_atomic

SHIPPED = {
    "large": ("supervised", "reward_model", "human_feedback", "no_penalty"),
    "medium": ("supervised", "reward_model", "human_feedback"),
    "small": ("supervised", "reward_model", "human_feedback"),
}
"""Stages of the main job, by the size of the base model; PPO without a penalty is worth a look at one size."""
PARTS = ("train", "held_out")
COMMAND = "rlhf-lab course-models"
_OFFSET = "score_offset"
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
"""One and the same in our base models, and so written once."""
# Numbers of two bytes each: their high bytes are alike, their low ones are noise.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 1, "pb": 1}]


def course_folder() -> Path:
    """Where the trained models lie: beside the base models."""
    return checkpoint_folder().parent / "course"


def load_trained(stage: str, size: str = "large", *, folder: str | Path | None = None) -> Policy | RewardModel:
    """A trained model of the course, with the metrics of its training as `history`.

    Args:
        stage: supervised, reward_model, human_feedback or (large only) no_penalty.
        size: Of its base model: small, medium or large.
        folder: Where the models lie; by default those that ship.

    Raises:
        ValueError: None ships for this stage or size, or its file is missing or damaged.
    """
    if size not in SHIPPED:
        raise ValueError(f"no trained model ships at the size {size!r}; choose one of {', '.join(SHIPPED)}.")
    if stage not in SHIPPED[size]:
        raise ValueError(
            f"no trained model ships for the stage {stage!r} at the size {size}; "
            f"choose one of {', '.join(SHIPPED[size])}."
        )
    path = _weights_file(folder, stage, size)
    data, history = _read(path), _read_history(path.with_name(f"{stage}.csv"))
    model = new_policy(size, load_tokenizer(checkpoint_folder() / size))
    if stage == "reward_model":
        model = new_reward_model(model, generator=torch.Generator())
    try:
        weights = safetensors.load(lzma.decompress(data))
        if stage == "reward_model":
            model.network.config.score_offset = weights.pop(_OFFSET).item()
        else:
            weights[_OUTPUT] = weights[_EMBEDDING]
        model.network.load_state_dict(weights)
    except Exception as error:  # which one depends on where the damage is
        raise _damaged(path, error) from error
    return type(model)(model.network.eval(), model.tokenizer, history)  # type: ignore[arg-type]


def save_trained(model: Policy | RewardModel, stage: str, size: str, *, folder: str | Path) -> None:
    """Write a model of a base model's shape, and its history, as `load_trained` reads them."""
    weights = {name: tensor.half().contiguous() for name, tensor in model.network.state_dict().items()}
    if isinstance(model, RewardModel):
        weights[_OFFSET] = torch.tensor(float(model.network.config.score_offset), dtype=torch.float64)
    else:
        del weights[_OUTPUT]
    path = _weights_file(folder, stage, size)
    write_atomic(path, lzma.compress(safetensors.save(weights), filters=_FILTERS))
    write_atomic(path.with_name(f"{stage}.csv"), _history_text(model.history))


def load_shipped_comparisons(part: str = "train", *, folder: str | Path | None = None) -> Dataset:
    """The comparisons that the course's reward models learnt from (`train`), or others to test them with (`held_out`).

    Both summaries of a pair are by the large supervised policy. The people are `population(seed=0)`.

    Raises:
        ValueError: There is no such part, or its file is missing or damaged.
    """
    if part not in PARTS:
        raise ValueError(f"no comparisons ship under the name {part!r}; choose one of {', '.join(PARTS)}.")
    path = _comparisons_file(folder, part)
    data = _read(path)
    try:
        return Dataset.from_list(parquet.read_table(io.BytesIO(data)).to_pylist())
    except Exception as error:
        raise _damaged(path, error) from error


def save_comparisons(rows: Dataset, part: str, *, folder: str | Path) -> None:
    """Write comparisons as `load_shipped_comparisons` reads them."""
    buffer = io.BytesIO()
    parquet.write_table(Table.from_pylist(rows.to_list()), buffer, compression="zstd", compression_level=19)
    write_atomic(_comparisons_file(folder, part), buffer.getvalue())


def _weights_file(folder: str | Path | None, stage: str, size: str) -> Path:
    return Path(folder or course_folder()) / size / f"{stage}.safetensors.xz"


def _comparisons_file(folder: str | Path | None, part: str) -> Path:
    return Path(folder or course_folder()) / f"comparisons_{part}.parquet"


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path} is not there; make it with: {COMMAND} --out DIR.")
    return path.read_bytes()


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is damaged ({type(error).__name__}); install the package again, or make it with: {COMMAND} --out DIR."
    )


def _history_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, numbers to 5 digits; what a step did not log, or could not tell, is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue()


def _read_history(path: Path) -> tuple[dict[str, Any], ...]:
    rows = csv.DictReader(io.StringIO(_read(path).decode()))
    return tuple(
        {name: int(value) if name == "step" else float(value) for name, value in row.items() if value} for row in rows
    )
