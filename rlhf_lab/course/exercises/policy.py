"""Notebook 04: how does a reward move a policy? REINFORCE, and what drift from the reference costs.

Its other exercises are in `policy_rewards`, `policy_advantages`, `policy_whitening` and `policy_losses`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.policy_advantages import GAE
from rlhf_lab.course.exercises.policy_losses import CLIPPED_SURROGATE, TWO_CURVES
from rlhf_lab.course.exercises.policy_rewards import KL_SHAPED_REWARDS
from rlhf_lab.course.exercises.policy_whitening import WHITENING


def _reinforce(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    return -(rewards - baselines).detach() * _of_taken(torch.log_softmax(logits, -1), actions)


def _of_taken(table: Tensor, actions: Tensor) -> Tensor:
    return table.gather(-1, actions[:, None]).squeeze(-1)


def _reinforce_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, logits: Tensor, actions: list[int], same: bool = False, plain: bool = False) -> Case:
        rewards, baselines = torch.tensor(rng.normal(size=(2, len(actions)))) + torch.tensor([[2.0], [1.0]])
        baselines = rewards.clone() if same else torch.zeros_like(rewards) if plain else baselines
        return Case(title=title, args=(logits, torch.tensor(actions), rewards, baselines), gradient_of=(0, 3))

    def drawn(samples: int, actions: int) -> Tensor:
        return torch.tensor(rng.normal(size=(samples, actions)))

    sure = torch.tensor([[800.0, 0.0, 0.0], [0.0, 800.0, 0.0]], dtype=torch.float64)
    return [
        case("four samples of three actions", drawn(4, 3), [0, 2, 1, 2]),
        case("one sample", drawn(1, 5), [3]),
        case("an action that is next to impossible", sure, [1, 1]),
        case("without a baseline", drawn(3, 3), [2, 0, 1], plain=True),
        case("rewards that are just what was expected", drawn(3, 4), [2, 0, 3], same=True),
    ]


def _climbs_down(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """An optimizer goes downhill: as it stands, it makes the actions that earned most the rarest. What is missing?"""
    return -_reinforce(logits, actions, rewards, baselines)


def _probability(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """The gradient of the probability, not of its logarithm.

    Likely actions are sampled more often; the logarithm makes up for that, and here they count twice.
    """
    return -(rewards - baselines).detach() * _of_taken(torch.softmax(logits, -1), actions)


def _raw_logit(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """A logit is no log-probability: the other actions must lose what the sampled one gains."""
    return -(rewards - baselines).detach() * _of_taken(logits, actions)


def _without_baseline(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """What counts is how much more came than was expected: the baseline plays no part yet."""
    return _reinforce(logits, actions, rewards, torch.zeros_like(rewards))


def _trained_baseline(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """The number is right, but a gradient flows into the baseline.

    This loss would teach the critic to make the policy's loss small, not to predict: the advantage is a constant here.
    """
    return -(rewards - baselines) * _of_taken(torch.log_softmax(logits, -1), actions)


def _own_mean(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """This takes the mean of these very rewards as the baseline, not the one that is given.

    The sample's own reward is in that mean, so the gradient shrinks to (n - 1) / n of its size, and a single sample
    teaches nothing.
    """
    return _reinforce(logits, actions, rewards, rewards.mean().expand_as(rewards))


def _no_gradient(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """No gradient reaches the logits: the advantage is a constant, the log-probability is not."""
    return _reinforce(logits.detach(), actions, rewards, baselines)


def _rounded_to_zero(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """The probability of a rare action is rounded to 0 before its logarithm is taken: do both in one function."""
    return -(rewards - baselines).detach() * torch.log(_of_taken(torch.softmax(logits, -1), actions))


def _likeliest(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """The reward came for the action that was sampled, which need not be the likeliest one."""
    return _reinforce(logits, logits.argmax(-1), rewards, baselines)


def _over_samples(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """The probabilities of one sample's actions sum to 1: along which dimension of the logits do the actions lie?"""
    return -(rewards - baselines).detach() * _of_taken(torch.log_softmax(logits, 0), actions)


def _averaged(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """One number for each sample is asked for: in this kit equations do not reduce, the trainer does."""
    return _reinforce(logits, actions, rewards, baselines).mean()


def _with_one_hot(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    with torch.no_grad():
        advantages = rewards - baselines
    taken = torch.nn.functional.one_hot(actions, logits.shape[-1]).to(logits.dtype)
    return (-advantages[:, None] * taken * logits.log_softmax(-1)).sum(-1)


def _as_cross_entropy(logits: Tensor, actions: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    advantages = rewards.detach() - baselines.detach()
    return torch.nn.functional.cross_entropy(logits, actions, reduction="none") * advantages


REINFORCE = Exercise(
    id="reinforce",
    title="REINFORCE with a baseline",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=1,
    reference=_reinforce,
    cases=_reinforce_cases,
    mistakes=(
        _climbs_down,
        _probability,
        _raw_logit,
        _without_baseline,
        _trained_baseline,
        _own_mean,
        _no_gradient,
        _rounded_to_zero,
        _likeliest,
        _over_samples,
        _averaged,
    ),
    variants=(_with_one_hot, _as_cross_entropy),
)

POLICY, EVEN = np.array([0.75, 0.25]), np.array([0.5, 0.5])
"""Chances of yes and no: the policy's, and the reference's."""


def _k1() -> np.ndarray:
    return np.log(POLICY / EVEN)


def _k3(log_ratio: np.ndarray) -> np.ndarray:
    return np.exp(log_ratio) - 1 - log_ratio


def _six(k1: np.ndarray, k3: np.ndarray, by: np.ndarray = POLICY, other: np.ndarray = EVEN) -> list[float]:
    """What is asked: k1 of yes and of no, its mean; k3 of no, its mean; the mean of k1 over the other's tokens."""
    return [float(value) for value in (k1[0], k1[1], by @ k1, k3[1], by @ k3, other @ k1)]


def _estimates() -> list[float]:
    return _six(_k1(), _k3(-_k1()))


def _swapped() -> list[float]:
    """The sign: k1 of KL(policy || reference) is log pi minus log pi_ref, above 0 for what the policy likes better."""
    return _six(-_k1(), _k3(-_k1()))


def _in_bits() -> list[float]:
    """These are bits. The course counts in nats, with the natural logarithm: ln 2 is 0.693."""
    return [value / math.log(2) for value in _estimates()]


def _never_negative() -> list[float]:
    """A KL is never below 0, but one token's k1 is: the tokens that the policy has made rarer pay back."""
    return _six(abs(_k1()), _k3(-_k1()))


def _plain_mean() -> list[float]:
    """The policy's tokens are not half yes and half no: weigh each with the chance that the policy writes it."""
    return _six(_k1(), _k3(-_k1()), by=EVEN)


def _k3_turned() -> list[float]:
    """In k3 it is r = log pi_ref - log pi, the other way round than k1. A check: both have the same mean."""
    return _six(_k1(), _k3(_k1()))


def _without_one() -> list[float]:
    """The mean of pi_ref / pi over the policy's tokens is 1: that is what k3 = e^r - 1 - r takes off again."""
    return _six(_k1(), _k3(-_k1()) + 1)


def _whoever_wrote() -> list[float]:
    """It matters who wrote the tokens: on the reference's, each weighs one half, and k1 estimates another KL."""
    return _six(_k1(), _k3(-_k1()), other=POLICY)


def _other_kl() -> list[float]:
    """On the reference's tokens the mean of log pi - log pi_ref is *minus* KL(reference || policy).

    A trainer whose mean KL is clearly negative takes its log-probs from another policy than the one that sampled.
    """
    *first, last = _estimates()
    return [*first, -last]


KL_ESTIMATES = Exercise(
    id="kl-estimates",
    title="Two tokens, two estimates",
    kind="predict",
    points=2,
    minutes=8,
    difficulty=1,
    reference=_estimates,
    cases=lambda rng: [Case(title="your six numbers")],
    mistakes=(
        _swapped,
        _in_bits,
        _never_negative,
        _plain_mean,
        _k3_turned,
        _without_one,
        _whoever_wrote,
        _other_kl,
    ),
    variants=(
        lambda: [0.41, -0.69, 0.13, 0.31, 0.13, -0.14],
        lambda: [0.4055, -0.6931, 0.1308, 0.3069, 0.1308, -0.1438],
    ),
    tolerance=0.006,
)

EXERCISES: Sequence[Exercise | Written] = (
    REINFORCE,
    KL_ESTIMATES,
    KL_SHAPED_REWARDS,
    GAE,
    WHITENING,
    CLIPPED_SURROGATE,
    TWO_CURVES,
)
