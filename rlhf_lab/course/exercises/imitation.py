"""Notebook 01: what imitation teaches, and what it cannot."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.imitation_counting import GLOBAL_MEAN, WHAT_COUNTS
from rlhf_lab.equations.sequence import next_token_loss, token_logprobs


def _loss_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, shape: tuple[int, ...], scale: float = 1.0, offset: float = 0.0) -> Case:
        logits = torch.tensor(scale * rng.normal(size=(*shape, 7)) + offset)
        tokens = torch.tensor(rng.integers(0, 7, size=shape))
        return Case(title=title, args=(logits, tokens), gradient_of=(0,))

    return [
        case("five tokens", (5,)),
        case("a batch of three texts", (3, 4)),
        case("one token", (1,)),
        case("logits in the thousands", (4,), scale=300.0, offset=2000.0),
    ]


def _sign_lost(logits: Tensor, tokens: Tensor) -> Tensor:
    """That is the log-probability, which training would push down: a loss is small where the token was expected."""
    return token_logprobs(logits, tokens)


def _averaged(logits: Tensor, tokens: Tensor) -> Tensor:
    """You return a mean. The trainer wants one loss for each token: what the mean is over is its own affair."""
    return next_token_loss(logits, tokens).mean()


def _in_bits(logits: Tensor, tokens: Tensor) -> Tensor:
    """These are bits. The natural logarithm gives nats, which is what everybody reports."""
    return next_token_loss(logits, tokens) / math.log(2.0)


def _overflowing(logits: Tensor, tokens: Tensor) -> Tensor:
    """The exponential of a large number is infinite: take the logarithm of the softmax in one step, not in two."""
    powers = logits.exp()
    return -(powers / powers.sum(-1, keepdim=True)).gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()


def _not_normalized(logits: Tensor, tokens: Tensor) -> Tensor:
    """A logit is no log-probability yet: what makes those of all tokens add up to 1?"""
    return -logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _one_minus(logits: Tensor, tokens: Tensor) -> Tensor:
    """1 - p is not the loss: a token that the model holds for impossible would cost no more than 1. Use -log p."""
    return 1.0 - token_logprobs(logits, tokens).exp()


def _detached(logits: Tensor, tokens: Tensor) -> Tensor:
    """The values are right, but no gradient reaches the logits: without detach(), item() or numpy() it would."""
    return next_token_loss(logits, tokens).detach()


def _by_cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    flat = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens.reshape(-1), reduction="none")
    return flat.view(tokens.shape)


def _by_logsumexp(logits: Tensor, tokens: Tensor) -> Tensor:
    chosen = (functional.one_hot(tokens, logits.shape[-1]) * logits).sum(-1)
    return logits.logsumexp(-1) - chosen


TOKEN_LOSS = Exercise(
    id="token-loss",
    title="The loss of a token",
    kind="implement",
    points=2,
    minutes=8,
    difficulty=1,
    reference=next_token_loss,
    cases=_loss_cases,
    mistakes=(_sign_lost, _averaged, _in_bits, _overflowing, _not_normalized, _one_minus, _detached),
    variants=(_by_cross_entropy, _by_logsumexp),
    masked=tuple(f"rlhf_lab.equations.sequence.{name}" for name in ("token_logprobs", "distillation_loss", "kl_exact")),
)


def _nats() -> list[float]:
    return [math.log(4096), 1.5 * math.log(2), 2**1.5]


def _bits() -> list[float]:
    """You count in bits; a nat is the natural logarithm, 0.693 of them to a bit."""
    return [12.0, 1.5, 2**1.5]


def _log_of_mean() -> list[float]:
    """You take the logarithm of the mean probability; the loss is the mean of the logarithms."""
    mean = (1 / 2 + 1 / 4 + 1 / 8 + 1) / 4
    return [math.log(4096), -math.log(mean), 1 / mean]


def _summed() -> list[float]:
    """You add the losses up; the loss of a text, and its perplexity, are means over the tokens."""
    return [math.log(4096), 6 * math.log(2), 64.0]


def _mixed_bases() -> list[float]:
    """Your perplexity is 2 to the power of nats: use e, or bits, but the same base both times."""
    return [math.log(4096), 1.5 * math.log(2), 2 ** (1.5 * math.log(2))]


def _without_the_sure() -> list[float]:
    """The token of probability 1 counts too: its loss is 0, and it is one of the four."""
    return [math.log(4096), 2 * math.log(2), 4.0]


NATS = Exercise(
    id="nats",
    title="What is a loss of 8.3?",
    kind="predict",
    points=1,
    minutes=5,
    difficulty=1,
    reference=_nats,
    cases=lambda rng: [Case(title="three numbers")],
    mistakes=(_bits, _log_of_mean, _summed, _mixed_bases, _without_the_sure),
    variants=(lambda: [8.318, 1.04, 2.828], lambda: [8.32, 1.04, 2.83]),
    tolerance=3e-3,
)


def _blind() -> list[float]:
    return [-math.log(0.3), -math.log(0.3), 7.0, 4.2]


def _forgiving() -> list[float]:
    """You let the synonym pass. The loss does not: it knows one right token, the reference's."""
    return [0.0, -math.log(0.3), 7.0, 4.2]


def _favorites() -> list[float]:
    """Your losses are those of each model's favorite word; the loss asks for the probability of the reference's."""
    return [-math.log(0.7), -math.log(0.7), 7.0, 4.2]


def _most_likely() -> list[float]:
    """Right losses. But a sampled summary has either word: weigh both grades by their probabilities."""
    return [-math.log(0.3), -math.log(0.3), 7.0, 3.0]


def _middle() -> list[float]:
    """Right losses. But the two grades are not equally likely: weigh each by the probability of its word."""
    return [-math.log(0.3), -math.log(0.3), 7.0, 5.0]


def _swapped() -> list[float]:
    """You have weighed the grades the wrong way round: the reference's word has probability 0.3, the other 0.7."""
    return [-math.log(0.3), -math.log(0.3), 7.0, 0.7 * 7 + 0.3 * 3]


def _probabilities() -> list[float]:
    """Your first two are probabilities. The loss of a token is the negative logarithm of its probability."""
    return [0.3, 0.3, 7.0, 4.2]


BLIND = Exercise(
    id="blind-loss",
    title="Two models, one loss",
    kind="predict",
    points=2,
    minutes=6,
    difficulty=2,
    reference=_blind,
    cases=lambda rng: [Case(title="four numbers")],
    mistakes=(_forgiving, _favorites, _most_likely, _middle, _swapped, _probabilities),
    variants=(lambda: [1.204, 1.204, 7, 4.2], lambda: [1.2, 1.2, 7.0, 0.3 * 7 + 0.7 * 3]),
    tolerance=5e-3,
)

LIMITS = Written(
    id="two-limits",
    title="The two limits, in numbers",
    points=3,
    minutes=12,
    difficulty=3,
    rubric={
        "first limit: how far the losses of equally good summaries lie apart, and what training on one does to them": 1,
        "second limit: an edit that the loss minds and the judge does not, beside one the other way round": 1,
        "says what signal would tell them apart, and why more demonstrations alone do not": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (TOKEN_LOSS, NATS, WHAT_COUNTS, GLOBAL_MEAN, BLIND, LIMITS)
