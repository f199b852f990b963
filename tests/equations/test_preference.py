"""Preference equations against probabilities made by hand and enumerated pairs, in float64."""

import itertools
import math

import pytest
import torch

from rlhf_lab.equations.preference import bradley_terry_loss, bradley_terry_prob, ranking_loss


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logistic_loss(margin: float) -> float:
    return math.log(1.0 + math.exp(-margin))


def test_prob_by_hand_and_its_complement() -> None:
    scores, others = tensor([9.0, 1.0, 2.0]).log(), tensor([1.0, 3.0, 2.0]).log()
    torch.testing.assert_close(bradley_terry_prob(scores, others), tensor([0.9, 0.25, 0.5]))
    torch.testing.assert_close(bradley_terry_prob(others, scores), tensor([0.1, 0.75, 0.5]))


def test_loss_is_the_surprise_and_depends_on_the_difference_only() -> None:
    chosen, rejected = tensor([2.0, -1.0, 0.3]), tensor([0.5, 1.0, 0.3])
    losses = bradley_terry_loss(chosen, rejected)
    torch.testing.assert_close(losses, -bradley_terry_prob(chosen, rejected).log())
    torch.testing.assert_close(bradley_terry_loss(chosen + 100.0, rejected + 100.0), losses)
    assert losses[2].item() == pytest.approx(math.log(2.0))


def test_gradient_raises_the_chosen_and_lowers_the_rejected_by_the_probability_of_being_wrong() -> None:
    chosen, rejected = tensor([1.0]).requires_grad_(), tensor([0.0]).requires_grad_()
    bradley_terry_loss(chosen, rejected).sum().backward()
    wrong = 1.0 / (1.0 + math.e)
    assert chosen.grad.item() == pytest.approx(-wrong)
    assert rejected.grad.item() == pytest.approx(wrong)


def test_loss_of_huge_margins_is_finite() -> None:
    losses = bradley_terry_loss(tensor([1e4, -1e4]), tensor([-1e4, 1e4]))
    assert losses.tolist() == [0.0, 2e4]


def test_soft_label_is_the_mixture_and_is_least_where_the_model_agrees() -> None:
    chosen, rejected = tensor([1.5, -0.5]), tensor([0.0, 0.5])
    prob = tensor([0.8, 0.3])
    mixture = prob * bradley_terry_loss(chosen, rejected) + (1 - prob) * bradley_terry_loss(rejected, chosen)
    torch.testing.assert_close(bradley_terry_loss(chosen, rejected, prob), mixture)
    at_optimum = (prob / (1 - prob)).log().requires_grad_()
    bradley_terry_loss(at_optimum, torch.zeros_like(at_optimum), prob).sum().backward()
    torch.testing.assert_close(at_optimum.grad, torch.zeros_like(prob), atol=1e-12, rtol=0)


def by_enumeration(scores: list[float], ranks: list[int], mask: list[bool]) -> float:
    kept = [k for k in range(len(scores)) if mask[k]]
    losses = [
        logistic_loss(scores[better] - scores[worse])
        for better, worse in itertools.permutations(kept, 2)
        if ranks[better] < ranks[worse]
    ]
    return sum(losses) / len(losses) if losses else 0.0


SCORES = [[0.3, -1.2, 2.0, 0.7], [1.0, 0.0, -2.0, 3.0], [0.1, 0.2, 0.3, 0.4], [5.0, 1.0, 2.0, 3.0]]
RANKS = [[2, 4, 1, 3], [1, 1, 2, 2], [7, 7, 7, 7], [4, 3, 2, 1]]
MASK = [[True] * 4, [True] * 4, [True] * 4, [True, False, True, False]]


def test_ranking_loss_is_the_mean_over_all_ordered_pairs() -> None:
    expected = [by_enumeration(*row) for row in zip(SCORES, RANKS, MASK, strict=True)]
    losses = ranking_loss(tensor(SCORES), torch.tensor(RANKS), torch.tensor(MASK))
    torch.testing.assert_close(losses, tensor(expected))
    assert losses[2].item() == 0.0  # all tied: no pair
    assert expected[3] == pytest.approx(logistic_loss(2.0 - 5.0))  # one pair left


def test_ranking_of_two_is_a_comparison_and_of_k_divides_by_k_choose_two() -> None:
    pair = ranking_loss(tensor([[0.3, 1.1]]), torch.tensor([[2, 1]]))
    torch.testing.assert_close(pair, bradley_terry_loss(tensor([1.1]), tensor([0.3])))
    equal = ranking_loss(torch.zeros(1, 9, dtype=torch.float64), torch.arange(9)[None])
    assert equal.item() == pytest.approx(math.log(2.0))  # 36 pairs of log 2, over 36


def test_only_the_order_of_ranks_matters_and_candidates_can_be_shuffled() -> None:
    scores, ranks, mask = tensor(SCORES), torch.tensor(RANKS), torch.tensor(MASK)
    losses = ranking_loss(scores, ranks, mask)
    torch.testing.assert_close(ranking_loss(scores, (10.0 * ranks - 3.0), mask), losses)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(ranking_loss(scores[:, order], ranks[:, order], mask[:, order]), losses)


@pytest.mark.parametrize("garbage", [1e300, torch.inf, torch.nan])
def test_absent_candidates_change_neither_loss_nor_gradient(garbage: float) -> None:
    mask = torch.tensor(MASK)
    clean, dirty = tensor(SCORES).requires_grad_(), tensor(SCORES).masked_fill(~mask, garbage).requires_grad_()
    for scores in (clean, dirty):
        ranking_loss(scores, torch.tensor(RANKS), mask).sum().backward()
    assert torch.equal(ranking_loss(dirty, torch.tensor(RANKS), mask), ranking_loss(clean, torch.tensor(RANKS), mask))
    assert torch.equal(clean.grad, dirty.grad)
    assert (clean.grad[~mask] == 0).all()


def test_gradient_lifts_the_best_and_sinks_the_worst() -> None:
    scores = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    ranking_loss(scores, torch.tensor([[1, 2, 3]])).sum().backward()
    torch.testing.assert_close(scores.grad, tensor([[-1 / 3, 0.0, 1 / 3]]))
