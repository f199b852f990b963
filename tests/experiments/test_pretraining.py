"""The base models that ship: one tokenizer, the loss that their datasheet states, and a rebuild that repeats itself."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.data.datasets import pretraining_texts
from rlhf_lab.experiments.pretraining import LOSS_FILE, PRETRAINING, pretrain_base, shipped_loss, train_tokenizer
from rlhf_lab.models import MODEL_SIZES, checkpoint_folder, load_base


def stated(size: str) -> dict[str, Any]:
    return json.loads((checkpoint_folder() / size / LOSS_FILE).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("size", MODEL_SIZES)
def test_the_models_have_the_loss_that_is_stated(size: str) -> None:
    assert stated(size)["recipe"] == asdict(PRETRAINING[size])
    assert shipped_loss(checkpoint_folder() / size) == pytest.approx(stated(size)["held_out_loss"], abs=1e-3)


def test_larger_models_are_better() -> None:
    losses = [stated(size)["held_out_loss"] for size in MODEL_SIZES]  # in the order of their size
    assert losses == sorted(losses, reverse=True)


def test_the_three_sizes_share_one_tokenizer() -> None:
    files = {(checkpoint_folder() / size / "tokenizer.json").read_text() for size in MODEL_SIZES}
    assert len(files) == 1


@pytest.mark.slow
def test_the_tokenizer_is_the_one_that_a_rebuild_makes() -> None:
    rebuilt = train_tokenizer(pretraining_texts(20_000, seed=0))
    assert rebuilt.get_vocab() == load_base("small").tokenizer.get_vocab()


@pytest.mark.slow
def test_a_rebuild_repeats_itself_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_lab.experiments.pretraining.NUM_TEXTS", 500)
    losses = [pretrain_base("small", tmp_path / name, num_steps=20)[1] for name in ("one", "two")]
    assert losses[0] == losses[1] < 8.0
    one, two = (tmp_path / name / "result" / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
