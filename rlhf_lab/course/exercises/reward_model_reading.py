"""Exercises of notebook 03: where the score is read, and how sure a reward model may be."""

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.evaluation import calibration

EOS = 0


def _score_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, lengths: list[int], ends: list[bool], padding: float) -> Case:
        width = max(lengths) + (0 if padding == 0 else 2)
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        tokens = torch.tensor(rng.integers(1, 50, size=mask.shape))
        for row, (length, has_end) in enumerate(zip(lengths, ends, strict=True)):
            tokens[row, length - has_end :] = EOS
        scores = torch.tensor(rng.normal(size=mask.shape)).masked_fill(~mask, padding)
        return Case(title=title, args=(scores, tokens, mask), part="ends" if all(ends) else "cut", gradient_of=(0,))

    return [
        case("three texts of one length", [5, 5, 5], [True] * 3, 0.0),
        case("texts of different lengths", [6, 2, 4], [True] * 3, 99.0),
        case("a text of one token, its EOS", [1, 3], [True] * 2, -77.0),
        case("padding that is no number (nan)", [4, 3], [True] * 2, torch.nan),
        case("texts that were cut, so that they have no EOS", [6, 3, 5], [False, True, False], 99.0),
    ]


def _read_score(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return _at(token_scores, mask.sum(-1) - 1)


def _at(token_scores: Tensor, places: Tensor) -> Tensor:
    return token_scores.gather(-1, places[:, None]).squeeze(-1)


def _last_place(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """That is the last place of the row, which is padding in all but the longest: where does each text end?"""
    return token_scores[:, -1]


def _before_the_end(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """You read one place too early: the score is to be given when the EOS has been read, not before."""
    return _at(token_scores, (mask.sum(-1) - 2).clamp(min=0))


def _behind_the_end(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """You read one place behind the EOS. A text of n tokens ends at place n - 1, as places count from 0."""
    return _at(token_scores, mask.sum(-1).clamp(max=mask.shape[1] - 1))


def _before_the_first_zero(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """You count the tokens that are not 0, but the EOS is token 0 too, as the padding is. The mask knows better."""
    return _at(token_scores, ((tokens != EOS).sum(-1) - 1).clamp(min=0))


def _first_eos(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """A text that was cut has no EOS: your search then finds padding, or nothing and so the first place.

    The text ends where its mask ends.
    """
    return _at(token_scores, (tokens == EOS).int().argmax(-1))


def _mean_of_text(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """That is the mean over the text. Its early scores were given before the text was known: read the last one."""
    return torch.where(mask, token_scores, 0.0).sum(-1) / mask.sum(-1)


def _sum_of_text(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """That is the sum over the text, which grows with its length. One number is the response's: the last one."""
    return torch.where(mask, token_scores, 0.0).sum(-1)


def _best_of_text(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """That is the highest score on the way. What came after it would not count: read where the text ends."""
    return torch.where(mask, token_scores, -torch.inf).max(-1).values


def _times_mask(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """A mask that multiplies does not hide: nan times 0 is nan. Pick the one score instead of adding up zeros."""
    is_last = torch.arange(mask.shape[1]) == (mask.sum(-1) - 1)[:, None]
    return (token_scores * is_last).sum(-1)


def _without_gradient(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The numbers are right, but no gradient flows: through `item()`, `tolist()` or `detach()` nothing is learnt."""
    return _read_score(token_scores.detach(), tokens, mask)


def _by_index(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return token_scores[torch.arange(len(mask)), mask.long().cumsum(-1).argmax(-1)]


def _row_by_row(token_scores: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([row[counts][-1] for row, counts in zip(token_scores, mask, strict=True)])


READ_SCORE = Exercise(
    id="read-score",
    title="Where the score is read",
    kind="find the bug",
    points=2,
    minutes=8,
    difficulty=2,
    reference=_read_score,
    cases=_score_cases,
    mistakes=(
        _last_place,
        _before_the_end,
        _behind_the_end,
        _before_the_first_zero,
        _first_eos,
        _mean_of_text,
        _sum_of_text,
        _best_of_text,
        _times_mask,
        _without_gradient,
    ),
    variants=(_by_index, _row_by_row),
)


def _calibration_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(num: int) -> np.ndarray:
        margins = rng.normal(loc=0.6, scale=1.5, size=num)
        return np.where(np.abs(margins) < 1e-3, 0.5, margins)

    ties = drawn(12)
    ties[::4] = 0.0
    return [
        Case(title="forty comparisons in four parts", args=(drawn(40), 4), part="parts"),
        Case(title="one part", args=(drawn(9), 1), part="parts"),
        Case(title="twenty-three comparisons in five parts", args=(drawn(23), 5), part="parts"),
        Case(title="equal scores", args=(ties, 4), part="ties"),
    ]


def _calibration(margins: np.ndarray, num_parts: int) -> np.ndarray:
    return np.array([[row["predicted"], row["observed"]] for row in calibration(margins, num_parts)])


def _in_parts(order: np.ndarray, sure: np.ndarray, right: np.ndarray, num_parts: int) -> np.ndarray:
    """Means of what was foretold and of what came, in equal parts of `order`."""
    return np.array([[sure[rows].mean(), right[rows].mean()] for rows in np.array_split(order, num_parts)])


def _sureness(margins: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.abs(margins)))


def _right(margins: np.ndarray, tie: float = 0.5) -> np.ndarray:
    return (margins > 0) + tie * (margins == 0)


def _knows_the_label(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """You sort by the probability of the *chosen* response, which takes the label into account: is that foretelling?

    The model names its favorite, with a probability of one half or more, before it knows who was chosen.
    """
    prob = 1 / (1 + np.exp(-margins))
    return _in_parts(prob.argsort(), prob, _right(margins), num_parts)


def _signed_order(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """You sort by the margin with its sign, so that one part has all the errors: sort by how sure the model is."""
    return _in_parts(margins.argsort(), _sureness(margins), _right(margins), num_parts)


def _label_as_forecast(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """What you call foretold is the probability of the chosen response, which is low where the model errs.

    The model names its favorite, with a probability of one half or more, before it knows who was chosen.
    """
    return _in_parts(np.abs(margins).argsort(), 1 / (1 + np.exp(-margins)), _right(margins), num_parts)


def _unsorted(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """The parts are in the order of the data: sort by how sure the model is before you cut."""
    return _in_parts(np.arange(len(margins)), _sureness(margins), _right(margins), num_parts)


def _ties_wrong(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """A model that gives both the same score has guessed: such a pair counts half, not nothing."""
    return _in_parts(np.abs(margins).argsort(), _sureness(margins), _right(margins, 0.0), num_parts)


def _ties_right(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """A model that gives both the same score has guessed: such a pair counts half, not fully."""
    return _in_parts(np.abs(margins).argsort(), _sureness(margins), _right(margins, 1.0), num_parts)


def _mean_margin(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """You take the sigmoid of a mean margin. It is the mean of the probabilities that can be held against a share."""
    return np.array(
        [
            [_sureness(np.abs(margins[rows]).mean()), _right(margins[rows]).mean()]
            for rows in np.array_split(np.abs(margins).argsort(), num_parts)
        ]
    )


def _margins_themselves(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """Your first column has margins, not probabilities: the sigmoid makes one of a difference of scores."""
    return _in_parts(np.abs(margins).argsort(), np.abs(margins), _right(margins), num_parts)


def _surest_first(margins: np.ndarray, num_parts: int) -> np.ndarray:
    """The parts are right, their order is not: the least sure one comes first."""
    return _calibration(margins, num_parts)[::-1].copy()


def _by_sorting(margins: np.ndarray, num_parts: int) -> np.ndarray:
    by_sureness = margins[np.argsort(abs(margins))]
    rows = []
    for part in np.array_split(by_sureness, num_parts):
        rows.append((np.mean(1 / (1 + np.exp(-abs(part)))), np.mean(np.where(part == 0, 0.5, part > 0))))
    return np.array(rows)


def _with_torch(margins: np.ndarray, num_parts: int) -> np.ndarray:
    margin = torch.tensor(margins)
    parts = margin[margin.abs().argsort()].tensor_split(num_parts)
    rows = [torch.stack([part.abs().sigmoid().mean(), (part.sign() + 1).mean() / 2]) for part in parts]
    return torch.stack(rows).numpy()


CALIBRATION = Exercise(
    id="calibration",
    title="How sure, and how often right",
    kind="implement",
    points=2,
    minutes=10,
    difficulty=2,
    reference=_calibration,
    cases=_calibration_cases,
    mistakes=(
        _knows_the_label,
        _signed_order,
        _label_as_forecast,
        _unsorted,
        _ties_wrong,
        _ties_right,
        _mean_margin,
        _margins_themselves,
        _surest_first,
    ),
    variants=(_by_sorting, _with_torch),
    masked=("rlhf_lab.evaluation.calibration",),
)
