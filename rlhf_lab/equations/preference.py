"""From scores to choices: what a preference says about the difference of two scores.

Only differences count, so scores have no zero of their own; one unit is a factor e in the odds.
"""

import math

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


def segment_loss(
    returns: Float[Tensor, "*batch"],
    other_returns: Float[Tensor, "*batch"],
    first_prob: Float[Tensor, "*batch"],
    *,
    error_rate: float = 0.1,
) -> Float[Tensor, "*batch"]:
    """Loss of each comparison of two segments of behavior, where people err however clear the case [nats].

        P = (1 - e) sigma(R - R') + e / 2,   L = -mu log P - (1 - mu) log(1 - P)

    With `error_rate` 0 it is `bradley_terry_loss`. Otherwise it is at most -log(e / 2): no single label, be it ever so
    wrong, can move the rewards without bound.

    Args:
        returns: Sum of the learnt rewards over the first segment; `other_returns` over the second.
        first_prob: mu, how sure it is that the first is better; 0.5 if they are equally good.
        error_rate: e, share of the answers that are given at random.

    Raises:
        ValueError: `error_rate` is no share.

    Reference:
        Christiano et al. 2017, arXiv:1706.03741, eq. 1 and section 2.2.3.

    Example:
        >>> better, worse = torch.tensor([3.0]).log(), torch.tensor([1.0]).log()
        >>> torch.exp(-segment_loss(better, worse, torch.tensor([1.0]), error_rate=0.2))  # 0.8 * 3/4 + 0.2 / 2
        tensor([0.7000])
    """
    if not 0 <= error_rate < 1:
        raise ValueError(f"error_rate must lie in [0, 1), not {error_rate}.")
    margin, keep = returns - other_returns, math.log1p(-error_rate)
    floor = torch.full_like(margin, math.log(error_rate / 2) if error_rate else -math.inf)
    first, second = (torch.logaddexp(keep + functional.logsigmoid(sign * margin), floor) for sign in (1, -1))
    return -first_prob * first - (1.0 - first_prob) * second


def pairwise_loss(
    scores: Float[Tensor, "batch candidates"],
    chosen_prob: Float[Tensor, "batch candidates candidates"],
    is_pair: Bool[Tensor, "batch candidates candidates"],
) -> Float[Tensor, " batch"]:
    """Loss of each prompt's labeled pairs: the mean of their Bradley-Terry losses [nats].

        L = (1 / number of pairs) sum_{pairs (w, l)} -q_wl log sigma(r_w - r_l) - (1 - q_wl) log sigma(r_l - r_w)

    Every prompt weighs the same, however many of its candidates were compared; one without a pair gives 0. Not read are
    the scores of candidates in no pair (absent ones, for instance) and `chosen_prob` outside of the pairs.

    Args:
        chosen_prob: q at [w, l], how sure it is that w is better than l: 1 is a plain label, 0.5 a tie.
        is_pair: True at [w, l] if w and l were compared and w was chosen; a pair stands there once, not at [l, w] too.

    Reference:
        Ouyang et al. 2022, arXiv:2203.02155, section 3.5 and eq. 1, where all K (K - 1) / 2 pairs are labeled and
        q = 1; with q, Christiano et al. 2017, arXiv:1706.03741, section 2.2.3.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, 1.0]]).log()
        >>> is_pair = torch.ones(1, 3, 3, dtype=torch.bool).triu(1)  # 0 over 1, 0 over 2, 1 over 2
        >>> chosen_prob = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 1.0, 0.5], [1.0, 1.0, 1.0]]])  # the last is a tie
        >>> torch.exp(-3 * pairwise_loss(scores, chosen_prob, is_pair))  # 3/4 * 3/4 * 1/2
        tensor([0.2812])
    """
    is_compared = is_pair.any(2) | is_pair.any(1)
    better = scores.masked_fill(~is_compared, 0.0).unsqueeze(2).expand(is_pair.shape)
    losses = bradley_terry_loss(better, better.transpose(1, 2), chosen_prob.masked_fill(~is_pair, 1.0))
    return losses.masked_fill(~is_pair, 0.0).sum((1, 2)) / is_pair.sum((1, 2)).clamp(min=1)


def implicit_reward(
    logprobs: Float[Tensor, "*batch response"], ref_logprobs: Float[Tensor, "*batch response"], *, kl_coef: float
) -> Float[Tensor, "*batch"]:
    """The score of each response for which the policy would be the optimum of reward minus KL penalty.

        r(x, y) = beta log( pi(y | x) / pi_ref(y | x) )

    A summand that depends on the prompt alone is left out; differences of two responses do not have it. So DPO is
    `bradley_terry_loss` of two implicit rewards: L = -log sigma(r(x, y_w) - r(x, y_l)).

    Args:
        logprobs: Of each token; 0 outside the response.
        kl_coef: beta, the price of one nat of KL(policy || reference).

    Reference:
        Rafailov et al. 2023, arXiv:2305.18290, eq. 5 without its last summand; the loss is their eq. 7.

    Example:
        >>> implicit_reward(torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-1.5, -3.5, 0.0]]), kl_coef=0.5)
        tensor([1.])
    """
    return kl_coef * (logprobs - ref_logprobs).sum(-1)


def ipo_loss(
    chosen_rewards: Float[Tensor, "*batch"], rejected_rewards: Float[Tensor, "*batch"], *, kl_coef: float
) -> Float[Tensor, "*batch"]:
    """IPO's loss of each comparison: the squared error of a margin that it wants to be 1 / (2 beta), and no more.

        L = (h - 1 / (2 beta))^2,   h = log( pi(y_w) / pi_ref(y_w) ) - log( pi(y_l) / pi_ref(y_l) ) = (r_w - r_l) / beta

    DPO's loss falls for ever as the margin grows, so that where labels are sure nothing is left of the penalty. This
    one has its least at a finite margin: where a share q chooses the first, at h = (2 q - 1) / (2 beta).

    Args:
        chosen_rewards: r_w, an `implicit_reward` at the same `kl_coef`; `rejected_rewards` is r_l.
        kl_coef: beta, the price of one nat of KL(policy || reference) where the gain is the probability of being
            preferred. The paper's tau.

    Reference:
        Azar et al. 2023, arXiv:2310.12036, eq. 17. Log-probs are sums over tokens, as there; TRL's IPO takes means.

    Example:
        >>> ipo_loss(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.0]), kl_coef=0.5)  # (1 / 0.5 - 1)^2, (1 - 1)^2
        tensor([1., 0.])
    """
    return ((chosen_rewards - rejected_rewards) / kl_coef - 1.0 / (2.0 * kl_coef)).square()


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
    is_pair = ranks.unsqueeze(2) < ranks.unsqueeze(1)
    if mask is not None:
        is_pair = is_pair & mask.unsqueeze(2) & mask.unsqueeze(1)
    return pairwise_loss(scores, is_pair.to(scores.dtype), is_pair)


def rule_violation_loss(scores: Float[Tensor, "*batch"], violated: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Loss of a rule model at each label, the surprise at it [nats]: binary cross-entropy.

        L = -v log sigma(s) - (1 - v) log(1 - sigma(s)),   sigma(s) = P(rule violated | dialogue, rule)

    Args:
        scores: s, log-odds of a violation; unlike a reward's, their zero has a meaning.
        violated: v, 1 where a rater says that the rule was broken, 0 where it was kept; between them if raters differ.

    Reference:
        Glaese et al. 2022 (Sparrow), arXiv:2209.14375, where the rule model is a conditional classifier.

    Example:
        >>> odds = torch.tensor([3.0, 3.0]).log()
        >>> torch.exp(-rule_violation_loss(odds, torch.tensor([1.0, 0.0])))
        tensor([0.7500, 0.2500])
    """
    return (1.0 - violated) * scores - functional.logsigmoid(scores)


def rating_loss(scores: Float[Tensor, "*batch"], ratings: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Loss of each rating of a single answer: the squared error.

        L = (r(x, y) - y_rated)^2

    Unlike a comparison it ties the score to a scale, on which people differ, so a person's own zero and unit are learnt
    as if they were the answer's.

    Args:
        scores: r(x, y), in the units of the ratings.

    Reference:
        Regression on a person's number, as in TAMER (Knox and Stone 2009).

    Example:
        >>> rating_loss(torch.tensor([0.5, 0.5]), torch.tensor([1.0, -1.0]))
        tensor([0.2500, 2.2500])
    """
    return (scores - ratings).square()


def thumb_loss(scores: Float[Tensor, "*batch"], up: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Loss of each thumb, the surprise at it [nats]: binary cross-entropy on the score.

        L = -u log sigma(r) - (1 - u) log sigma(-r)

    A thumb is a comparison with an answer that is just good enough, whose score is 0.

    Args:
        scores: r, log-odds of a thumb up.
        up: u, 1 where the thumb is up, 0 where it is down; between them if people differ.

    Reference:
        `bradley_terry_loss` against a score of 0; Christiano et al. 2017, arXiv:1706.03741, eq. 1.

    Example:
        >>> odds = torch.tensor([3.0, 3.0]).log()
        >>> torch.exp(-thumb_loss(odds, torch.tensor([1.0, 0.0])))
        tensor([0.7500, 0.2500])
    """
    return bradley_terry_loss(scores, torch.zeros_like(scores), up)


def feedback_credit(
    starts: Float[Tensor, " steps"],
    ends: Float[Tensor, " steps"],
    said_at: float,
    *,
    earliest: float = 0.2,
    latest: float = 0.8,
) -> Float[Tensor, " steps"]:
    """How much of what a person says is about each of the steps that were seen: people are late.

        c_t = integral of f from said_at - end_t to said_at - start_t,   f uniform on [earliest, latest]

    Credits are at most 1 in sum, and 1 if the steps cover the whole of the window. With `earliest` and `latest` equal,
    the step at that time gets all of it; one that ends there does not.

    Args:
        starts: When each step began [s].
        ends: When it ended [s].
        said_at: When the feedback came [s].
        earliest: Nobody answers faster than this [s].
        latest: Nor slower than this [s].

    Raises:
        ValueError: `latest` is below `earliest`.

    Reference:
        Knox and Stone 2009, 'Interactively Shaping Agents via Human Reinforcement: The TAMER Framework', section 3.3;
        the window is that of their code.

    Example:
        >>> starts = torch.tensor([0.0, 0.5, 1.0])
        >>> feedback_credit(starts, starts + 0.5, 1.5, earliest=0.25, latest=0.75)
        tensor([0.0000, 0.5000, 0.5000])
    """
    if latest < earliest:
        raise ValueError(f"latest ({latest}) must not be below earliest ({earliest}).")
    if latest == earliest:
        moment = said_at - latest
        return ((starts <= moment) & (moment < ends)).to(starts.dtype)
    overlap = (said_at - starts).clamp(max=latest) - (said_at - ends).clamp(min=earliest)
    return overlap.clamp(min=0.0) / (latest - earliest)
