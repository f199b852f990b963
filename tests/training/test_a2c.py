"""A2C is PPO without the ratio: the same run where there is one update a rollout; and it learns."""

from typing import Any

import pytest
import torch

from rlhf_lab.data.datasets import TLDR
from rlhf_lab.equations.policy_gradient import clipped_surrogate, clipped_value_error, policy_gradient_loss, value_error
from rlhf_lab.models import Policy
from rlhf_lab.runs import Run
from rlhf_lab.training.a2c import A2CConfig, a2c, a2c_config
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ppo import ppo, ppo_config
from tests.networks import seeded

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES: dict[str, Any] = {"num_steps": 3, "prompts_per_step": 4, "num_candidates": 2}
STEADY = OptimizerConfig(learning_rate=1e-3, schedule="constant")


def wordy(prompts: list[str], responses: list[str]) -> list[float]:
    return [min(len(response), 200) / 100 for response in responses]


def test_the_first_gradient_of_ppo_is_that_of_a2c() -> None:
    logprobs, advantages, returns = (torch.randn(3, 5, generator=seeded(seed)) for seed in range(3))
    for ratio_loss, loss in (
        (lambda now: clipped_surrogate(now, logprobs, advantages, clip_range=0.2), policy_gradient_loss),
        (lambda now: clipped_value_error(now, logprobs, returns, clip_range=0.2), None),
    ):
        now, same = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
        ratio_loss(now).sum().backward()
        (loss(same, advantages) if loss else value_error(same, returns)).sum().backward()
        torch.testing.assert_close(now.grad, same.grad)
    moved = (logprobs + 0.1).requires_grad_()  # Where the policy has moved, the ratio counts.
    clipped_surrogate(moved, logprobs, advantages, clip_range=0.2).sum().backward()
    assert not torch.allclose(moved.grad, -advantages, atol=0.02)  # type: ignore[arg-type]


def test_ppo_with_one_update_a_rollout_is_a2c(policy: Policy, data: TLDR) -> None:
    # Two rollouts: a third would be of weights that differ in their last digits, so that a token may.
    shared = {**SIZES, "num_steps": 2, "optimizer": STEADY, "critic_optimizer": STEADY, "kl_coef": 0.2}
    one = a2c(policy, wordy, data.prompts, a2c_config("tiny"), run=Run(seed=3), **shared)
    updates = {"num_epochs": 1, "minibatch_size": 4}
    other = ppo(policy, wordy, data.prompts, ppo_config("tiny"), run=Run(seed=3), **shared, **updates)
    moved = 0.0
    for name, tensor in other.network.state_dict().items():
        torch.testing.assert_close(one.network.state_dict()[name], tensor, atol=1e-5, rtol=0.0)
        moved = max(moved, (tensor - policy.network.state_dict()[name]).abs().max().item())
    assert moved > 1e-3
    for row, twin in zip(one.history, other.history, strict=True):
        assert row["a2c/value_loss"] == pytest.approx(twin["ppo/value_loss"], rel=1e-4)
        assert row["objective/kl"] == pytest.approx(twin["objective/kl"], abs=1e-4)
    twice = {"num_epochs": 2, "minibatch_size": 4}
    far = ppo(policy, wordy, data.prompts, ppo_config("tiny"), run=Run(seed=3), **shared, **twice)
    differing = [
        (tensor - far.network.state_dict()[name]).abs().max().item()
        for name, tensor in one.network.state_dict().items()
    ]
    assert max(differing) > 2e-4


def test_micro_batches_make_the_same_update(policy: Policy, data: TLDR) -> None:
    settings = {"entropy_coef": 0.1, "optimizer": STEADY, "critic_optimizer": STEADY}
    whole, parts = (
        a2c(policy, wordy, data.prompts, a2c_config("tiny"), **SIZES, **settings, micro_batch_size=size)
        for size in (4, 1)
    )
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=2e-5, rtol=0.0)


def test_the_bonus_keeps_the_entropy_up(policy: Policy, data: TLDR) -> None:
    settings = {"num_steps": 9, "kl_coef": 0.0, "optimizer": OptimizerConfig(learning_rate=3e-3, schedule="constant")}
    entropy = {}
    for coef in (0.0, 1.0):
        history = a2c(policy, wordy, data.prompts, a2c_config("tiny"), entropy_coef=coef, **settings).history
        entropy[coef] = sum(row["objective/entropy"] for row in history[-3:]) / 3
    assert entropy[1.0] > entropy[0.0] + 0.1


@pytest.mark.slow
def test_a2c_earns_more_of_a_reward_that_it_can_learn(policy: Policy, data: TLDR) -> None:
    fast = OptimizerConfig(learning_rate=3e-3, schedule="constant")
    settings = {"num_steps": 24, "kl_coef": 0.0, "optimizer": fast, "missing_eos_score": None}
    gain = {}
    for worth in (1.0, 0.0):  # Without a reward there is nothing to learn.

        def brief(prompts: list[str], responses: list[str], worth: float = worth) -> list[float]:
            return [-worth * score for score in wordy(prompts, responses)]

        watch = {"length": wordy}
        history = a2c(policy, brief, data.prompts, a2c_config("tiny"), watch=watch, **settings).history
        first, last = (sum(row["objective/length"] for row in rows) / 6 for rows in (history[:6], history[-6:]))
        gain[worth] = first - last
    assert gain[1.0] > 0.12
    assert gain[1.0] > gain[0.0] + 0.12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, not 0"),
        ({"kl_coef": -0.1}, r"kl_coef \(-0\.1\) and entropy_coef \(0\.0\) must be 0 or more"),
        ({"entropy_coef": -1.0}, r"entropy_coef \(-1\.0\) must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        A2CConfig(**settings)


@pytest.mark.parametrize("seam", ["policy_loss", "critic_loss"])
def test_an_equation_of_ones_own_trains_and_a_wrong_one_is_refused(seam: str, policy: Policy, data: TLDR) -> None:
    own = {"policy_loss": policy_gradient_loss, "critic_loss": value_error}[seam]
    calls = []

    def mine(*args: Any) -> Any:
        calls.append(args)
        return own(*args)

    plain = a2c(policy, wordy, data.prompts, a2c_config("tiny"), **SIZES)
    again = a2c(policy, wordy, data.prompts, a2c_config("tiny"), **SIZES, **{seam: mine})
    assert len(calls) == 3
    assert plain.history == again.history
    with pytest.raises(ValueError, match=rf"{seam} .* must give one number for each token"):
        a2c(policy, wordy, data.prompts, a2c_config("tiny"), **SIZES, **{seam: lambda *args: own(*args).mean()})
