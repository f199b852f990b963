"""Exercise of notebook 04: what each token was worth. Generalized advantage estimation."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.policy_gradient import gae


def _gae_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, lengths: list[int], discount: float, gae_lambda: float, part: str = "") -> Case:
        shape = (len(lengths), max(lengths) + (part == "padding"))
        mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
        rewards, values = torch.tensor(rng.normal(size=shape)), torch.tensor(rng.normal(size=shape))
        # What lies outside the mask is not nothing: it is the critic's opinion of padding.
        rewards, values = rewards.masked_fill(~mask, 99.0), values.masked_fill(~mask, -77.0)
        kwargs = {"discount": discount, "gae_lambda": gae_lambda}
        return Case(title=title, args=(rewards, values, mask), kwargs=kwargs, part=part)

    spoilt = case("padding that is not a number", [3, 2], 1.0, 0.95, "padding")
    rewards, values, mask = spoilt.args
    spoilt = Case(
        title=spoilt.title,
        args=(rewards.masked_fill(~mask, torch.nan), values.masked_fill(~mask, torch.nan), mask),
        kwargs=spoilt.kwargs,
        part="padding",
    )
    return [
        case("two rows of one length", [4, 4], 0.9, 0.8, "estimate"),
        case("gamma = lambda = 1", [4, 4], 1.0, 1.0, "estimate"),
        case("lambda = 0", [3, 3], 0.95, 0.0, "estimate"),
        case("responses of one token", [1, 1], 0.9, 0.8, "estimate"),
        case("rows of three lengths, padded", [5, 1, 3], 0.9, 0.8, "padding"),
        spoilt,
    ]


def _summed(delta: Tensor, rate: float) -> Tensor:
    """What a delta and those after it are worth, each step at `rate`."""
    running, sums = torch.zeros_like(delta[:, 0]), torch.zeros_like(delta)
    for t in reversed(range(delta.shape[1])):
        running = delta[:, t] + rate * running
        sums[:, t] = running
    return sums


def _hidden(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0)


def _ahead(values: Tensor) -> Tensor:
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)


def _values_of_padding(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """The value after a response's last token is 0: did you add the value of a token that does not exist?"""
    delta = rewards + discount * _ahead(values) - values
    return _hidden(_summed(_hidden(delta, mask), discount * gae_lambda), mask)


def _through_padding(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """The sum ran through the padding.

    It starts from the right, where a short row has only padding: nothing of that may reach the row's tokens.
    """
    return _hidden(_summed(rewards + discount * _ahead(values) - values, discount * gae_lambda), mask)


def _unmasked(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """Padding has no advantage: where the mask is False the result is 0."""
    right = gae(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    return torch.where(mask, right, rewards - values)


def _times_the_mask(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """A mask that multiplies does not hide: NaN times 0 is NaN. Fill what lies outside the mask with 0 instead."""
    rewards, values = rewards * mask, values * mask
    return _summed(rewards + discount * _ahead(values) - values, discount * gae_lambda) * mask


def _monte_carlo(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """These are returns minus values, whatever lambda is: lambda must discount the deltas that come later."""
    return gae(rewards, values, mask, discount=discount, gae_lambda=1.0)


def _one_step(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """These are the deltas alone, as for lambda = 0: a score on the last token would never reach the first ones."""
    return gae(rewards, values, mask, discount=discount, gae_lambda=0.0)


def _lambda_alone(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """Later deltas weigh (gamma lambda) each step, not lambda: with gamma = 1 this looks right, and only then."""
    rewards, values = _hidden(rewards, mask), _hidden(values, mask)
    return _hidden(_summed(rewards + discount * _ahead(values) - values, gae_lambda), mask)


def _gamma_alone(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """The value after a token is discounted by gamma alone; lambda weighs deltas, not values."""
    rewards, values = _hidden(rewards, mask), _hidden(values, mask)
    return _hidden(_summed(rewards + discount * gae_lambda * _ahead(values) - values, discount * gae_lambda), mask)


def _no_next_value(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """Where is the value after the token? Without gamma V(t+1) every token is blamed for what is still to come."""
    rewards, values = _hidden(rewards, mask), _hidden(values, mask)
    return _hidden(_summed(rewards - values, discount * gae_lambda), mask)


def _no_critic(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """The critic plays no part: an advantage is how much more came than the critic had said."""
    return gae(rewards, torch.zeros_like(values), mask, discount=discount, gae_lambda=gae_lambda)


def _returns(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """These are the critic's targets, advantage plus value: the policy needs what came beyond the value."""
    return gae(rewards, values, mask, discount=discount, gae_lambda=gae_lambda) + _hidden(values, mask)


def _value_before(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """Off by one: values[:, t] is the value *before* token t, so the one after it stands at t + 1."""
    rewards, values = _hidden(rewards, mask), _hidden(values, mask)
    before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)
    return _hidden(_summed(_hidden(rewards + discount * values - before, mask), discount * gae_lambda), mask)


def _backwards(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """Summed from the first token on: a token is credited with what comes after it, not with what came before."""
    rewards, values = _hidden(rewards, mask), _hidden(values, mask)
    delta = rewards + discount * _ahead(values) - values
    return _hidden(_summed(delta.flip(1), discount * gae_lambda).flip(1), mask)


def _goes_on(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """The last value was repeated after the end, as if the text went on: a response ends, and then the value is 0."""
    right = gae(rewards, values, mask, discount=discount, gae_lambda=0.0)
    last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)
    return _hidden(_summed(right + discount * _hidden(values, last), discount * gae_lambda), mask)


def _by_rows(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    advantages = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        length, running = int(mask[row].sum()), 0.0
        for t in range(length - 1, -1, -1):
            after = float(values[row, t + 1]) if t + 1 < length else 0.0
            delta = float(rewards[row, t]) + discount * after - float(values[row, t])
            running = delta + discount * gae_lambda * running
            advantages[row, t] = running
    return advantages


def _as_a_product(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    after = torch.roll(values, -1, 1)
    after[:, -1] = 0.0
    delta, place = rewards + discount * after - values, torch.arange(rewards.shape[1])
    ahead = (place[None, :] - place[:, None]).to(delta.dtype)
    weights = torch.where(ahead >= 0, torch.tensor(discount * gae_lambda, dtype=delta.dtype) ** ahead.clamp(min=0), 0.0)
    return (delta @ weights.T) * mask


GAE = Exercise(
    id="gae",
    title="Generalized advantage estimation",
    kind="implement",
    points=4,
    minutes=15,
    difficulty=2,
    reference=gae,
    cases=_gae_cases,
    mistakes=(
        _values_of_padding,
        _through_padding,
        _unmasked,
        _times_the_mask,
        _monte_carlo,
        _one_step,
        _lambda_alone,
        _gamma_alone,
        _no_next_value,
        _no_critic,
        _returns,
        _value_before,
        _backwards,
        _goes_on,
    ),
    variants=(_by_rows, _as_a_product),
    parts={"estimate": 3, "padding": 1},
)
