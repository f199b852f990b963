"""Exercises of notebook 04: the clipped surrogate, and what a policy becomes without a penalty."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.equations.policy_gradient import clipped_surrogate


def _surrogate_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, ratios: list[float], advantages: list[float], clip_range: float = 0.2) -> Case:
        ratio, advantage = (torch.tensor([values], dtype=torch.float64) for values in (ratios, advantages))
        old = -torch.tensor(rng.exponential(size=ratio.shape)) - 1.0
        return Case(
            title=title,
            args=(old + ratio.log(), old, advantage),
            kwargs={"clip_range": clip_range},
            gradient_of=(0,),
        )

    good, bad = float(rng.uniform(0.5, 2.0)), -float(rng.uniform(0.5, 2.0))
    old, drift = -torch.tensor(rng.exponential(size=(3, 5))), 0.5 * torch.tensor(rng.normal(size=(3, 5)))
    many = (old + drift, old, torch.tensor(rng.normal(size=(3, 5))))
    return [
        case("nothing has moved yet", [1.0, 1.0], [good, bad]),
        case("inside the range", [0.9, 1.1, 0.9, 1.1], [good, good, bad, bad]),
        case("moved far the right way", [2.0, 0.4], [good, bad]),
        case("moved far the wrong way", [0.4, 2.0], [good, bad]),
        case("a narrow range", [1.15, 0.85, 1.15, 0.85], [good, good, bad, bad], 0.05),
        case("an advantage of 0", [0.5, 1.0, 1.5], [0.0, 0.0, 0.0]),
        Case(title="three rows", args=many, kwargs={"clip_range": 0.2}, gradient_of=(0,)),
    ]


def _ratios(logprobs: Tensor, old_logprobs: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    ratio = torch.exp(logprobs - old_logprobs)
    return ratio, ratio.clamp(1.0 - clip_range, 1.0 + clip_range)


def _larger(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Clipped on the wrong side: the larger of the two gains was taken.

    A token that has already moved the way it should is pushed on without bound, and one that has moved the wrong way
    gets no gradient to come back. The minimum of the gains is wanted, which is the maximum of the losses.
    """
    ratio, clipped = _ratios(logprobs, old_logprobs, clip_range)
    return -torch.maximum(ratio * advantages, clipped * advantages)


def _both_sides(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Clipped on both sides.

    A token that has moved the wrong way gets no gradient either, so a step that went astray can never be taken back.
    """
    return -_ratios(logprobs, old_logprobs, clip_range)[1] * advantages


def _never_clipped(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Nothing is clipped: several updates on one rollout can push a token as far as they like."""
    return -_ratios(logprobs, old_logprobs, clip_range)[0] * advantages


def _before_the_advantage(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The smaller *ratio* was taken, and multiplied afterwards.

    For a negative advantage the smaller ratio is the larger gain: multiply both first, then take the minimum.
    """
    ratio, clipped = _ratios(logprobs, old_logprobs, clip_range)
    return -torch.minimum(ratio, clipped) * advantages


def _climbs_down(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The sign: this is the gain, and a loss is made smaller, so the policy would learn to do what earned least."""
    return -clipped_surrogate(logprobs, old_logprobs, advantages, clip_range=clip_range)


def _old_over_new(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The ratio is upside down: pi_old / pi falls when the policy makes a token likelier."""
    return clipped_surrogate(2 * old_logprobs - logprobs, old_logprobs, advantages, clip_range=clip_range)


def _no_exponential(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The difference of log-probs is the ratio's logarithm, 0 where nothing has moved: the ratio is 1 there."""
    difference = logprobs - old_logprobs
    clipped = difference.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(difference * advantages, clipped * advantages)


def _divided_logprobs(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Log-probs were divided: the ratio of two probabilities is the exponential of their logarithms' difference."""
    ratio = logprobs / old_logprobs
    return -torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantages)


def _clipped_logarithm(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The logarithm of the ratio was clipped.

    The range is 1 - epsilon to 1 + epsilon for the ratio itself: epsilon = 0.2 would let it grow to e^0.2 = 1.22.
    """
    difference = logprobs - old_logprobs
    clipped = difference.clamp(-clip_range, clip_range).exp()
    return -torch.minimum(difference.exp() * advantages, clipped * advantages)


def _clipped_gain(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The gain was clipped, ratio times advantage: the range is around a ratio of 1, however large the advantage is."""
    gain = _ratios(logprobs, old_logprobs, clip_range)[0] * advantages
    return -torch.minimum(gain, gain.clamp(1.0 - clip_range, 1.0 + clip_range))


def _only_above(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Clipped above only: a token with a negative advantage can be made as rare as the optimizer likes."""
    ratio = torch.exp(logprobs - old_logprobs)
    return -torch.minimum(ratio * advantages, ratio.clamp(max=1.0 + clip_range) * advantages)


def _constant_ratio(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The numbers are right, but no gradient reaches the log-probs: detach what is constant, never the ratio."""
    return clipped_surrogate(logprobs.detach(), old_logprobs, advantages, clip_range=clip_range)


def _own_past(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """The ratio is always 1: the current log-probs were taken for the old ones, so nothing is ever clipped.

    The old log-probs are those of the policy that sampled, and stay as they were while it is trained.
    """
    return clipped_surrogate(logprobs, logprobs.detach(), advantages, clip_range=clip_range)


def _as_reinforce(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """This is REINFORCE: right for one update on a rollout. For a second one the ratio to the old policy is needed."""
    return -advantages * logprobs


def _averaged(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """One number for each token is asked for: the trainer takes the mean, over the tokens that count."""
    return clipped_surrogate(logprobs, old_logprobs, advantages, clip_range=clip_range).mean()


def _by_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    ratio, clipped = _ratios(logprobs, old_logprobs, clip_range)
    return torch.max(-advantages * ratio, -advantages * clipped)


def _by_sign(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    ratio = logprobs.exp() / old_logprobs.exp()
    bounded = torch.where(advantages > 0, ratio.clamp(max=1 + clip_range), ratio.clamp(min=1 - clip_range))
    return -bounded * advantages


CLIPPED_SURROGATE = Exercise(
    id="clipped-surrogate",
    title="The clipped surrogate",
    kind="find the bug",
    points=4,
    minutes=15,
    difficulty=3,
    reference=clipped_surrogate,
    cases=_surrogate_cases,
    mistakes=(
        _larger,
        _both_sides,
        _never_clipped,
        _before_the_advantage,
        _climbs_down,
        _old_over_new,
        _no_exponential,
        _divided_logprobs,
        _clipped_logarithm,
        _clipped_gain,
        _only_above,
        _constant_ratio,
        _own_past,
        _as_reinforce,
        _averaged,
    ),
    variants=(_by_losses, _by_sign),
)

TWO_CURVES = Written(
    id="two-curves",
    title="With and without a penalty",
    points=3,
    minutes=12,
    difficulty=3,
    rubric={
        "Names what goes up and what goes down without the penalty, and at about how many nats the truth turns.": 1,
        "Explains why the proxy keeps rising: the reward model judges texts unlike those that people compared.": 1,
        "Says how the penalty holds the truth up (the price of a nat against what it earns), and one limit.": 1,
    },
)
