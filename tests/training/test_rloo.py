"""RLOO: its step is REINFORCE on whole responses with the others' mean as a baseline; and it learns."""

from typing import Any

import pytest
import torch

from rlhf_lab.data.datasets import TLDR
from rlhf_lab.equations.groups import leave_one_out
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy, copy_network
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.training.actor_critic import collecting
from rlhf_lab.training.experience import Models, collect
from rlhf_lab.training.fit import Frozen, OptimizerConfig
from rlhf_lab.training.rloo import RLOOConfig, rloo, rloo_config

pytestmark = pytest.mark.usefixtures("one_thread")
STEADY = OptimizerConfig(learning_rate=1e-3, schedule="constant")
SHORT: dict[str, Any] = {
    "optimizer": STEADY,
    "sampling": SamplingConfig(max_response_tokens=16),
    "max_prompt_tokens": 128,
}
LEARNING = SHORT | {"num_steps": 30, "prompts_per_step": 8, "missing_eos_score": None}


def vowels(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward that hardly two responses share, and that anything can learn."""
    return [5 * sum(letter in "aeiou" for letter in response) / max(len(response), 1) for response in responses]


def test_a_step_is_reinforce_on_whole_responses(policy: Policy, data: TLDR) -> None:
    """By hand, and twice: before the first update there is no KL to pay for."""
    prompts = data.prompts.select(range(3))
    config = RLOOConfig(
        num_steps=2,
        prompts_per_step=3,
        num_candidates=3,
        kl_coef=0.7,
        max_prompt_tokens=96,
        sampling=rloo_config("tiny").sampling,
        optimizer=STEADY,
        missing_eos_score=None,
    )
    trained = rloo(policy, vowels, prompts, config, run=Run(seed=3))

    network, run, prices = copy_network(policy.network), Run(seed=3), []
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0)
    for step in range(2):
        asked = [prompts[row]["prompt"] for row in run.batch_rows(step, 3, 3)]
        models = Models(Frozen(network), Frozen(policy.network), None, vowels)
        seen = collect(run, asked, models, policy.tokenizer, rng=run.rng("sampling", step), **collecting(config))
        logprobs = candidate_logprobs(network, seen, temperature=0.5).sum(-1)
        rewards = seen.scores - 0.7 * (seen.old_logprobs - seen.ref_logprobs).sum(-1)
        prices.append(seen.kl.abs().max().item())
        loss = torch.zeros(())
        for prompt in range(3):
            for one in range(3):
                others = [float(rewards[prompt, other]) for other in range(3) if other != one]
                loss = loss - (float(rewards[prompt, one]) - sum(others) / 2) * logprobs[prompt, one] / 9
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert trained.history[step]["rloo/policy_loss"] == pytest.approx(loss.item(), abs=1e-3, rel=1e-4)
    assert prices[0] < 1e-5 and prices[1] > 0.01
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained.network.state_dict()[name], tensor, atol=2e-5, rtol=0)


def test_micro_batches_make_the_same_update(policy: Policy, data: TLDR) -> None:
    whole, parts = (
        rloo(policy, vowels, data.prompts, rloo_config("tiny"), num_steps=2, micro_batch_size=size, **SHORT)
        for size in (4, 1)
    )
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=2e-5, rtol=0.0)


@pytest.mark.slow
def test_rloo_earns_more_of_a_reward_that_it_can_learn(policy: Policy, data: TLDR) -> None:
    def brief(prompts: list[str], responses: list[str]) -> list[float]:
        return [-min(len(response), 200) / 100 for response in responses]

    fast = OptimizerConfig(learning_rate=3e-3, schedule="constant")
    settings = {"num_steps": 24, "kl_coef": 0.0, "optimizer": fast, "missing_eos_score": None}
    gain = {}
    for name, advantages in (("own", leave_one_out), ("another's", lambda rewards: leave_one_out(rewards).roll(1, -1))):
        history = rloo(policy, brief, data.prompts, rloo_config("tiny"), advantages=advantages, **settings).history
        first, last = (sum(row["objective/score"] for row in rows) / 6 for rows in (history[:6], history[-6:]))
        gain[name] = last - first
    assert gain["own"] > 0.12
    assert gain["own"] > gain["another's"] + 0.12


@pytest.mark.slow
def test_the_kl_penalty_holds_the_policy_back(policy: Policy, data: TLDR) -> None:
    kl = {}
    for kl_coef in (0.0, 5.0):
        history = rloo(policy, vowels, data.prompts, rloo_config("tiny"), **LEARNING, kl_coef=kl_coef).history
        kl[kl_coef] = sum(row["objective/kl"] for row in history[-4:]) / 4
    assert kl[5.0] < 0.5 * kl[0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, not 0"),
        ({"kl_coef": -0.1}, r"kl_coef must be 0 or more, not -0\.1"),
        ({"num_candidates": 1}, "num_candidates must be 2 or more, not 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RLOOConfig(**settings)


def test_advantages_of_ones_own_train_and_wrong_ones_are_refused(policy: Policy, data: TLDR) -> None:
    calls = []

    def mine(rewards: torch.Tensor) -> torch.Tensor:
        calls.append(rewards)
        return leave_one_out(rewards)

    settings = SHORT | {"num_steps": 2}
    plain = rloo(policy, vowels, data.prompts, rloo_config("tiny"), **settings)
    again = rloo(policy, vowels, data.prompts, rloo_config("tiny"), **settings, advantages=mine)
    assert len(calls) == 2
    assert plain.history == again.history
    other = rloo(policy, vowels, data.prompts, rloo_config("tiny"), **settings, advantages=lambda rewards: -rewards)
    assert other.history != plain.history
    with pytest.raises(ValueError, match=r"advantages .* must give one number for each response"):
        rloo(policy, vowels, data.prompts, rloo_config("tiny"), advantages=lambda rewards: rewards.mean(-1))
