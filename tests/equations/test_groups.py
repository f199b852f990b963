"""Advantages of groups: by hand, unbiased on an enumerated policy, and what each of GRPO's changes does."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlhf_lab.equations.groups import group_normalized, leave_one_out
from rlhf_lab.equations.sequence import kl_exact, kl_k1, kl_k3
from tests.networks import seeded

CHOICES, KL_COEF = 4, 0.3
LOGITS, REF_LOGITS, SCORES = (torch.randn(CHOICES, generator=seeded(seed), dtype=torch.float64) for seed in range(3))


def expected_gradient(advantages: Callable[[Tensor], Tensor], num_candidates: int, kl_coef: float) -> Tensor:
    """Mean of (1 / K) sum_i A_i grad log pi(y_i) over all groups of K responses that the policy can write."""
    logits = LOGITS.clone().requires_grad_()
    logprobs, ref_logprobs = logits.log_softmax(-1), REF_LOGITS.log_softmax(-1)
    rewards = SCORES - kl_coef * kl_k1(logprobs, ref_logprobs).detach()
    groups = torch.tensor(list(itertools.product(range(CHOICES), repeat=num_candidates)))
    prob = logprobs.detach()[groups].sum(-1).exp()
    terms = (advantages(rewards[groups]) * logprobs[groups]).mean(-1)
    (gradient,) = torch.autograd.grad((prob * terms).sum(), logits)
    return gradient


def true_gradient(kl_coef: float) -> Tensor:
    """Of the expected score minus the price of KL(policy || reference)."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(-1)
    objective = (logprobs.exp() * SCORES).sum() - kl_coef * kl_exact(logprobs, REF_LOGITS.log_softmax(-1))
    (gradient,) = torch.autograd.grad(objective, logits)
    return gradient


@pytest.mark.parametrize("kl_coef", [0.0, KL_COEF])
@pytest.mark.parametrize("num_candidates", [2, 3, 4])
def test_leave_one_out_leaves_the_gradient_unbiased(num_candidates: int, kl_coef: float) -> None:
    gradient = expected_gradient(leave_one_out, num_candidates, kl_coef)
    torch.testing.assert_close(gradient, true_gradient(kl_coef))
    # The mean of all K is no baseline: it holds the response itself.
    of_mean = expected_gradient(lambda rewards: group_normalized(rewards, scale_by_std=False), num_candidates, kl_coef)
    torch.testing.assert_close(of_mean * num_candidates / (num_candidates - 1), gradient)


def test_leave_one_out_varies_less_than_no_baseline() -> None:
    def variance(advantages: Callable[[Tensor], Tensor]) -> float:
        """Of the estimate of one group, over all groups."""
        logits = LOGITS.clone().requires_grad_()
        logprobs = logits.log_softmax(-1)
        groups = torch.tensor(list(itertools.product(range(CHOICES), repeat=3)))
        prob = logprobs.detach()[groups].sum(-1).exp()
        scores_of_choice = torch.eye(CHOICES, dtype=torch.float64) - logprobs.detach().exp()  # grad log pi
        estimates = (advantages(SCORES[groups] + 3.0).unsqueeze(-1) * scores_of_choice[groups]).mean(1)
        mean = (prob.unsqueeze(-1) * estimates).sum(0)
        return float((prob.unsqueeze(-1) * (estimates - mean).square()).sum())

    assert variance(leave_one_out) < 0.5 * variance(lambda rewards: rewards)


def test_the_division_by_the_standard_deviation_turns_the_gradient() -> None:
    """It weighs groups, so even its direction is another; no factor mends that."""
    scaled = expected_gradient(group_normalized, 3, 0.0)
    cosine = torch.nn.functional.cosine_similarity(scaled, true_gradient(0.0), dim=0)
    assert 0.5 < float(cosine) < 0.999


def test_k1_in_the_reward_and_k3_in_the_loss_do_not_pull_the_same_way() -> None:
    logits = LOGITS.clone().requires_grad_()
    logprobs, ref_logprobs = logits.log_softmax(-1), REF_LOGITS.log_softmax(-1)
    (in_loss,) = torch.autograd.grad(
        -KL_COEF * (logprobs.detach().exp() * kl_k3(logprobs, ref_logprobs)).sum(), logits, retain_graph=True
    )
    in_reward = expected_gradient(leave_one_out, 2, KL_COEF) - expected_gradient(leave_one_out, 2, 0.0)
    (of_kl,) = torch.autograd.grad(-KL_COEF * kl_exact(logprobs, ref_logprobs), logits, retain_graph=True)
    (of_reverse,) = torch.autograd.grad(-KL_COEF * kl_exact(ref_logprobs, logprobs), logits)
    torch.testing.assert_close(in_reward, of_kl)  # The penalty of the objective.
    torch.testing.assert_close(in_loss, of_reverse)  # That of the other direction.
    assert (in_reward - in_loss).abs().max() > 0.1 * in_reward.abs().max()


def test_by_hand() -> None:
    rewards = torch.tensor([[0.0, 4.0], [1.0, 1.0]], dtype=torch.float64)
    assert leave_one_out(rewards).tolist() == [[-4.0, 4.0], [0.0, 0.0]]
    assert group_normalized(rewards, scale_by_std=False).tolist() == [[-2.0, 2.0], [0.0, 0.0]]
    scaled = group_normalized(rewards)  # The standard deviation is sqrt((4 + 4) / 1).
    torch.testing.assert_close(scaled[0], torch.tensor([-2.0, 2.0], dtype=torch.float64) / (8**0.5 + 1e-4))
    assert scaled[1].tolist() == [0.0, 0.0]


def test_the_scale_of_rewards_is_divided_out_and_their_zero_is_subtracted() -> None:
    rewards = torch.randn(5, 4, generator=seeded(1), dtype=torch.float64)
    for advantages in (leave_one_out, group_normalized):
        torch.testing.assert_close(advantages(rewards + 7.0), advantages(rewards))
        torch.testing.assert_close(advantages(rewards).sum(-1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(group_normalized(100 * rewards), group_normalized(rewards), atol=1e-3, rtol=0)
    torch.testing.assert_close(leave_one_out(100 * rewards), 100 * leave_one_out(rewards))


@pytest.mark.parametrize("advantages", [leave_one_out, group_normalized])
def test_a_response_alone_is_refused(advantages: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="each prompt needs 2 or more, not 1"):
        advantages(torch.ones(3, 1))
