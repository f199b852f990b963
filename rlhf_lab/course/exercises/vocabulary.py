"""Notebook 00: the vocabulary of reinforcement learning, in text.

The first half is here: a policy, its episodes and their probability. Rewards are in `vocabulary_rewards.py`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.vocabulary_rewards import EXPECTED_REWARD, HANDMADE_REWARD, PUSHED_REWARD, RETURNS
from rlhf_lab.equations.sequence import token_logprobs
from rlhf_lab.generation import SamplingConfig, choose


def _policy_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, logits: np.ndarray, temperature: float) -> Case:
        return Case(title=title, args=(torch.tensor(logits), temperature))

    ruled_out = rng.normal(size=(3, 4))
    ruled_out[0, 2] = -np.inf
    return [
        case("two rows at temperature 1", rng.normal(size=(2, 5)), 1.0),
        case("one row at temperature 0.5", rng.normal(size=(1, 6)), 0.5),
        case("three rows at temperature 2", rng.normal(size=(3, 3)), 2.0),
        case("logits in the thousands", 900.0 * rng.normal(size=(2, 4)) + 3000.0, 0.7),
        case("one row far above the other", rng.normal(size=(2, 4)) + np.array([[2000.0], [-2000.0]]), 1.0),
        case("a token that is ruled out (logit -inf)", ruled_out, 0.7),
    ]


def _policy(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, dim=-1)


def _multiplied(logits: Tensor, temperature: float) -> Tensor:
    """The temperature works the wrong way: a low one must make the likeliest token likelier, so it divides."""
    return torch.softmax(logits * temperature, dim=-1)


def _overflowing(logits: Tensor, temperature: float) -> Tensor:
    """The exponential of a large number is infinite. A softmax stays as it is when all logits move alike: how far?"""
    powers = (logits / temperature).exp()
    return powers / powers.sum(-1, keepdim=True)


def _underflowing(logits: Tensor, temperature: float) -> Tensor:
    """You move all rows by one number, so a row far below it becomes 0 / 0: each row has a maximum of its own."""
    powers = ((logits - logits.max()) / temperature).exp()
    return powers / powers.sum(-1, keepdim=True)


def _after_softmax(logits: Tensor, temperature: float) -> Tensor:
    """The temperature divides the logits, before the softmax: a probability divided and normalized is itself again."""
    probs = torch.softmax(logits, dim=-1) / temperature
    return probs / probs.sum(-1, keepdim=True)


def _left_unnormalized(logits: Tensor, temperature: float) -> Tensor:
    """Your rows add up to 1 / temperature: divide the logits, before the softmax makes probabilities of them."""
    return torch.softmax(logits, dim=-1) / temperature


def _over_rows(logits: Tensor, temperature: float) -> Tensor:
    """The columns add up to 1 instead of the rows: the softmax goes over the vocabulary, the last dimension."""
    return torch.softmax(logits / temperature, dim=0)


def _by_hand(logits: Tensor, temperature: float) -> Tensor:
    powers = ((logits - logits.max(-1, keepdim=True).values) / temperature).exp()
    return powers / powers.sum(-1, keepdim=True)


def _by_logsumexp(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits / temperature
    return (scaled - scaled.logsumexp(-1, keepdim=True)).exp()


POLICY = Exercise(
    id="policy-temperature",
    title="A policy is a softmax",
    kind="implement",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_policy,
    cases=_policy_cases,
    mistakes=(_multiplied, _overflowing, _underflowing, _after_softmax, _left_unnormalized, _over_rows),
    variants=(_by_hand, _by_logsumexp),
    tolerance=1e-3,  # Logits in the thousands, in single precision.
)


def _sampling_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, probs: np.ndarray, uniforms: Sequence[float] | np.ndarray) -> Case:
        return Case(title=title, args=(torch.tensor(probs), torch.tensor(np.array(uniforms))))

    probs = np.array([[0.2, 0.5, 0.3]] * 4)
    gaps = np.array([[0.0, 0.5, 0.0, 0.5], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    return [
        case("probabilities 0.2, 0.5, 0.3", probs, [0.1, 0.6, 0.9, 0.15]),
        case("tokens of probability 0, and uniform numbers near 0 and 1", gaps, [0.0, 0.999, 0.0]),
        case("six tokens, drawn at random", rng.dirichlet(np.ones(6), size=40), rng.random(40)),
    ]


def _sampled(probs: Tensor, uniforms: Tensor) -> Tensor:
    return choose(probs.log(), uniforms, SamplingConfig(temperature=1.0))


def _likeliest(probs: Tensor, uniforms: Tensor) -> Tensor:
    """That is the likeliest token, whatever the uniform number is: a policy that never explores."""
    return probs.argmax(-1)


def _one_too_far(probs: Tensor, uniforms: Tensor) -> Tensor:
    """You are one token too far: token 0 is drawn when the number lies below the first cumulative sum."""
    return ((probs.cumsum(-1) <= uniforms[:, None]).sum(-1) + 1).clamp_max(probs.shape[-1] - 1)


def _one_too_early(probs: Tensor, uniforms: Tensor) -> Tensor:
    """You stop one token too early: the token is the first whose cumulative sum lies above the number."""
    return ((probs.cumsum(-1) <= uniforms[:, None]).sum(-1) - 1).clamp_min(0)


def _impossible(probs: Tensor, uniforms: Tensor) -> Tensor:
    """A token of probability 0 was drawn: if the number equals a cumulative sum, whose is it?"""
    return (probs.cumsum(-1) < uniforms[:, None]).sum(-1)


def _not_cumulative(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The number is compared with each probability alone: add up those of the tokens before."""
    return (probs > uniforms[:, None]).int().argmax(-1)


def _by_counting(probs: Tensor, uniforms: Tensor) -> Tensor:
    return (probs.cumsum(-1) <= uniforms[:, None]).sum(-1).clamp_max(probs.shape[-1] - 1)


def _by_walking(probs: Tensor, uniforms: Tensor) -> Tensor:
    tokens = []
    for row, uniform in zip(probs.tolist(), uniforms.tolist(), strict=True):
        token, total = 0, row[0]
        while uniform >= total and token + 1 < len(row):
            token += 1
            total += row[token]
        tokens.append(token)
    return torch.tensor(tokens)


SAMPLING = Exercise(
    id="draw-action",
    title="Draw an action",
    kind="implement",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_sampled,
    cases=_sampling_cases,
    mistakes=(_likeliest, _one_too_far, _one_too_early, _impossible, _not_cumulative),
    variants=(_by_counting, _by_walking),
    masked=("rlhf_lab.generation.choose",),
)


def _episode_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, part: str, prompts: list[int], ends: list[int], time: int) -> Case:
        place = torch.arange(time)
        mask = (place >= torch.tensor(prompts)[:, None]) & (place < torch.tensor(ends)[:, None])
        tokens = torch.tensor(rng.integers(0, 7, size=(len(prompts), time)))
        return Case(
            title=title, args=(torch.tensor(2 * rng.normal(size=(len(prompts), time, 7))), tokens, mask), part=part
        )

    return [
        case("a prompt of one token, no padding", "shift", [1, 1], [5, 5], 5),
        case("prompts of two and three tokens, the second response padded", "mask", [2, 3], [7, 5], 7),
        case("a response of one token, and one with nothing in it", "mask", [2, 4], [3, 4], 6),
    ]


def _episode(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return (token_logprobs(logits[:, :-1], tokens[:, 1:]) * mask[:, 1:]).sum(-1)


def _unshifted(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """You read the logits that have already seen the token: those that predict token t stand at place t - 1."""
    return (token_logprobs(logits, tokens) * mask).sum(-1)


def _mask_behind(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Tokens and mask have come apart: a token keeps its own place in the mask when the logits are shifted."""
    return (token_logprobs(logits[:, :-1], tokens[:, 1:]) * mask[:, :-1]).sum(-1)


def _everything(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The prompt and the padding are counted too: the policy chose neither, so neither belongs to the episode."""
    return token_logprobs(logits[:, :-1], tokens[:, 1:]).sum(-1)


def _mean_of_tokens(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """That is the mean over the tokens. The probability of a text is a product, so its logarithm is a sum."""
    return _episode(logits, tokens, mask) / mask[:, 1:].sum(-1).clamp(min=1)


def _probability(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """That is the probability itself, which becomes 0 for a long text: return its logarithm."""
    return _episode(logits, tokens, mask).exp()


def _by_cross_entropy(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    return -losses.masked_fill(~mask[:, 1:], 0.0).sum(-1)


def _by_tokens(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    sums = []
    for row in range(len(tokens)):
        total = logits.new_zeros(())
        for t in range(1, tokens.shape[1]):
            if mask[row, t]:
                before = logits[row, t - 1]
                total = total + before[tokens[row, t]] - before.logsumexp(0)
        sums.append(total)
    return torch.stack(sums)


EPISODE = Exercise(
    id="episode-logprob",
    title="The probability of an episode",
    kind="find the bug",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_episode,
    cases=_episode_cases,
    mistakes=(_unshifted, _mask_behind, _everything, _mean_of_tokens, _probability),
    variants=(_by_cross_entropy, _by_tokens),
    parts={"shift": 2, "mask": 1},
    masked=("rlhf_lab.equations.sequence.token_logprobs",),
)

EXERCISES: Sequence[Exercise | Written] = (
    POLICY,
    SAMPLING,
    EPISODE,
    RETURNS,
    HANDMADE_REWARD,
    EXPECTED_REWARD,
    PUSHED_REWARD,
)
