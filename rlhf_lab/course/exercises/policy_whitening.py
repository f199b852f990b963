"""Exercise of notebook 04: advantages on one scale. Whitening over the mask."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.sequence import masked_whiten


def _hidden(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0)


def _whitening_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, lengths: list[int], pad: float = 0.0, *, shift: float = 3.0) -> Case:
        mask = torch.arange(max(lengths) + 1) < torch.tensor(lengths)[:, None]
        values = torch.tensor(rng.normal(loc=shift, scale=2.5, size=mask.shape))
        return Case(title=title, args=(values.masked_fill(~mask, pad), mask))

    constant = torch.full((2, 3), 1.25, dtype=torch.float64)
    return [
        case("rows of three lengths, padded with 0", [5, 1, 3]),
        case("padding filled with 99", [4, 2], 99.0),
        case("padding that is not a number", [2, 3], torch.nan),
        case("a single token", [1], -7.0),
        Case(title="tokens that are all worth the same", args=(constant, torch.ones(2, 3, dtype=torch.bool))),
    ]


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    counted = values[mask]
    return counted.mean(), (counted - counted.mean()).square().sum() / max(len(counted) - 1, 1)


def _scaled(values: Tensor, mask: Tensor, mean: Tensor | float, variance: Tensor) -> Tensor:
    return _hidden((values - mean) / torch.sqrt(variance + 1e-8), mask)


def _padding_counted(values: Tensor, mask: Tensor) -> Tensor:
    """Padding is in the mean and in the variance: masking the result is too late, so count the tokens first."""
    return _scaled(values, mask, values.mean(), values.var())


def _padding_as_zeros(values: Tensor, mask: Tensor) -> Tensor:
    """The padding was set to 0 and then counted: a sum of the tokens must be divided by their number, not by all."""
    hidden = _hidden(values, mask)
    return _scaled(values, mask, hidden.mean(), hidden.var())


def _padding_in_the_variance(values: Tensor, mask: Tensor) -> Tensor:
    """The mean is right, but the padding still counts in the variance."""
    hidden = _hidden(values, mask)
    return _scaled(values, mask, _moments(values, mask)[0], hidden.var())


def _each_row(values: Tensor, mask: Tensor) -> Tensor:
    """Each row was whitened by itself.

    So the tokens of the worst response come out as good as those of the best: take all tokens together.
    """
    pairs = list(zip(values, mask, strict=True))
    return torch.stack([_scaled(row, tokens, *_moments(row, tokens)) for row, tokens in pairs])


def _population(values: Tensor, mask: Tensor) -> Tensor:
    """This is the variance divided by n.

    OpenAI's code took that one; here, as in TRL, it is the unbiased one: divided by n - 1.
    """
    mean, _ = _moments(values, mask)
    return _scaled(values, mask, mean, (values[mask] - mean).square().mean())


def _by_the_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Divided by the variance: for a standard deviation of 1 divide by its root."""
    mean, variance = _moments(values, mask)
    return _hidden((values - mean) / (variance + 1e-8), mask)


def _not_centered(values: Tensor, mask: Tensor) -> Tensor:
    """The mean is still there.

    With it, all tokens of a good batch are pushed up; what counts is which are better than the others.
    """
    return _scaled(values, mask, 0.0, _moments(values, mask)[1])


def _only_centered(values: Tensor, mask: Tensor) -> Tensor:
    """The mean is 0 now, but the scale is still that of the reward: divide by the standard deviation."""
    return _hidden(values - _moments(values, mask)[0], mask)


def _times_the_mask_at_the_end(values: Tensor, mask: Tensor) -> Tensor:
    """A mask that multiplies does not hide: NaN times 0 is NaN. Fill what lies outside the mask with 0 instead."""
    mean, variance = _moments(values, mask)
    return (values - mean) / torch.sqrt(variance + 1e-8) * mask


def _padding_left(values: Tensor, mask: Tensor) -> Tensor:
    """Padding was shifted and scaled too: outside the mask the result is 0."""
    mean, variance = _moments(values, mask)
    return (values - mean) / torch.sqrt(variance + 1e-8)


def _nothing_to_divide_by(values: Tensor, mask: Tensor) -> Tensor:
    """0 divided by 0: tokens that are all worth the same have no variance. What is the 1e-8 for?"""
    mean, variance = _moments(values, mask)
    return _hidden((values - mean) / torch.sqrt(variance), mask)


def _one_is_no_number(values: Tensor, mask: Tensor) -> Tensor:
    """A single token came out as NaN: its unbiased variance is 0 divided by 0. Divide by at least 1."""
    counted = values[mask]
    spread = counted.var() if len(counted) > 1 else torch.tensor(torch.nan, dtype=values.dtype)
    return _scaled(values, mask, counted.mean(), spread)


def _with_sums(values: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum()
    hidden = torch.where(mask, values, 0.0)
    deviation = torch.where(mask, hidden - hidden.sum() / count, 0.0)
    return deviation * torch.rsqrt((deviation**2).sum() / (count - 1).clamp(min=1) + 1e-8)


def _only_the_counted(values: Tensor, mask: Tensor) -> Tensor:
    result, counted = torch.zeros_like(values), values[mask].numpy()
    spread = counted.std(ddof=1) if counted.size > 1 else 1.0
    result[mask] = torch.from_numpy((counted - counted.mean()) / max(spread, 1e-4))
    return result


WHITENING = Exercise(
    id="whitening",
    title="Whitening over the mask",
    kind="find the bug",
    points=3,
    minutes=10,
    difficulty=2,
    reference=masked_whiten,
    cases=_whitening_cases,
    mistakes=(
        _padding_counted,
        _padding_as_zeros,
        _padding_in_the_variance,
        _each_row,
        _population,
        _by_the_variance,
        _not_centered,
        _only_centered,
        _times_the_mask_at_the_end,
        _padding_left,
        _one_is_no_number,
        _nothing_to_divide_by,
    ),
    variants=(_with_sums, _only_the_counted),
    masked=("rlhf_lab.equations.sequence.masked_moments", "rlhf_lab.equations.sequence.pooled_moments"),
)
