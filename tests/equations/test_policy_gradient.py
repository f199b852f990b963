"""Policy gradient equations against hand-made numbers, limits, invariances and gradient signs, in float64."""

import pytest
import torch
from torch import Tensor

from rlhf_lab.equations.policy_gradient import (
    adaptive_kl_coef,
    clipped_surrogate,
    clipped_value_error,
    gae,
    kl_shaped_rewards,
    replace_missing_eos_score,
)
from rlhf_lab.equations.sequence import masked_mean

MASK = torch.tensor(
    [[True, True, True, True], [True, True, True, False], [True, True, False, False], [True, False, False, False]]
)
LAST = [3, 2, 1, 0]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REWARDS, VALUES = normal(4, 4, seed=1), normal(4, 4, seed=2)
LOGPROBS, REF_LOGPROBS = normal(4, 4, seed=3), normal(4, 4, seed=4)
SCORES = torch.tensor([10.0, 20.0, 30.0, 40.0], dtype=torch.float64)


def test_score_lies_on_the_last_masked_token_and_the_kl_price_on_every_token() -> None:
    rewards = kl_shaped_rewards(SCORES, LOGPROBS, REF_LOGPROBS, MASK, kl_coef=0.5)
    expected = (-0.5 * (LOGPROBS - REF_LOGPROBS)) * MASK
    for row, last in enumerate(LAST):
        expected[row, last] += SCORES[row]
    torch.testing.assert_close(rewards, expected)


def test_rewards_sum_to_the_score_less_the_price_of_the_kl() -> None:
    rewards = kl_shaped_rewards(SCORES, LOGPROBS, REF_LOGPROBS, MASK, kl_coef=0.05)
    torch.testing.assert_close(rewards.sum(1), SCORES - 0.05 * ((LOGPROBS - REF_LOGPROBS) * MASK).sum(1))


def test_a_token_likelier_than_under_the_reference_is_charged() -> None:
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    rewards = kl_shaped_rewards(zeros[:, 0], zeros, zeros - 1.0, mask, kl_coef=0.1)
    torch.testing.assert_close(rewards, zeros - 0.1)


def test_without_price_only_the_score_is_left() -> None:
    rewards = kl_shaped_rewards(SCORES, LOGPROBS, REF_LOGPROBS, MASK, kl_coef=0.0)
    assert rewards.sum(1).tolist() == SCORES.tolist()
    assert (rewards != 0).sum().item() == 4


def test_missing_eos_score_replaces_rather_than_adds() -> None:
    finished = torch.tensor([[True, False], [False, True]])
    scores = replace_missing_eos_score(SCORES.view(2, 2), finished, -1.0)
    assert scores.tolist() == [[10.0, -1.0], [-1.0, 40.0]]
    assert SCORES.tolist() == [10.0, 20.0, 30.0, 40.0]


def test_gae_by_hand() -> None:
    # delta_2 = 4 - 1 = 3; delta_1 = 2 + 0.5 * 1 - 3 = -0.5; delta_0 = 1 + 0.5 * 3 - 2 = 0.5; gamma * lambda = 0.25
    rewards = torch.tensor([[1.0, 2.0, 4.0, 99.0]], dtype=torch.float64)
    values = torch.tensor([[2.0, 3.0, 1.0, 99.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    advantages = gae(rewards, values, mask, discount=0.5, gae_lambda=0.5)
    a1 = -0.5 + 0.25 * 3.0
    assert advantages.tolist() == [[0.5 + 0.25 * a1, a1, 3.0, 0.0]]


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_gae_with_lambda_one_is_monte_carlo(discount: float) -> None:
    advantages = gae(REWARDS, VALUES, MASK, discount=discount, gae_lambda=1.0)
    for row, last in enumerate(LAST):
        for t in range(last + 1):
            to_go = sum(discount ** (k - t) * REWARDS[row, k].item() for k in range(t, last + 1))
            assert advantages[row, t].item() == pytest.approx(to_go - VALUES[row, t].item(), abs=1e-12)


def test_gae_with_lambda_zero_is_the_one_step_error() -> None:
    advantages = gae(REWARDS, VALUES, MASK, discount=0.9, gae_lambda=0.0)
    for row, last in enumerate(LAST):
        for t in range(last + 1):
            after = VALUES[row, t + 1].item() if t < last else 0.0
            expected = REWARDS[row, t].item() + 0.9 * after - VALUES[row, t].item()
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_gae_of_a_critic_that_knows_the_return_is_zero(gae_lambda: float) -> None:
    to_go = (REWARDS * MASK).flip(-1).cumsum(-1).flip(-1)
    advantages = gae(REWARDS, to_go, MASK, discount=1.0, gae_lambda=gae_lambda)
    torch.testing.assert_close(advantages, torch.zeros_like(advantages), atol=1e-12, rtol=0)


@pytest.mark.parametrize("garbage", [1e300, torch.inf, torch.nan])
def test_what_lies_outside_the_mask_changes_nothing(garbage: float) -> None:
    def bad(values: Tensor) -> Tensor:
        return values.masked_fill(~MASK, garbage)

    settings = {"discount": 0.99, "gae_lambda": 0.95}
    assert torch.equal(gae(bad(REWARDS), bad(VALUES), MASK, **settings), gae(REWARDS, VALUES, MASK, **settings))
    assert torch.equal(
        kl_shaped_rewards(SCORES, bad(LOGPROBS), bad(REF_LOGPROBS), MASK, kl_coef=0.05),
        kl_shaped_rewards(SCORES, LOGPROBS, REF_LOGPROBS, MASK, kl_coef=0.05),
    )


def test_more_padding_and_left_padding_change_nothing() -> None:
    pad = torch.nn.functional.pad
    short = gae(REWARDS, VALUES, MASK, discount=0.99, gae_lambda=0.95)
    for widths in [(0, 3), (2, 0)]:
        wide = gae(
            *(pad(x, widths, value=7.0) for x in (REWARDS, VALUES)), pad(MASK, widths), discount=0.99, gae_lambda=0.95
        )
        torch.testing.assert_close(wide, pad(short, widths), atol=0, rtol=0)


def test_garbage_outside_the_mask_does_not_reach_the_reduced_losses_or_gradients() -> None:
    def reduced(garbage: float) -> tuple[Tensor, Tensor, Tensor]:
        logprobs = LOGPROBS.masked_fill(~MASK, garbage).requires_grad_()
        values = VALUES.masked_fill(~MASK, garbage).requires_grad_()
        policy_terms = clipped_surrogate(logprobs, REF_LOGPROBS, REWARDS, clip_range=0.2)
        value_terms = clipped_value_error(values, VALUES + 0.3, REWARDS, clip_range=0.2)
        loss = masked_mean(policy_terms, MASK) + masked_mean(value_terms, MASK)
        loss.backward()
        return loss.detach(), logprobs.grad, values.grad

    for clean, dirty in zip(reduced(0.0), reduced(500.0), strict=True):
        assert torch.equal(clean, dirty)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # on policy: the plain policy gradient, -A
        (1.1, 2.0, -2.2, -2.2),  # inside the range
        (1.5, 2.0, -2.4, 0.0),  # already moved the right way: clipped
        (0.5, 2.0, -1.0, -1.0),  # moved the wrong way: not clipped
        (0.5, -2.0, 1.6, 0.0),  # already moved the right way: clipped
        (1.5, -2.0, 3.0, 3.0),  # moved the wrong way: not clipped
    ],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    """`slope` is d loss / d logprob, which is ratio * d loss / d ratio."""
    logprobs = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    old_logprobs = torch.zeros(1, 1, dtype=torch.float64)
    terms = clipped_surrogate(logprobs, old_logprobs, old_logprobs + advantage, clip_range=0.2)
    assert terms.item() == pytest.approx(loss)
    terms.sum().backward()
    assert logprobs.grad.item() == pytest.approx(slope)


def test_surrogate_gradient_on_policy_is_the_policy_gradient_of_an_enumerated_choice() -> None:
    """E_pi[A grad log pi] is the gradient of the expected reward; the baseline drops out."""
    reward = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    logits = normal(3).requires_grad_()
    logprobs = logits.log_softmax(-1)[None]
    terms = clipped_surrogate(logprobs, logprobs.detach(), reward - 0.7, clip_range=0.2)
    (surrogate_grad,) = torch.autograd.grad((logprobs.detach().exp() * terms).sum(), logits, retain_graph=True)
    (expected_grad,) = torch.autograd.grad((logprobs.exp() * reward).sum(), logits)
    torch.testing.assert_close(surrogate_grad, -expected_grad)


@pytest.mark.parametrize(
    ("value", "error", "slope"),
    [
        (0.1, 0.5 * 0.9**2, -0.9),  # inside the range: 0.5 (V - R)^2
        (0.5, 0.5 * 0.8**2, 0.0),  # beyond the range, toward the return: clipped, no gradient
        (-0.5, 0.5 * 1.5**2, -1.5),  # away from the return: not clipped
        (3.0, 0.5 * 2.0**2, 2.0),  # far past the return: not clipped
    ],
)
def test_clipped_value_error_by_hand(value: float, error: float, slope: float) -> None:
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    terms = clipped_value_error(values, zero, zero + 1.0, clip_range=0.2)
    assert terms.item() == pytest.approx(error)
    terms.sum().backward()
    assert values.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize(
    ("kl", "factor"), [(6.0, 1.0), (6.6, 1.005), (60.0, 1.01), (5.4, 0.995), (0.0, 0.99), (-1.0, 0.99)]
)
def test_adaptive_kl_coef_rises_above_the_target_and_falls_below(kl: float, factor: float) -> None:
    assert adaptive_kl_coef(0.15, kl, target=6.0, num_steps=500) == pytest.approx(0.15 * factor)


@pytest.mark.parametrize(
    "settings", [{"target": 0.0}, {"target": -6.0}, {"horizon": 0}, {"num_steps": 50_000}, {"horizon": 100}]
)
def test_adaptive_kl_coef_refuses_what_cannot_be_meant(settings: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        adaptive_kl_coef(0.15, 1.0, **({"target": 6.0, "num_steps": 500} | settings))
