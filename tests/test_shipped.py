"""Trained models that ship: read back as written, within their budget, and as good as they are said to be."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from rlhf_lab import shipped
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.evaluation import compare_with_reference, reward_model_report
from rlhf_lab.experiments.course_models import MEASURED_FILE, TOLERANCE
from rlhf_lab.experiments.tldr import SIZES
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel, load_base, new_reward_model
from rlhf_lab.shipped import (
    SHIPPED,
    course_folder,
    load_shipped_comparisons,
    load_trained,
    save_comparisons,
    save_trained,
)
from tests.capabilities import ROOT

HISTORY = (
    {"step": 0, "loss": 1.23456789, "held_out/kl": 0.0, "accuracy": None},
    {"step": 1, "loss": 1e-7, "accuracy": 0.5},
)
READ_BACK = ({"step": 0, "loss": 1.2346, "held_out/kl": 0.0}, {"step": 1, "loss": 1e-7, "accuracy": 0.5})
PAIR = (["A post.\n\nTL;DR:"] * 2, [" A dog.", " A cat, and another."])


def half_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.half().float() for name, tensor in network.state_dict().items()}


def moved(model: Any) -> Any:
    """The model with other weights than its base's."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return type(model)(model.network, model.tokenizer, HISTORY)


def measured() -> dict[str, Any]:
    return json.loads((course_folder() / MEASURED_FILE).read_text())


def test_a_policy_reads_back_in_half_precision(tmp_path: Path) -> None:
    policy = moved(load_base("small"))
    save_trained(policy, "supervised", "small", folder=tmp_path)
    loaded = load_trained("supervised", "small", folder=tmp_path)
    assert isinstance(loaded, Policy)
    expected = half_of(policy.network)
    assert loaded.network.dtype == torch.float32
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert loaded.network.get_output_embeddings().weight is loaded.network.get_input_embeddings().weight
    assert loaded.history == READ_BACK
    assert loaded.tokenizer.get_vocab() == policy.tokenizer.get_vocab()


def test_a_reward_model_reads_back_with_its_offset(tmp_path: Path) -> None:
    model = moved(new_reward_model(load_base("small"), generator=torch.Generator().manual_seed(0)))
    model.network.config.score_offset = 0.123456789
    save_trained(model, "reward_model", "small", folder=tmp_path)
    loaded = load_trained("reward_model", "small", folder=tmp_path)
    assert isinstance(loaded, RewardModel)
    assert loaded.network.config.score_offset == 0.123456789
    assert LearnedReward(loaded)(*PAIR) == pytest.approx(LearnedReward(model)(*PAIR), abs=0.02)
    assert loaded.history == READ_BACK


def test_comparisons_read_back(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Ein Käse\u2028", "chosen": " a", "rejected": " b", "labeler": "x", "confidence": 3},
        {"prompt": "q", "chosen": " c", "rejected": " d", "labeler": "", "confidence": 0},
    ]
    save_comparisons(Dataset.from_list(rows), "train", folder=tmp_path)
    assert load_shipped_comparisons("train", folder=tmp_path).to_list() == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sft",), r"no trained model ships for the stage 'sft' at the size large; choose one of supervised, reward_"),
        (("no_penalty", "small"), r"for the stage 'no_penalty' at the size small; choose one of supervised, rew"),
        (("supervised", "huge"), r"no trained model ships at the size 'huge'; choose one of large, medium, small"),
    ],
)
def test_what_does_not_ship_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_trained(*arguments)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no comparisons ship under the name 'test'; choose one of train, held_out\."):
        load_shipped_comparisons("test")


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    for load in (
        lambda: load_trained("supervised", "small", folder=tmp_path),
        lambda: load_shipped_comparisons("train", folder=tmp_path),
    ):
        with pytest.raises(ValueError, match=r" is not there; make it with: rlhf-lab course-models --out DIR\.$"):
            load()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    save_trained(moved(load_base("small")), "supervised", "small", folder=tmp_path)
    path = tmp_path / "small" / "supervised.safetensors.xz"
    whole = path.read_bytes()
    for damaged in (whole[:5000], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"supervised\.safetensors\.xz is damaged \(\w+\); install the package"):
            load_trained("supervised", "small", folder=tmp_path)
    (tmp_path / "comparisons_train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"comparisons_train\.parquet is damaged \(\w+\)"):
        load_shipped_comparisons("train", folder=tmp_path)


def test_weights_of_another_size_are_damage(tmp_path: Path) -> None:
    save_trained(load_base("small"), "supervised", "medium", folder=tmp_path)
    with pytest.raises(ValueError, match=r"medium/supervised\.safetensors\.xz is damaged"):
        load_trained("supervised", "medium", folder=tmp_path)


def test_the_trained_models_ship_within_their_budget() -> None:
    files = {path: path.stat().st_size for path in course_folder().rglob("*") if path.is_file()}
    assert sum(files.values()) <= 12 * 2**20
    assert sum(size for path, size in files.items() if path.suffix == ".parquet") <= 600_000


def test_half_precision_does_what_full_precision_did() -> None:
    found = measured()
    assert found.pop("config") == {"scale": "laptop", "seed": 0}
    assert set(found) == {f"{size}/{stage}" for size, stages in SHIPPED.items() for stage in stages}
    for name, row in found.items():
        full, half = row["full_precision"], row["half_precision"]
        assert abs(full["mean"] - half["mean"]) <= TOLERANCE, name
        assert full["n"] == half["n"] >= 500, name


def test_the_datasheet_states_what_was_measured() -> None:
    lines = (course_folder() / "README.md").read_text().splitlines()
    for size, stages in SHIPPED.items():
        (line,) = [line for line in lines if line.startswith(f"| {size} |")]
        for stage in stages:
            half, full = (measured()[f"{size}/{stage}"][f"{kind}_precision"]["mean"] for kind in ("half", "full"))
            assert f" {100 * half:.1f} % ({100 * full:.1f} %) " in line, (size, stage)


@pytest.mark.parametrize("size", SHIPPED)
def test_histories_hold_what_the_plots_need(size: str) -> None:
    needed = {
        "supervised": ("sft/loss",),
        "reward_model": ("rm/accuracy", "rm/loss"),
        "human_feedback": ("objective/kl", "held_out/kl", "held_out/score", "held_out/gold", "ppo/explained_variance"),
    }
    needed["no_penalty"] = needed["human_feedback"]
    for stage in SHIPPED[size]:
        history = load_trained(stage, size).history
        assert [row["step"] for row in history] == list(range(len(history)))
        for name in needed[stage]:
            seen = [row[name] for row in history if name in row]
            assert len(seen) > 5, (stage, name)
            assert all(math.isfinite(value) for value in seen)


def test_the_comparisons_are_those_of_the_main_job() -> None:
    sizes, held_out = SIZES["laptop"], load_shipped_comparisons("held_out")
    train = load_shipped_comparisons()
    assert (len(train), len(held_out)) == (sizes.num_pairs, sizes.held_out_pairs)
    assert not set(train["prompt"]) & set(held_out["prompt"])
    assert all(chosen != rejected for chosen, rejected in zip(train["chosen"], train["rejected"], strict=True))


@pytest.mark.slow
def test_the_models_are_as_good_as_stated() -> None:
    posts = load_tldr(scale="laptop", seed=0).validation
    stages = ("supervised", "human_feedback")
    policies = {f"large/{stage}": load_trained(stage) for stage in stages}
    for name, row in compare_with_reference(policies, posts).items():  # type: ignore[arg-type]
        assert row["win_rate"]["mean"] == pytest.approx(measured()[name]["half_precision"]["mean"], abs=TOLERANCE)
    model = load_trained("reward_model")
    assert isinstance(model, RewardModel)
    accuracy = reward_model_report(model, load_shipped_comparisons("held_out"))["accuracy"]["mean"]
    assert accuracy == pytest.approx(measured()["large/reward_model"]["half_precision"]["mean"], abs=TOLERANCE)


def test_every_folder_of_data_is_in_the_wheel() -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {f"data/{path.name}" for path in (ROOT / "data").iterdir() if path.is_dir()}
    assert folders == set(included["force-include"])
    assert all(target == f"rlhf_lab/_{source}" for source, target in included["force-include"].items())


def test_the_course_folder_lies_beside_the_base_models() -> None:
    assert course_folder() == shipped.checkpoint_folder().parent / "course"
