"""What the main job will need, read from a model's config alone, and said by the command before it starts."""

from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXConfig

from rlhf_lab import memory
from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.cli import main
from rlhf_lab.experiments.sizing import memory_of_job
from rlhf_lab.models import load_base

PYTHIA_1B = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 8}
PYTHIA_7B = {"hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32, "num_attention_heads": 32}


def model_of(shape: dict[str, int], folder: Path) -> str:
    """A folder with a config and a tokenizer, and no weights."""
    GPTNeoXConfig(vocab_size=50304, **shape).save_pretrained(folder)
    load_base("tiny").tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_of_1b_by_hand(tmp_path: Path) -> None:
    supervised, reward_model, tuned = memory_of_job(model_of(PYTHIA_1B, tmp_path), mixed_precision="bf16")
    # EleutherAI's count of Pythia-1B: 1,011,781,632 weights.
    assert supervised.parts["weights"] == supervised.parts["gradients"] == 4 * 1_011_781_632
    assert supervised.parts["moments"] == 8 * 1_011_781_632
    backbone = 1_011_781_632 - 50304 * 2048
    assert reward_model.parts["weights"] == 4 * (backbone + 2048)
    assert tuned.parts["weights"] == 8 * (1_011_781_632 + backbone + 2048)
    assert 40e9 < tuned.total < 60e9


def test_adapters_share_their_base(tmp_path: Path) -> None:
    folder = model_of(PYTHIA_1B, tmp_path)
    settings = {"lora": LoRAConfig(rank=16), "dtype": torch.bfloat16, "mixed_precision": "bf16"}
    tuned = memory_of_job(folder, **settings)[2]
    # Policy, reference, critic and reward on one base, but for the two heads and the adapters.
    assert tuned.parts["weights"] < 1.2 * 2 * 1_011_781_632
    assert tuned.parts["moments"] < 0.5e9


def test_a_config_will_do(tmp_path: Path) -> None:
    of_config = memory_of_job(GPTNeoXConfig(vocab_size=50304, **PYTHIA_1B))
    of_folder = memory_of_job(model_of(PYTHIA_1B, tmp_path))
    assert [estimate.parts for estimate in of_config] == [estimate.parts for estimate in of_folder]


@pytest.mark.slow
def test_a_model_of_7b_with_adapters_fits_80_gb(tmp_path: Path) -> None:
    settings = {"lora": LoRAConfig(), "dtype": torch.bfloat16, "mixed_precision": "bf16"}
    estimates = memory_of_job(model_of(PYTHIA_7B, tmp_path), **settings)
    assert max(estimate.total for estimate in estimates) < 80e9


def test_the_command_says_what_it_needs_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 8e9)
    folder = model_of(PYTHIA_1B, tmp_path / "model")
    assert main(["tldr", "--scale", "gpu", "--model", folder, "--out", str(tmp_path / "out")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "supervised" in line]
    assert said[0].startswith("supervised needs about ")
    assert said[-1].startswith("rlhf-lab: supervised needs about ") and "of 8.0 GB on cpu; " in said[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"could not be read .*: it is no folder with a model"):
        memory_of_job(str(tmp_path / "none"))
