"""Stages that train an adapter: what they leave alone, what they share, and that they go on after a kill."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.adapters import LoRAConfig, has_lora
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.feedback import population
from rlhf_lab.models import Policy, RewardModel, load_base, new_reward_model
from rlhf_lab.runs import Run
from rlhf_lab.training.dpo import dpo, dpo_config
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.supervised import sft, sft_config

LORA = LoRAConfig(rank=4)
DATA = load_tldr(scale="tiny")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base() -> Policy:
    return load_base("tiny")


@pytest.fixture(scope="module")
def labels() -> Any:
    rows = DATA.demonstrations.select(range(32))
    answers = list(rows["completion"])
    return population(agreement=0.6).compare(
        list(rows["prompt"]), list(zip(answers, answers[1:] + answers[:1], strict=True))
    )


def places(network: torch.nn.Module) -> set[int]:
    return {weight.data_ptr() for weight in network.parameters()}


def values(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def assert_untouched(network: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    assert not has_lora(network)


def loss_falls(history: Any, name: str) -> bool:
    return history[-1][name] < history[0][name]


def test_sft_trains_the_adapter_and_nothing_else(base: Policy) -> None:
    before = values(base.network)
    tuned = sft(base, DATA.demonstrations.select(range(64)), sft_config("tiny"), lora=LORA)
    assert loss_falls(tuned.history, "sft/loss")
    assert_untouched(base.network, before)
    assert places(base.network) < places(tuned.network)


def test_a_reward_model_and_dpo_train_adapters_on_the_policy(base: Policy, labels: Any) -> None:
    before = values(base.network)
    model = train_reward_model(base, labels, reward_model_config("tiny"), lora=LORA)
    tuned = dpo(base, labels, dpo_config("tiny"), lora=LORA)
    assert_untouched(base.network, before)
    for network in (model.network.base_model, tuned.network.base_model):
        assert len(places(base.network.base_model) & places(network)) >= len(places(base.network.base_model)) - 1
    # Before its first update DPO's policy is its reference, adapter or not.
    assert tuned.history[0]["dpo/loss"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-6)
    assert tuned.history[-1]["dpo/loss"] != tuned.history[0]["dpo/loss"]


class Cut(Exception):
    """Stands for a kill between two steps."""


def tuned_by_ppo(base: Policy, folder: Path, kind: str, monkeypatch: Any, *, cut: bool) -> Policy:
    config = ppo_config("tiny")
    slow = OptimizerConfig(learning_rate=1e-3, schedule="constant", kind=kind)
    model: RewardModel = new_reward_model(base, generator=Run().rng("head"), lora=LORA)
    config = replace(config, optimizer=slow, critic_optimizer=slow, lora=LORA)
    log = Run.log

    def stop(run: Run, step: int, metrics: Any) -> None:
        if step == 2:
            raise Cut
        log(run, step, metrics)

    if cut:
        with monkeypatch.context() as patch, pytest.raises(Cut):
            patch.setattr(Run, "log", stop)
            ppo(base, model, DATA.prompts, config, run=Run(folder, checkpoint_every=1))
    return ppo(base, model, DATA.prompts, config, run=Run(folder, checkpoint_every=1))


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_ppo_on_adapters_goes_on_after_a_kill(
    kind: str, base: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = values(base.network)
    whole = tuned_by_ppo(base, tmp_path / "whole", kind, monkeypatch, cut=False)
    again = tuned_by_ppo(base, tmp_path / "cut", kind, monkeypatch, cut=True)
    assert_untouched(base.network, before)
    assert places(base.network) < places(whole.network)
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name]), name
    rows = [[row["objective/kl"] for row in policy.history] for policy in (whole, again)]
    assert rows[0] == rows[1] and abs(rows[0][0]) < 1e-5 < abs(rows[0][-1])
    size = (tmp_path / "whole" / "checkpoint.pt").stat().st_size
    # Of two networks a weight and two moments would be 24 bytes.
    assert size < 24 / 4 * sum(weight.numel() for weight in base.network.parameters())


def test_8_bit_moments_make_nearly_the_same_update(base: Policy) -> None:
    moved = {}
    for kind in ("adamw", "adamw_8bit"):
        optimizer = OptimizerConfig(learning_rate=1e-3, schedule="constant", kind=kind)
        tuned = sft(base, DATA.demonstrations.select(range(64)), sft_config("tiny"), optimizer=optimizer)
        differences = [
            (weight - base.network.state_dict()[name]).flatten() for name, weight in tuned.network.state_dict().items()
        ]
        moved[kind] = torch.cat(differences)
    assert not torch.equal(moved["adamw"], moved["adamw_8bit"])
    assert torch.cosine_similarity(moved["adamw"], moved["adamw_8bit"], dim=0) > 0.99


def test_an_optimizer_that_is_unknown_or_not_installed(base: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the optimizer 'lion' is unknown; choose one of adamw, adamw_8bit"):
        OptimizerConfig(kind="lion")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="the optimizer adamw_paged needs bitsandbytes; install it with"):
        sft(base, DATA.demonstrations, sft_config("tiny"), optimizer=OptimizerConfig(kind="adamw_paged"))
