"""Sequence equations against numbers made by hand and distributions that are enumerated, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_lab.equations.sequence import (
    distillation_loss,
    entropy,
    kl_exact,
    kl_k1,
    kl_k3,
    masked_mean,
    masked_moments,
    masked_whiten,
    next_token_loss,
    pooled_moments,
    token_logprobs,
)

VOCAB = 5
P = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
Q = torch.tensor([0.02, 0.08, 0.2, 0.3, 0.4], dtype=torch.float64)
KL_P_Q = sum(p * math.log(p / q) for p, q in zip(P.tolist(), Q.tolist(), strict=True))
KL_Q_P = sum(q * math.log(q / p) for p, q in zip(P.tolist(), Q.tolist(), strict=True))
ALL = torch.arange(VOCAB)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_token_logprobs_by_hand() -> None:
    logits = torch.tensor([[[1.0, 2.0, 5.0], [4.0, 4.0, 2.0]]], dtype=torch.float64).log() + 7.0
    expected = torch.tensor([[5 / 8, 4 / 10]], dtype=torch.float64).log()
    torch.testing.assert_close(token_logprobs(logits, torch.tensor([[2, 0]])), expected)


def test_token_logprobs_of_all_tokens_sum_to_one() -> None:
    logits = normal(VOCAB).expand(VOCAB, VOCAB)
    assert token_logprobs(logits, ALL).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_token_logprobs_takes_any_leading_shape() -> None:
    logits, tokens = normal(2, 3, 4, VOCAB), torch.randint(VOCAB, (2, 3, 4))
    flat = token_logprobs(logits.reshape(-1, VOCAB), tokens.reshape(-1))
    torch.testing.assert_close(token_logprobs(logits, tokens), flat.view(2, 3, 4))


def test_next_token_loss_is_the_surprise_and_its_gradient_is_p_minus_one_hot() -> None:
    logits = P.log()[None].requires_grad_()
    loss = next_token_loss(logits, torch.tensor([1]))
    assert loss.item() == pytest.approx(-math.log(0.3))
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, (P - torch.eye(VOCAB, dtype=torch.float64)[1])[None])


def test_entropy_by_hand_and_by_enumeration() -> None:
    by_hand = -sum(p * math.log(p) for p in P.tolist())
    assert entropy(P.log() + 3.0).item() == pytest.approx(by_hand)
    assert (P * next_token_loss(P.log().expand(VOCAB, VOCAB), ALL)).sum().item() == pytest.approx(by_hand)


def test_entropy_of_a_token_ruled_out_has_a_finite_gradient() -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    entropy(logits).backward()
    kept = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    entropy(kept).backward()
    torch.testing.assert_close(logits.grad[:2], kept.grad)
    assert logits.grad[2] == 0


def test_kl_exact_has_its_direction() -> None:
    assert kl_exact(P.log(), Q.log()).item() == pytest.approx(KL_P_Q, abs=1e-12)
    assert kl_exact(Q.log(), P.log()).item() == pytest.approx(KL_Q_P, abs=1e-12)
    assert abs(KL_P_Q - KL_Q_P) > 0.05
    assert kl_exact(P.log(), P.log()).item() == 0


def test_kl_exact_of_a_token_ruled_out_by_p_has_a_finite_gradient() -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    kl = kl_exact(logits.log_softmax(-1), Q[:3].log())
    kl.backward()
    assert torch.isfinite(kl) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
def test_mean_of_an_estimate_over_the_policy_is_the_exact_kl(estimate) -> None:
    # P is the policy, from which the tokens come; Q is the reference.
    mean = (P * estimate(P.log(), Q.log())).sum().item()
    assert mean == pytest.approx(KL_P_Q, abs=1e-12)
    # The other direction, and the mean under the other distribution, are something else.
    assert abs((P * estimate(Q.log(), P.log())).sum().item() - KL_P_Q) > 0.05
    assert abs((Q * estimate(P.log(), Q.log())).sum().item() - KL_P_Q) > 0.05


def test_mean_of_k1_summed_over_a_sequence_is_the_kl_of_the_sequence() -> None:
    # Two tokens, the second depending on the first: all 25 sequences.
    first, second = normal(VOCAB).log_softmax(-1), normal(VOCAB, VOCAB, seed=1).log_softmax(-1)
    ref_first, ref_second = normal(VOCAB, seed=2).log_softmax(-1), normal(VOCAB, VOCAB, seed=3).log_softmax(-1)
    joint, ref_joint = (first[:, None] + second).flatten(), (ref_first[:, None] + ref_second).flatten()
    tokens = torch.cartesian_prod(ALL, ALL)
    logprobs = torch.stack([first[tokens[:, 0]], second[tokens[:, 0], tokens[:, 1]]], dim=1)
    ref_logprobs = torch.stack([ref_first[tokens[:, 0]], ref_second[tokens[:, 0], tokens[:, 1]]], dim=1)
    estimate = (joint.exp() * kl_k1(logprobs, ref_logprobs).sum(1)).sum()
    torch.testing.assert_close(estimate, kl_exact(joint, ref_joint))
    assert (kl_k1(logprobs, ref_logprobs) < 0).any()


def test_k3_is_never_negative_and_varies_less_than_k1_near_the_reference() -> None:
    near = (P.log() + 0.1 * normal(VOCAB)).log_softmax(-1)
    k1, k3 = kl_k1(near, P.log()), kl_k3(near, P.log())
    assert (k3 >= 0).all() and (k1 < 0).any()
    kl = kl_exact(near, P.log())
    spread_k1, spread_k3 = ((near.exp() * (k - kl) ** 2).sum() for k in (k1, k3))
    assert spread_k3 < 0.1 * spread_k1


def test_k3_keeps_its_digits_for_tiny_differences() -> None:
    tiny = torch.tensor([1e-7], dtype=torch.float32)
    assert kl_k3(torch.zeros(1), tiny).item() >= 0
    assert kl_k3(torch.zeros(1, dtype=torch.float64), tiny.double()).item() == pytest.approx(5e-15, rel=0.1)


def test_gradients_of_the_estimates_as_losses() -> None:
    """E[grad k1] = 0 and E[grad k3] = grad KL(reference || policy): what the docstrings warn of."""
    logits = normal(VOCAB).requires_grad_()
    logprobs = logits.log_softmax(-1)
    policy = logprobs.detach().exp()
    (grad_k1,) = torch.autograd.grad((policy * kl_k1(logprobs, Q.log())).sum(), logits, retain_graph=True)
    (grad_k3,) = torch.autograd.grad((policy * kl_k3(logprobs, Q.log())).sum(), logits, retain_graph=True)
    (grad_other,) = torch.autograd.grad(kl_exact(Q.log(), logprobs), logits, retain_graph=True)
    (grad_kl,) = torch.autograd.grad(kl_exact(logprobs, Q.log()), logits)
    torch.testing.assert_close(grad_k1, torch.zeros_like(grad_k1), atol=1e-12, rtol=0)
    torch.testing.assert_close(grad_k3, grad_other)
    assert (grad_k3 - grad_kl).abs().max() > 0.01


def test_the_teachers_likeliest_tokens_and_the_rest_give_no_more_than_the_whole_kl() -> None:
    rng = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 20, 7, generator=rng, dtype=torch.float64).unbind()
    student.requires_grad_(True)
    whole = distillation_loss(student, teacher)
    parts = [distillation_loss(student, teacher, top_k=k) for k in (1, 3, 6)]
    for less, more in zip(parts, [*parts[1:], whole], strict=True):
        assert bool((less <= more + 1e-12).all())
    torch.testing.assert_close(parts[-1], whole)  # Of all tokens but one, the rest is that one.
    (gradient,) = torch.autograd.grad(parts[0].sum(), student)
    assert bool(torch.isfinite(gradient).all())


def test_distillation_loss_is_the_kl_from_the_teacher_and_pulls_the_student_to_it() -> None:
    student = Q.log().clone().requires_grad_()
    loss = distillation_loss(student + 2.0, P.log() - 1.0)
    assert loss.item() == pytest.approx(KL_P_Q, abs=1e-12)
    loss.backward()
    torch.testing.assert_close(student.grad, Q - P)
    assert distillation_loss(P.log(), P.log() + 5.0).item() == pytest.approx(0.0, abs=1e-12)


MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])


def with_garbage(values: Tensor, garbage: float) -> Tensor:
    return values.masked_fill(~MASK, garbage)


@pytest.mark.parametrize("garbage", [1e300, -1e300, torch.inf, torch.nan])
@pytest.mark.parametrize(
    "equation",
    [masked_mean, masked_moments, masked_whiten, lambda values, mask: masked_whiten(values, mask, center=False)],
)
def test_what_lies_outside_the_mask_changes_nothing(equation, garbage: float) -> None:
    values = normal(2, 4)
    assert torch.equal(equation(with_garbage(values, garbage), MASK), equation(values, MASK))


def test_gradient_of_masked_mean_is_one_over_count_inside_and_zero_outside() -> None:
    values = with_garbage(normal(2, 4), torch.nan).requires_grad_()
    masked_mean(values, MASK).backward()
    assert torch.equal(values.grad, MASK.double() / 4)


def test_masked_mean_of_unequal_parts_adds_up_to_the_global_mean() -> None:
    values = normal(2, 4)
    parts = [masked_mean(values[row : row + 1], MASK[row : row + 1], MASK.sum()) for row in range(2)]
    torch.testing.assert_close(sum(parts), masked_mean(values, MASK))
    means = [masked_mean(values[row : row + 1], MASK[row : row + 1]) for row in range(2)]
    assert abs(sum(means) / 2 - masked_mean(values, MASK)) > 0.01  # the mean of means is not the mean


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(normal(2, 4), torch.zeros(2, 4, dtype=torch.bool)).item() == 0


def test_masked_whiten_gives_mean_zero_and_unbiased_deviation_one() -> None:
    values = 5.0 + 3.0 * normal(2, 4)
    kept = masked_whiten(values, MASK)[MASK]
    assert kept.mean().item() == pytest.approx(0.0, abs=1e-9)
    assert kept.var(unbiased=True).item() == pytest.approx(1.0, abs=1e-7)
    uncentered = masked_whiten(values, MASK, center=False)[MASK]
    torch.testing.assert_close(uncentered, kept + values[MASK].mean())


def test_masked_whiten_of_one_or_no_element_is_finite() -> None:
    one = torch.zeros_like(MASK)
    one[0, 1] = True
    assert torch.equal(masked_whiten(normal(2, 4), one), torch.zeros(2, 4, dtype=torch.float64))
    assert torch.equal(masked_whiten(normal(2, 4), one & False), torch.zeros(2, 4, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100), max_size=5), min_size=1, max_size=4))
def test_processes_whiten_with_global_moments_as_one_would(parts: list[list[float]]) -> None:
    """A part is a process; some have no counted element at all."""
    tensors = [torch.tensor(part, dtype=torch.float64) for part in parts]
    masks = [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    moments = pooled_moments(
        torch.stack([masked_moments(values, mask) for values, mask in zip(tensors, masks, strict=True)])
    )
    whole = torch.cat(tensors)
    torch.testing.assert_close(moments, masked_moments(whole, torch.cat(masks)), atol=1e-7, rtol=1e-9)
    if len(whole) > 1 and whole.std() > 0.1:
        whitened = [masked_whiten(values, mask, moments=moments) for values, mask in zip(tensors, masks, strict=True)]
        torch.testing.assert_close(torch.cat(whitened), masked_whiten(whole, torch.cat(masks)))


def test_moments_keep_their_digits_far_from_zero() -> None:
    values = 10_000.0 + torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float32)
    moments = masked_moments(values, torch.ones(3, dtype=torch.bool))
    assert moments.tolist() == [3.0, 10_000.0, 2.0]
    half = masked_moments(values.bfloat16(), torch.ones(3, dtype=torch.bool))
    assert half.dtype == torch.float32
