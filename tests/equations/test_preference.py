"""Preference equations against probabilities made by hand and enumerated pairs, in float64."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from rlhf_lab.equations.preference import (
    bradley_terry_loss,
    bradley_terry_prob,
    feedback_credit,
    ipo_loss,
    pairwise_loss,
    ranking_loss,
)


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


def test_ipo_loss_by_hand_and_where_it_is_least() -> None:
    # beta = 0.25: the margin wanted is 1 / (2 beta) = 2, and a reward is a fourth of a log-ratio.
    losses = ipo_loss(tensor([0.5, 0.0, 1.0]), tensor([0.0, 0.0, 0.25]), kl_coef=0.25)
    torch.testing.assert_close(losses, tensor([0.0, 4.0, 1.0]))
    for share, beta in ((0.8, 0.25), (0.5, 0.1), (1.0, 2.0)):
        log_ratio = tensor([(2 * share - 1) / (2 * beta)]).requires_grad_()
        first, second = beta * log_ratio, tensor([0.0])
        loss = share * ipo_loss(first, second, kl_coef=beta) + (1 - share) * ipo_loss(second, first, kl_coef=beta)
        loss.sum().backward()
        torch.testing.assert_close(log_ratio.grad, tensor([0.0]), atol=1e-12, rtol=0)


def test_a_margin_that_is_large_enough_grows_no_more_in_ipo_and_does_in_dpo() -> None:
    slopes = {}
    for margin in (1.0, 3.0):
        chosen = tensor([margin]).requires_grad_()
        losses = {"ipo": ipo_loss(chosen, tensor([0.0]), kl_coef=0.5), "dpo": bradley_terry_loss(chosen, tensor([0.0]))}
        slopes[margin] = {name: torch.autograd.grad(loss.sum(), chosen)[0].item() for name, loss in losses.items()}
    assert slopes[3.0]["ipo"] > slopes[1.0]["ipo"] > 0.0  # Beyond 1 / (2 beta) = 1 nat, a margin of 0.5, it pulls back.
    assert slopes[1.0]["dpo"] < slopes[3.0]["dpo"] < 0.0


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


def pairs_of(labels: list[list[tuple[int, int, float]]], num_candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """chosen_prob, 0.123 where there is no pair, and is_pair, of each prompt's (chosen, rejected, q)."""
    chosen_prob = torch.full((len(labels), num_candidates, num_candidates), 0.123, dtype=torch.float64)
    is_pair = torch.zeros(chosen_prob.shape, dtype=torch.bool)
    for row, known in enumerate(labels):
        for chosen, rejected, prob in known:
            chosen_prob[row, chosen, rejected] = prob
            is_pair[row, chosen, rejected] = True
    return chosen_prob, is_pair


LABELS = [
    [(0, 1, 1.0), (2, 0, 0.9), (2, 3, 0.75), (1, 3, 0.5)],
    [(3, 2, 0.6)],
    [],
    [(one, two, 0.5 + 0.1 * two) for one, two in itertools.combinations(range(4), 2)],
]


def test_pairwise_loss_by_hand() -> None:
    """Odds 3 : 1 : 1 : 2, so sigma of the differences is 3/4, 1/2 and 1/3."""
    scores = tensor([[3.0, 1.0, 1.0, 2.0]]).log()
    chosen_prob, is_pair = pairs_of([[(0, 1, 1.0), (1, 2, 0.5), (2, 3, 0.75)]], 4)
    expected = -(math.log(3 / 4) + math.log(1 / 2) + 0.75 * math.log(1 / 3) + 0.25 * math.log(2 / 3)) / 3
    torch.testing.assert_close(pairwise_loss(scores, chosen_prob, is_pair), tensor([expected]))


def test_pairwise_loss_is_each_prompt_s_mean_cross_entropy() -> None:
    scores = tensor(SCORES)
    losses = pairwise_loss(scores, *pairs_of(LABELS, 4))
    for row, known in enumerate(LABELS):
        margins = tensor([SCORES[row][chosen] - SCORES[row][rejected] for chosen, rejected, _ in known])
        probs = tensor([prob for *_, prob in known])
        expected = functional.binary_cross_entropy(torch.sigmoid(margins), probs) if known else tensor([0.0]).sum()
        torch.testing.assert_close(losses[row], expected)
    assert losses[2].item() == 0.0  # no pair


def test_a_soft_label_pulls_until_the_model_is_as_sure_as_it() -> None:
    """Labels that some scores explain leave these alone, pair by pair; every other margin is moved towards them."""
    scores = tensor([[0.4, -0.6, 1.3]])
    labels = [
        (one, two, torch.sigmoid(scores[0, one] - scores[0, two]).item()) for one, two in ((0, 1), (2, 0), (2, 1))
    ]
    at_optimum = scores.clone().requires_grad_()
    pairwise_loss(at_optimum, *pairs_of([labels], 3)).sum().backward()
    torch.testing.assert_close(at_optimum.grad, torch.zeros_like(scores), atol=1e-12, rtol=0)
    for shift, sign in ((0.1, 1.0), (-0.1, -1.0)):
        moved = (scores + tensor([[0.0, 0.0, shift]])).requires_grad_()
        pairwise_loss(moved, *pairs_of([labels], 3)).sum().backward()
        assert sign * moved.grad[0, 2] > 0.01
    tie = tensor([[0.7, 0.7]]).requires_grad_()
    pairwise_loss(tie, *pairs_of([[(0, 1, 0.5)]], 2)).sum().backward()
    assert tie.grad.tolist() == [[0.0, 0.0]]


def test_a_plain_pair_has_the_bits_of_its_bradley_terry_loss() -> None:
    """Comparisons of two trained so before rankings did, and do still."""
    scores = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alone = scores.detach().clone().requires_grad_()
    is_pair = torch.tensor([[False, True], [False, False]]).expand(64, 2, 2)
    losses, plain = pairwise_loss(scores, torch.ones(64, 2, 2), is_pair), bradley_terry_loss(alone[:, 0], alone[:, 1])
    assert torch.equal(losses, plain)
    (losses.sum() / 64).backward()
    (plain.sum() / 64).backward()
    assert torch.equal(scores.grad, alone.grad)


@pytest.mark.parametrize("garbage", [1e300, torch.inf, torch.nan])
def test_what_is_in_no_pair_is_not_read(garbage: float) -> None:
    """Scores of candidates in no pair, and labels where there is no pair; in row 1 only 3 and 2 were compared."""
    chosen_prob, is_pair = pairs_of(LABELS, 4)
    is_used = is_pair.any(1) | is_pair.any(2)
    assert is_used.tolist()[1:3] == [[False, False, True, True], [False] * 4]
    clean, dirty = tensor(SCORES).requires_grad_(), tensor(SCORES).masked_fill(~is_used, garbage).requires_grad_()
    losses = pairwise_loss(clean, chosen_prob, is_pair)
    again = pairwise_loss(dirty, chosen_prob.masked_fill(~is_pair, garbage), is_pair)
    assert torch.equal(losses, again)
    losses.sum().backward()
    again.sum().backward()
    assert torch.equal(clean.grad, dirty.grad)


def test_padding_changes_no_loss() -> None:
    narrow = pairwise_loss(tensor([[0.3, -1.2]]), *pairs_of([[(1, 0, 0.8)]], 2))
    wide = pairwise_loss(tensor([[0.3, -1.2, 9.0, -9.0]]), *pairs_of([[(1, 0, 0.8)]], 4))
    assert torch.equal(narrow, wide)


def test_ranking_loss_is_the_pairwise_loss_of_its_ordered_pairs() -> None:
    labels = [
        [
            (one, two, 1.0)
            for one, two in itertools.permutations(range(4), 2)
            if ranks[one] < ranks[two] and mask[one] and mask[two]
        ]
        for ranks, mask in zip(RANKS, MASK, strict=True)
    ]
    losses = ranking_loss(tensor(SCORES), torch.tensor(RANKS), torch.tensor(MASK))
    assert torch.equal(losses, pairwise_loss(tensor(SCORES), *pairs_of(labels, 4)))


def steps(count: int, length: float) -> tuple[torch.Tensor, torch.Tensor]:
    starts = length * torch.arange(count, dtype=torch.float64)
    return starts, starts + length


def test_credit_by_hand() -> None:
    starts, ends = steps(5, 0.3)
    # At 1.1 s it is about 0.3 to 0.9 s: the second and the third step, and nothing of the others.
    torch.testing.assert_close(feedback_credit(starts, ends, 1.1), tensor([0.0, 0.5, 0.5, 0.0, 0.0]))
    # At 1.0 s about 0.2 to 0.8 s.
    torch.testing.assert_close(feedback_credit(starts, ends, 1.0), tensor([0.1, 0.3, 0.2, 0.0, 0.0]) / 0.6)


@pytest.mark.parametrize("said_at", [2.0, 2.05, 2.37])
@pytest.mark.parametrize("length", [0.1, 0.25, 1.0])
def test_credit_is_the_integral_of_the_delays_density(said_at: float, length: float) -> None:
    starts, ends = steps(40, length)
    moments = (torch.arange(6000, dtype=torch.float64) + 0.5) / 6000 * 0.6 + 0.2
    expected = [
        ((said_at - moments >= start) & (said_at - moments < end)).double().mean()
        for start, end in zip(starts, ends, strict=True)
    ]
    torch.testing.assert_close(feedback_credit(starts, ends, said_at), torch.stack(expected), atol=1e-3, rtol=0)
    assert feedback_credit(starts, ends, said_at).sum().item() == pytest.approx(1.0)


def test_nothing_is_said_of_what_has_not_been_seen_or_is_long_ago() -> None:
    starts, ends = steps(3, 0.2)
    assert not feedback_credit(starts, ends, 0.1).any() and not feedback_credit(starts, ends, 1.5).any()
    assert feedback_credit(starts, ends, 0.5).sum().item() == pytest.approx(0.5)  # Half of the window was before.


def test_without_a_window_one_step_gets_all_of_it() -> None:
    starts, ends = steps(3, 0.5)
    for said_at, expected in ((0.0, [1.0, 0.0, 0.0]), (0.5, [0.0, 1.0, 0.0]), (1.4, [0.0, 0.0, 1.0]), (1.5, [0.0] * 3)):
        credit = feedback_credit(starts, ends, said_at, earliest=0.0, latest=0.0)
        torch.testing.assert_close(credit, tensor(expected))
    torch.testing.assert_close(feedback_credit(starts, ends, 1.4, earliest=0.7, latest=0.7), tensor([0.0, 1.0, 0.0]))


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match=r"latest \(0.1\) must not be below earliest \(0.2\)"):
        feedback_credit(*steps(1, 0.5), 1.0, latest=0.1)
