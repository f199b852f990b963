"""Activations that are computed again in the backward change the memory and nothing else."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.attention import recomputing
from rlhf_lab.data.batching import Candidates
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.feedback import population
from rlhf_lab.models import Policy, load_base, new_reward_model
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.training import actor_critic, dpo, ppo, reward_model, rloo, supervised
from tests.networks import architectures, random_network, seeded

DATA = load_tldr(scale="tiny")
pytestmark = pytest.mark.usefixtures("one_thread")


def sft_of(base: Policy, lora: LoRAConfig | None) -> nn.Module:
    rows = DATA.demonstrations.select(range(32))
    return supervised.sft(base, rows, supervised.sft_config("tiny"), lora=lora).network


def reward_model_of(base: Policy, lora: LoRAConfig | None) -> nn.Module:
    config = reward_model.reward_model_config("tiny")
    return reward_model.train_reward_model(base, labels(), config, lora=lora).network


def dpo_of(base: Policy, lora: LoRAConfig | None) -> nn.Module:
    return dpo.dpo(base, labels(), dpo.dpo_config("tiny"), lora=lora, micro_batch_size=4).network


def ppo_of(base: Policy, lora: LoRAConfig | None) -> nn.Module:
    reward = new_reward_model(base, generator=seeded())
    return ppo.ppo(base, reward, DATA.prompts, ppo.ppo_config("tiny"), lora=lora, num_steps=2).network


def rloo_of(base: Policy, lora: LoRAConfig | None) -> nn.Module:
    reward = new_reward_model(base, generator=seeded())
    return rloo.rloo(base, reward, DATA.prompts, rloo.rloo_config("tiny"), lora=lora, num_steps=2).network


STAGES = {supervised: sft_of, reward_model: reward_model_of, dpo: dpo_of, ppo: ppo_of, rloo: rloo_of}
stages = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__.rpartition(".")[2])


def labels() -> Any:
    rows = DATA.demonstrations.select(range(32))
    answers = list(rows["completion"])
    pairs = list(zip(answers, answers[1:] + answers[:1], strict=True))
    return population(agreement=0.6).compare(list(rows["prompt"]), pairs)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)], ids=["whole", "lora"])
@stages
def test_a_stage_makes_the_same(stage: Any, lora: LoRAConfig | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for recompute in (False, True):
        seen: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(
                actor_critic if stage in (ppo, rloo) else stage,
                "check_memory",
                lambda *args, answer=recompute, **settings: answer,
            )
            patch.setattr(LlamaMLP, "forward", watched(LlamaMLP.forward, seen))
            made.append(STAGES[stage](load_base("tiny"), lora))
        assert bool(seen) == recompute
        assert not any(getattr(module, "gradient_checkpointing", False) for module in made[-1].modules())
        assert not any(module._forward_hooks for module in made[-1].modules())
    for one, other in zip(made[0].parameters(), made[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def watched(forward: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    """Notes each feed-forward that is run within a backward."""

    def run(layer: nn.Module, *args: Any, **settings: Any) -> Any:
        if torch._C._current_graph_task_id() != -1:
            seen.append(type(layer).__name__)
        return forward(layer, *args, **settings)

    return run


@architectures
def test_gradients_are_the_same(architecture: str) -> None:
    candidates = Candidates(
        prompt=torch.randint(2, 40, (3, 7), generator=seeded()),
        prompt_mask=torch.arange(7) >= torch.tensor([[0], [3], [5]]),
        responses=torch.randint(2, 40, (3, 2, 4), generator=seeded(1)),
        response_mask=torch.arange(4) < torch.tensor([[[4], [2]], [[1], [3]], [[4], [4]]]),
    )
    gradients = []
    for recompute in (False, True):
        network = random_network(architecture, vocab_size=40, eos_token_id=0, pad_token_id=None).train()
        with recomputing(network) if recompute else contextlib.nullcontext():
            candidate_logprobs(network, candidates).square().sum().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
