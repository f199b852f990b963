"""Notebook 08: rewards from comparisons of clips: the loss, members on one scale, and where they disagree."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.preference import segment_loss


def _loss_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, returns: list[float], others: list[float], first: list[float], error_rate: float) -> Case:
        tensors = tuple(torch.tensor(values, dtype=torch.float64) for values in (returns, others, first))
        return Case(title=title, args=tensors, kwargs={"error_rate": error_rate}, gradient_of=(0, 1))

    level = float(rng.normal())
    drawn = 2 * rng.normal(size=(2, 6))
    sure = rng.choice([0.0, 0.5, 1.0, 0.8], size=6)
    return [
        case("odds of 3 to 1, the first chosen", [math.log(3.0) + level], [level], [1.0], 0.2),
        case("odds of 3 to 1, the second chosen", [math.log(3.0) + level], [level], [0.0], 0.2),
        case("a tie between unequal segments", [1.0 + level], [level], [0.5], 0.1),
        case("labels that are clearly wrong", [level, 30.0], [level + 40.0, 2.0], [1.0, 0.0], 0.1),
        case("nobody errs", [level, 0.0], [0.0, level], [1.0, 0.25], 0.0),
        case("six comparisons", drawn[0].tolist(), drawn[1].tolist(), sure.tolist(), 0.1),
    ]


def _surprise(first: Tensor, second: Tensor, first_prob: Tensor) -> Tensor:
    """Of a label, where the first segment is chosen with the one probability, and the second with the other."""
    return -first_prob * first.log() - (1.0 - first_prob) * second.log()


def _without_errors(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """This takes every label at its word: with an error rate of 0 it would be right.

    One wrong label on a clear pair then costs without bound, and bends the reward to explain it.
    """
    return segment_loss(returns, other_returns, first_prob, error_rate=0.0)


def _errors_choose_nobody(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """The two probabilities do not add up to 1: who answers at random still answers, half of the time the first."""
    chances = [(1.0 - error_rate) * torch.sigmoid(sign * (returns - other_returns)) for sign in (1, -1)]
    return _surprise(chances[0].clamp(min=1e-30), chances[1].clamp(min=1e-30), first_prob)


def _errors_choose_both(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """Who answers at random chooses the first half of the time: its share is e / 2, not e."""
    chances = [(1.0 - error_rate) * torch.sigmoid(sign * (returns - other_returns)) + error_rate for sign in (1, -1)]
    return _surprise(chances[0], chances[1], first_prob)


def _mixed_losses(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """You have mixed two losses. The probabilities are mixed, and the logarithm comes after that.

    A mean of losses still has the surprise at a clear error in it, which has no bound.
    """
    plain = segment_loss(returns, other_returns, first_prob, error_rate=0.0)
    return (1.0 - error_rate) * plain + error_rate * math.log(2.0)


def _ties_are_wins(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """A tie counts as if the first had won. Both choices are weighed, by mu and by 1 - mu."""
    return segment_loss(returns, other_returns, (first_prob >= 0.5).to(returns.dtype), error_rate=error_rate)


def _second_forgotten(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """Where the second was chosen, mu is 0, and nothing is learnt: the term of 1 - mu is not there."""
    keep = math.log1p(-error_rate)
    floor = math.log(error_rate / 2) if error_rate else -math.inf
    likely = keep + logsigmoid(returns - other_returns)
    return -first_prob * torch.logaddexp(likely, torch.full_like(likely, floor))


def _other_way_round(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """The sign: the segment that was chosen should have the larger sum of rewards, not the smaller."""
    return segment_loss(other_returns, returns, first_prob, error_rate=error_rate)


def _reduced(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    """One loss for each comparison is wanted: equations do not reduce, the trainer does."""
    return segment_loss(returns, other_returns, first_prob, error_rate=error_rate).mean()


def _by_probabilities(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    first = (1.0 - error_rate) * torch.sigmoid(returns - other_returns) + error_rate / 2
    return -(first_prob * first.log() + (1.0 - first_prob) * (1.0 - first).log())


def _by_softmax(returns: Tensor, other_returns: Tensor, first_prob: Tensor, *, error_rate: float) -> Tensor:
    chosen = torch.softmax(torch.stack([returns, other_returns], dim=-1), dim=-1)
    labels = torch.stack([first_prob, 1.0 - first_prob], dim=-1)
    return -(labels * torch.log((1.0 - error_rate) * chosen + error_rate / 2)).sum(-1)


SEGMENT_LOSS = Exercise(
    id="segment-loss",
    title="A loss for people who err",
    kind="implement",
    points=3,
    minutes=15,
    difficulty=2,
    reference=segment_loss,
    cases=_loss_cases,
    mistakes=(
        _without_errors,
        _errors_choose_nobody,
        _errors_choose_both,
        _mixed_losses,
        _ties_are_wins,
        _second_forgotten,
        _other_way_round,
        _reduced,
    ),
    variants=(_by_probabilities, _by_softmax),
)


def _averaged(rewards: Tensor) -> Tensor:
    """Mean over the members, each with mean 0 and standard deviation 1; one that is constant says nothing."""
    spread = rewards.std(1, correction=0, keepdim=True)
    centered = rewards - rewards.mean(1, keepdim=True)
    return (centered / torch.where(spread > 0, spread, 1.0)).mean(0)


def _reward_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(members: int, steps: int, scales: list[float]) -> Tensor:
        values = rng.normal(size=(members, steps)) + rng.normal(size=(members, 1))
        return torch.tensor(values) * torch.tensor(scales, dtype=torch.float64).unsqueeze(1)

    constant = torch.cat([drawn(2, 6, [1.0, 3.0]), torch.full((1, 6), 0.5, dtype=torch.float64)])
    return [
        Case(title="two members, one ten times as loud", args=(drawn(2, 5, [1.0, 10.0]),)),
        Case(title="as many members as steps", args=(drawn(4, 4, [1.0, 2.0, 3.0, 0.1]),)),
        Case(title="three members, fifty steps", args=(drawn(3, 50, [0.1, 1.0, 5.0]),)),
        Case(title="a member that gives every step the same", args=(constant,)),
    ]


def _after_the_mean(rewards: Tensor) -> Tensor:
    """Still the mean first: by then the loudest member has drowned the others. Normalize each, then average."""
    mean = rewards.mean(0)
    return (mean - mean.mean()) / mean.std(correction=0)


def _across_members(rewards: Tensor) -> Tensor:
    """You normalize each step over the members, so that the mean is 0 everywhere: normalize each member, over steps."""
    return ((rewards - rewards.mean(0)) / rewards.std(0, correction=0)).mean(0)


def _only_centered(rewards: Tensor) -> Tensor:
    """Every member has mean 0 now, but a scale of its own still: the loudest one decides."""
    return (rewards - rewards.mean(1, keepdim=True)).mean(0)


def _only_scaled(rewards: Tensor) -> Tensor:
    """Every member has spread 1 now, but a zero of its own still. Comparisons fix no zero: take the mean away."""
    spread = rewards.std(1, correction=0, keepdim=True)
    return (rewards / torch.where(spread > 0, spread, 1.0)).mean(0)


def _all_at_once(rewards: Tensor) -> Tensor:
    """One mean and one spread for all members together leaves them as different as they were."""
    return ((rewards - rewards.mean()) / rewards.std(correction=0)).mean(0)


def _by_one_less(rewards: Tensor) -> Tensor:
    """PyTorch's `std` divides by one less than the number of steps; here it is the number: correction=0."""
    spread = rewards.std(1, keepdim=True)
    return ((rewards - rewards.mean(1, keepdim=True)) / torch.where(spread > 0, spread, 1.0)).mean(0)


def _not_a_number(rewards: Tensor) -> Tensor:
    """A member that gives every step the same has a spread of 0. It says nothing, so its rewards become 0, not nan."""
    return ((rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, correction=0, keepdim=True)).mean(0)


def _member_by_member(rewards: Tensor) -> Tensor:
    total = torch.zeros_like(rewards[0])
    for member in rewards:
        centered = member - member.mean()
        spread = centered.square().mean().sqrt()
        total += centered / spread if spread > 0 else torch.zeros_like(centered)
    return total / len(rewards)


def _with_moments(rewards: Tensor) -> Tensor:
    variance, mean = torch.var_mean(rewards, dim=1, correction=0, keepdim=True)
    weights = torch.where(variance > 0, variance, torch.inf).rsqrt()
    return ((rewards - mean) * weights).sum(0) / rewards.shape[0]


OWN_ZERO = Exercise(
    id="own-zero",
    title="The loudest member",
    kind="find the bug",
    points=2,
    minutes=8,
    difficulty=1,
    reference=_averaged,
    cases=_reward_cases,
    mistakes=(
        _after_the_mean,
        _across_members,
        _only_centered,
        _only_scaled,
        _all_at_once,
        _by_one_less,
        _not_a_number,
    ),
    variants=(_member_by_member, _with_moments),
)


def _disagreement(returns: Tensor) -> Tensor:
    """Variance over the members of their probability that the first segment is better."""
    return torch.sigmoid(returns[..., 0] - returns[..., 1]).var(0, correction=0)


def _return_cases(rng: np.random.Generator) -> list[Case]:
    far = 20.0 + float(rng.uniform())
    split = torch.tensor([[[0.0, 0.0], [far, 0.0]], [[0.0, 0.0], [0.0, far]]], dtype=torch.float64)
    return [
        Case(title="two members: equally unsure, and of opposite opinions", args=(split,)),
        Case(title="three members, five pairs", args=(torch.tensor(rng.normal(size=(3, 5, 2))),)),
        Case(title="as many members as pairs", args=(torch.tensor(2 * rng.normal(size=(4, 4, 2))),)),
        Case(title="all prefer the first, by far or by farther", args=(_preferring(rng),)),
    ]


def _preferring(rng: np.random.Generator) -> Tensor:
    level = torch.tensor(rng.normal(size=(3, 2, 1)))
    return level + torch.tensor(rng.uniform(5.0, 20.0, size=(3, 2, 1))) * torch.tensor([1.0, 0.0])


def _of_returns(returns: Tensor) -> Tensor:
    """This is the variance of the difference of returns.

    Members that all prefer the first, by much and by very much, agree on the answer: turn differences into
    probabilities first.
    """
    return (returns[..., 0] - returns[..., 1]).var(0, correction=0)


def _unsure(returns: Tensor) -> Tensor:
    """This says how unsure the members are on average. If all of them say one half, they agree that it is a tie."""
    mean = torch.sigmoid(returns[..., 0] - returns[..., 1]).mean(0)
    return mean * (1.0 - mean)


def _over_pairs(returns: Tensor) -> Tensor:
    """Over which axis? The members disagree about one pair: the axis of the members goes, and a number a pair stays."""
    return torch.sigmoid(returns[..., 0] - returns[..., 1]).var(1, correction=0)


def _root(returns: Tensor) -> Tensor:
    """That is the standard deviation; its square is wanted."""
    return _disagreement(returns).sqrt()


def _one_less(returns: Tensor) -> Tensor:
    """Divide by the number of members: PyTorch's `var` divides by one less unless it is told correction=0."""
    return torch.sigmoid(returns[..., 0] - returns[..., 1]).var(0)


def _hard_votes(returns: Tensor) -> Tensor:
    """You let each member vote for one segment. It has a probability: one that leans by a hair counts by a hair."""
    return (returns[..., 0] > returns[..., 1]).to(returns.dtype).var(0, correction=0)


def _from_squares(returns: Tensor) -> Tensor:
    first = torch.softmax(returns, dim=-1)[..., 0]
    return first.square().mean(0) - first.mean(0).square()


def _from_all_twos(returns: Tensor) -> Tensor:
    # Half the mean squared difference of two members that are drawn with replacement.
    first = 1.0 / (1.0 + torch.exp(returns[..., 1] - returns[..., 0]))
    return 0.5 * (first.unsqueeze(0) - first.unsqueeze(1)).square().mean((0, 1))


DISAGREEMENT = Exercise(
    id="disagreement",
    title="Ask where they disagree",
    kind="implement",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_disagreement,
    cases=_return_cases,
    mistakes=(_of_returns, _unsure, _over_pairs, _root, _one_less, _hard_votes),
    variants=(_from_squares, _from_all_twos),
)
