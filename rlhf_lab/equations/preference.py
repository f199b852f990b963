"""From scores to choices: what a preference says about the difference of two scores.

Only differences count, so scores have no zero of their own; one unit is a factor e in the odds.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor
from torch.nn import functional


def bradley_terry_prob(
    scores: Float[Tensor, "*batch"], other_scores: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Probability that the first response is preferred to the other.

        P(y > y') = e^r / (e^r + e^r') = sigma(r - r')

    Reference:
        Bradley and Terry 1952; Christiano et al. 2017, arXiv:1706.03741, eq. 1.

    Example:
        >>> bradley_terry_prob(torch.tensor([3.0]).log(), torch.tensor([1.0]).log())
        tensor([0.7500])
    """
    return torch.sigmoid(scores - other_scores)


def bradley_terry_loss(
    chosen_scores: Float[Tensor, "*batch"],
    rejected_scores: Float[Tensor, "*batch"],
    chosen_prob: Float[Tensor, "*batch"] | float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Loss of each comparison, the surprise at its label [nats]; log 2 for equal scores.

        L = -q log sigma(r_w - r_l) - (1 - q) log sigma(r_l - r_w)

    Args:
        chosen_prob: q, how sure it is that the chosen response is the better one: 1 is a plain label, 0.5 a tie.

    Reference:
        Ouyang et al. 2022, arXiv:2203.02155, eq. 1 with K = 2; with q, Christiano et al. 2017, arXiv:1706.03741,
        section 2.2.3.

    Example:
        >>> chosen, rejected = torch.tensor([3.0]).log(), torch.tensor([1.0]).log()
        >>> torch.exp(-bradley_terry_loss(chosen, rejected))
        tensor([0.7500])
        >>> torch.exp(-bradley_terry_loss(chosen, rejected, 0.0))
        tensor([0.2500])
    """
    margin = chosen_scores - rejected_scores
    return (1.0 - chosen_prob) * margin - functional.logsigmoid(margin)


def ranking_loss(
    scores: Float[Tensor, "batch candidates"],
    ranks: Real[Tensor, "batch candidates"],
    mask: Bool[Tensor, "batch candidates"] | None = None,
) -> Float[Tensor, " batch"]:
    """Loss of each ranking: the mean Bradley-Terry loss over its ordered pairs [nats].

        L = -(1 / number of pairs) sum_{w ranked before l} log sigma(r_w - r_l)

    Every prompt weighs the same, however many candidates it has. Tied pairs say nothing and are not counted, so with
    ties the number of pairs is below K (K - 1) / 2; a row with no ordered pair gives 0.

    Args:
        ranks: Lower is better; equal ranks are a tie. Only their order matters.
        mask: The candidate was ranked; by default all were.

    Reference:
        Ouyang et al. 2022, arXiv:2203.02155, eq. 1, which has no ties.

    Example:
        >>> scores, ranks = torch.tensor([[3.0, 1.0, 7.0]]).log(), torch.tensor([[1, 2, 0]])
        >>> torch.exp(-3 * ranking_loss(scores, ranks))  # 3/4 * 7/10 * 7/8
        tensor([0.4594])
        >>> torch.exp(-ranking_loss(scores, ranks, torch.tensor([[True, True, False]])))
        tensor([0.7500])
    """
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    scores = scores.masked_fill(~mask, 0.0)
    is_pair = (ranks.unsqueeze(2) < ranks.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)
    better = scores.unsqueeze(2).expand(is_pair.shape)
    losses = bradley_terry_loss(better, better.transpose(1, 2))
    return losses.masked_fill(~is_pair, 0.0).sum((1, 2)) / is_pair.sum((1, 2)).clamp(min=1)
