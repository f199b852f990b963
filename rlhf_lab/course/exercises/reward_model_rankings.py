"""Exercise of notebook 03: what a ranking of several answers teaches."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.preference import ranking_loss

PAIR_LOSSES = (
    "rlhf_lab.equations.preference.bradley_terry_loss",
    "rlhf_lab.equations.preference.bradley_terry_prob",
    "rlhf_lab.equations.preference.pairwise_loss",
    "rlhf_lab.equations.preference.ranking_loss",
    "rlhf_lab.training.rankings.element_losses",
)
"""Each of them gives the others away, so all are hidden in the whole notebook."""


def _ranking_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, part: str, ranks: list[list[int]], scale: float = 2.0) -> Case:
        scores = torch.tensor(rng.normal(scale=scale, size=(len(ranks), len(ranks[0]))))
        return Case(title=title, args=(scores, torch.tensor(ranks)), part=part, gradient_of=(0,))

    def order(num: int) -> list[int]:
        return (rng.permutation(num) + 1).tolist()

    return [
        case("two prompts with four answers", "order", [order(4), order(4)]),
        case("three answers, the first the best", "order", [[1, 2, 3]]),
        case("pairs", "order", [[1, 2], [2, 1], [1, 2]]),
        case("scores that are far apart", "order", [order(5), order(5)], 900.0),
        case("answers that tie", "ties", [[1, 2, 2, 4], [1, 1, 1, 4], order(4)]),
        case("a prompt whose answers all tie", "ties", [[1, 1, 1], [3, 1, 1]]),
    ]


def _losses(scores: Tensor) -> Tensor:
    """Of each pair: (batch chosen rejected)."""
    return -functional.logsigmoid(scores[:, :, None] - scores[:, None, :])


def _is_pair(ranks: Tensor) -> Tensor:
    return ranks[:, :, None] < ranks[:, None, :]


def _over(losses: Tensor, is_pair: Tensor, count: Tensor | int) -> Tensor:
    """Sum over the pairs by `count`."""
    return torch.where(is_pair, losses, 0.0).sum((1, 2)) / count


def _upside_down(scores: Tensor, ranks: Tensor) -> Tensor:
    """Rank 1 is the best: your loss asks the worst answer to score highest."""
    return ranking_loss(scores, -ranks)


def _not_divided(scores: Tensor, ranks: Tensor) -> Tensor:
    """That is the sum over pairs: a prompt with 9 answers would weigh 36 times as much as one with 2. Take the mean."""
    return _over(_losses(scores), _is_pair(ranks), 1)


def _by_answers(scores: Tensor, ranks: Tensor) -> Tensor:
    """You divide by the number of answers. K answers have K (K - 1) / 2 pairs, and the mean is over those."""
    return _over(_losses(scores), _is_pair(ranks), scores.shape[1])


def _by_all_pairs(scores: Tensor, ranks: Tensor) -> Tensor:
    """You divide by K (K - 1) / 2 although some of the pairs tie: divide by the pairs that say something."""
    return _over(_losses(scores), _is_pair(ranks), scores.shape[1] * (scores.shape[1] - 1) // 2)


def _both_ways(scores: Tensor, ranks: Tensor) -> Tensor:
    """Each pair comes in both directions, so the ranks play no part: count it where the first is ranked higher."""
    num = scores.shape[1]
    return _over(_losses(scores), ~torch.eye(num, dtype=torch.bool), num * (num - 1))


def _neighbours(scores: Tensor, ranks: Tensor) -> Tensor:
    """You compare neighbours in the order alone. The first is better than the third too: take all pairs."""
    return _over(_losses(scores), ranks[:, :, None] + 1 == ranks[:, None, :], scores.shape[1] - 1)


def _winner_alone(scores: Tensor, ranks: Tensor) -> Tensor:
    """You compare the best with each of the others alone. What is the second worth, and the third? Take all pairs."""
    is_best = ranks == ranks.min(-1, keepdim=True).values
    pairs = _is_pair(ranks) & is_best[:, :, None]
    return _over(_losses(scores), pairs, pairs.sum((1, 2)).clamp(min=1))


def _best_of_all(scores: Tensor, ranks: Tensor) -> Tensor:
    """That is the loss of a choice of the best among all, one softmax. A ranking says more: take its pairs."""
    best = ranks.argmin(-1, keepdim=True)
    return -scores.log_softmax(-1).gather(-1, best).squeeze(-1)


def _ties_as_halves(scores: Tensor, ranks: Tensor) -> Tensor:
    """A tied pair is not counted here: it pulls the two together, and the statement leaves it out."""
    ties = (ranks[:, :, None] == ranks[:, None, :]) & torch.ones_like(_losses(scores), dtype=torch.bool).triu(1)
    halves = (_losses(scores) + _losses(scores).transpose(1, 2)) / 2
    both = torch.where(_is_pair(ranks), _losses(scores), torch.where(ties, halves, 0.0))
    return both.sum((1, 2)) / (_is_pair(ranks) | ties).sum((1, 2))


def _ties_as_pairs(scores: Tensor, ranks: Tensor) -> Tensor:
    """`<=` makes a pair of two answers that tie, in both directions, and of each answer with itself."""
    pairs = ranks[:, :, None] <= ranks[:, None, :]
    return _over(_losses(scores), pairs, pairs.sum((1, 2)))


def _over_the_batch(scores: Tensor, ranks: Tensor) -> Tensor:
    """You take the mean over the pairs of all prompts: each prompt is one element, with a mean of its own."""
    pairs = _is_pair(ranks)
    return _over(_losses(scores), pairs, 1).sum().expand(len(scores)) / pairs.sum()


def _nothing_by_nothing(scores: Tensor, ranks: Tensor) -> Tensor:
    """A prompt whose answers all tie has no pair, and 0 / 0 is nan: such a prompt teaches nothing, so its loss is 0."""
    return _over(_losses(scores), _is_pair(ranks), _is_pair(ranks).sum((1, 2)))


def _overflowing(scores: Tensor, ranks: Tensor) -> Tensor:
    """For scores that are far apart the sigmoid is rounded to 0, and its logarithm is infinite: use logsigmoid."""
    losses = -torch.log(torch.sigmoid(scores[:, :, None] - scores[:, None, :]))
    return _over(losses, _is_pair(ranks), _is_pair(ranks).sum((1, 2)).clamp(min=1))


def _pair_by_pair(scores: Tensor, ranks: Tensor) -> Tensor:
    losses = []
    for row, places in zip(scores, ranks.tolist(), strict=True):
        order = range(len(places))
        mine = [
            functional.softplus(row[worse] - row[better])
            for better in order
            for worse in order
            if places[better] < places[worse]
        ]
        losses.append(torch.stack(mine).mean() if mine else 0.0 * row.sum())
    return torch.stack(losses)


def _sorted_first(scores: Tensor, ranks: Tensor) -> Tensor:
    """With the answers in their order, the better of two is the one on the left."""
    order = torch.argsort(ranks, dim=-1, stable=True)
    row, rank = scores.gather(-1, order), ranks.gather(-1, order)
    left, right = torch.triu_indices(scores.shape[1], scores.shape[1], 1).unbind()
    counts = (rank[:, left] != rank[:, right]).to(scores.dtype)
    losses = torch.logaddexp(row[:, left], row[:, right]) - row[:, left]
    return (losses * counts).sum(-1) / counts.sum(-1).clamp(min=1)


RANKING = Exercise(
    id="ranking-loss",
    title="All pairs of a ranking",
    kind="implement",
    points=3,
    minutes=15,
    difficulty=3,
    reference=ranking_loss,
    cases=_ranking_cases,
    mistakes=(
        _upside_down,
        _not_divided,
        _by_answers,
        _by_all_pairs,
        _both_ways,
        _neighbours,
        _winner_alone,
        _best_of_all,
        _ties_as_halves,
        _ties_as_pairs,
        _over_the_batch,
        _nothing_by_nothing,
        _overflowing,
    ),
    variants=(_pair_by_pair, _sorted_first),
    parts={"order": 2, "ties": 1},
    masked=PAIR_LOSSES,
)
