"""Exercise of notebook 04: the reward of a token, R(s) = RM(s) - beta log(pi / pi_ref)."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.policy_gradient import kl_shaped_rewards
from rlhf_lab.equations.sequence import kl_k1, kl_k3


def _cases(rng: np.random.Generator) -> list[Case]:
    def case(
        title: str, lengths: list[int], part: str, *, width: int = 0, kl_coef: float = 0.3, pad: float = 0.0
    ) -> Case:
        shape = (len(lengths), max(*lengths, width))
        mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
        logprobs, ref_logprobs = -torch.tensor(rng.exponential(size=(2, *shape)))
        scores = torch.tensor(rng.normal(size=shape[0])) + 2.0
        if part == "price":
            scores = torch.zeros_like(scores)
        if part == "score":
            ref_logprobs = logprobs.clone()
        # Two networks need not agree on what they think of padding.
        ours, theirs = logprobs.masked_fill(~mask, pad), ref_logprobs.masked_fill(~mask, -pad if abs(pad) < 99 else pad)
        return Case(title=title, args=(scores, ours, theirs, mask), kwargs={"kl_coef": kl_coef}, part=part)

    return [
        case("scores of 0", [4, 4], "price"),
        case("scores of 0, another coefficient", [3, 3], "price", kl_coef=1.5),
        case("a policy that is its reference", [4, 4, 4], "score"),
        case("a policy that is its reference, rows of three lengths", [5, 1, 3], "score"),
        case("rows of three lengths, garbage in the padding", [4, 1, 6], "padding", width=7, pad=-42.0),
        case("padding that both networks rule out", [2, 4], "padding", width=5, pad=-torch.inf),
        case("a row without a token", [3, 0], "padding", width=4, pad=-42.0),
    ]


def _last(mask: Tensor) -> Tensor:
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)


def _with(price: Tensor, place: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    return (price + scores[:, None] * place).masked_fill(~mask, 0.0)


def _pays_for_drift(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """This pays for drift instead of charging for it.

    A token that the policy likes better than the reference does has log pi - log pi_ref above 0, and that must cost.
    """
    return kl_shaped_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=-kl_coef)


def _free(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Drift costs nothing here: the second part of R(s) is missing."""
    return kl_shaped_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=0.0)


def _price_of_one(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Every nat costs 1, whatever the coefficient says: where is beta?"""
    return kl_shaped_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=1.0)


def _ratio(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The price is on the logarithm of the ratio. These are ratios: a policy that is its reference would pay too."""
    return _with(-kl_coef * torch.exp(logprobs - ref_logprobs), _last(mask), scores, mask)


def _positive_part(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Negative prices were cut off or made positive.

    One token's k1 may be below 0, and must be: only with the tokens that pay back is the mean the KL.
    """
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs).clamp(min=0.0), _last(mask), scores, mask)


def _absolute(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The distance between two log-probs is not the KL: without its sign, a token's k1 no longer has the right mean."""
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs).abs(), _last(mask), scores, mask)


def _third(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """This is k3: its mean is the same KL, but as a price it does not push the policy as that KL does.

    R(s) has the logarithm of the ratio itself, which is k1.
    """
    return _with(-kl_coef * kl_k3(logprobs, ref_logprobs), _last(mask), scores, mask)


def _all_at_the_end(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The sum of a row is right, but the whole price stands on its last token.

    Each token pays for its own drift, so that the critic can tell which one was dear.
    """
    right = kl_shaped_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=kl_coef)
    return right.sum(-1, keepdim=True) * _last(mask)


def _mean_price(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Every token pays the row's mean price. The prices sum up right, but no token pays for its own drift."""
    prices = kl_k1(logprobs, ref_logprobs).masked_fill(~mask, 0.0)
    mean = prices.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    return _with(-kl_coef * mean, _last(mask), scores, mask)


def _on_every_token(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The score was added to every token.

    A response earns it once, on its last token; else a longer text earns more for being longer.
    """
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs), mask, scores, mask)


def _shared_out(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The score was shared out over the tokens. It is for the whole text, which is only there at its last token."""
    share = mask / mask.sum(-1, keepdim=True).clamp(min=1)
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs), share, scores, mask)


def _in_the_last_column(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float
) -> Tensor:
    """The score stands in the last column, which is padding in a short row: where does the mask end?"""
    rewards = kl_shaped_rewards(torch.zeros_like(scores), logprobs, ref_logprobs, mask, kl_coef=kl_coef)
    rewards[:, -1] += scores
    return rewards


def _last_column_masked(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float
) -> Tensor:
    """Short rows have lost their score: it was put into the last column, and then masked away as padding."""
    place = torch.zeros_like(mask)
    place[:, -1] = True
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs), place, scores, mask)


def _one_step_later(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The score stands on the first padding token.

    Huang et al. and TRL do so; here it stands on the last token itself, as an equation with V = 0 after it wants it.
    """
    rewards = kl_shaped_rewards(torch.zeros_like(scores), logprobs, ref_logprobs, mask, kl_coef=kl_coef)
    place = mask.sum(-1).clamp(max=mask.shape[1] - 1)
    return rewards.scatter_add(1, place[:, None], scores[:, None])


def _one_step_early(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Off by one: the score stands on the token before the last, so the last one, EOS, earns nothing."""
    place = (mask.sum(-1) - 2).clamp(min=0)
    early = torch.arange(mask.shape[1]) == place[:, None]
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs), early, scores, mask)


def _first_token(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """The score stands on the first token, before anything of the text is there.

    What comes later than a token is credited to it, what came earlier is not: the other tokens would earn nothing.
    """
    first = torch.arange(mask.shape[1]) == 0
    return _with(-kl_coef * kl_k1(logprobs, ref_logprobs), first, scores, mask)


def _padding_pays(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Padding pays too: outside the mask a reward is 0, whatever the two networks think of what stands there."""
    return -kl_coef * kl_k1(logprobs, ref_logprobs) + scores[:, None] * _last(mask)


def _times_the_mask(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """A mask that multiplies does not hide: infinity minus infinity is NaN, and NaN times 0 is NaN. Fill instead."""
    return (-kl_coef * kl_k1(logprobs, ref_logprobs) + scores[:, None] * _last(mask)) * mask


def _wraps_around(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """A row without a token got a score: its length less 1 is -1, which is the row's end. It has no last token."""
    rewards = kl_shaped_rewards(torch.zeros_like(scores), logprobs, ref_logprobs, mask, kl_coef=kl_coef)
    rewards[torch.arange(len(scores)), mask.sum(-1) - 1] += scores
    return rewards


def _row_by_row(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    rewards = torch.zeros_like(logprobs)
    for row, length in enumerate(mask.sum(-1).tolist()):
        for t in range(length):
            rewards[row, t] = kl_coef * (ref_logprobs[row, t] - logprobs[row, t])
        if length:
            rewards[row, length - 1] += scores[row]
    return rewards


def _by_position(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    place = torch.arange(mask.shape[1]).expand_as(mask)
    last = torch.where(mask, place, -1).amax(-1, keepdim=True)
    price = torch.where(mask, kl_coef * (logprobs - ref_logprobs), 0.0)
    return torch.where(mask & (place == last), scores[:, None], 0.0) - price


KL_SHAPED_REWARDS = Exercise(
    id="kl-shaped-rewards",
    title="The reward of a token",
    kind="implement",
    points=4,
    minutes=15,
    difficulty=2,
    reference=kl_shaped_rewards,
    cases=_cases,
    mistakes=(
        _pays_for_drift,
        _free,
        _price_of_one,
        _ratio,
        _positive_part,
        _absolute,
        _third,
        _all_at_the_end,
        _mean_price,
        _on_every_token,
        _shared_out,
        _in_the_last_column,
        _last_column_masked,
        _one_step_later,
        _one_step_early,
        _first_token,
        _times_the_mask,
        _padding_pays,
        _wraps_around,
    ),
    variants=(_row_by_row, _by_position),
    parts={"price": 2, "score": 1, "padding": 1},
)
