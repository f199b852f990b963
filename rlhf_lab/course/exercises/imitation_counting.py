"""Notebook 01: which tokens of a demonstration count, and what the mean over them is over."""

import math

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.sequence import masked_mean

EOS = 0


def _mask_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, part: str, prompts: list[int], ends: list[int | None], time: int) -> Case:
        tokens = rng.integers(1, 50, size=(len(prompts), time))
        for row, end in enumerate(ends):
            if end is not None:
                tokens[row, end:] = EOS  # Padding holds the number 0 too, as it does in the package.
        return Case(title=title, args=(torch.tensor(tokens), torch.tensor(prompts), EOS), part=part)

    in_prompt = case("a prompt that has an EOS in it", "end", [4, 3], [7, 6], 9)
    in_prompt.args[0][0, 1] = EOS
    prompts = rng.integers(1, 6, 4).tolist()
    return [
        case("texts that were cut before their EOS", "prompt", prompts, [None] * 4, 7),
        case("EOS and padding", "end", [3, 2, 4], [6, 4, None], 9),
        case("an empty summary, and one whose EOS is the last token", "end", [3, 2], [3, 6], 7),
        in_prompt,
        case("six texts, drawn at random", "end", *_drawn(rng, 6, 14)),
    ]


def _drawn(rng: np.random.Generator, rows: int, time: int) -> tuple[list[int], list[int | None], int]:
    prompts = rng.integers(1, time - 4, rows)
    ends: list[int | None] = [int(rng.integers(start, time)) for start in prompts]
    return prompts.tolist(), ends, time


def _places(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1]).expand_as(tokens)


def _what_counts(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    written = _places(tokens) >= prompt_tokens[:, None]
    is_end = written & (tokens == eos_token_id)
    ends_before = is_end.cumsum(-1) - is_end.long()
    return written & (ends_before == 0)


def _without_eos(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    """EOS does not count for you, so the model would never learn to stop: it is the summary's last token."""
    return _what_counts(tokens, prompt_tokens, eos_token_id) & (tokens != eos_token_id)


def _with_padding(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    """What follows the first EOS of a summary is padding, whatever number is written there: it does not count."""
    return _places(tokens) >= prompt_tokens[:, None]


def _with_prompt(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    """The prompt counts for you: then most of the lesson is how to write posts. Count what the writer wrote."""
    return _what_counts(tokens, torch.zeros_like(prompt_tokens), eos_token_id)


def _too_late(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    """The summary's first token is missing: with n prompt tokens, counted from 0, it stands at place n."""
    return _what_counts(tokens, prompt_tokens, eos_token_id) & (_places(tokens) > prompt_tokens[:, None])


def _too_early(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    """The prompt's last token counts for you. It predicts the summary's first token, but here targets are marked."""
    return _what_counts(tokens, prompt_tokens, eos_token_id) | (_places(tokens) == prompt_tokens[:, None] - 1)


def _first_eos_anywhere(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    """Only an EOS of the summary ends it: look for the first one behind the prompt."""
    is_end = tokens == eos_token_id
    return (_places(tokens) >= prompt_tokens[:, None]) & ((is_end.cumsum(-1) - is_end.long()) == 0)


def _mask_by_rows(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, start in enumerate(prompt_tokens.tolist()):
        for t in range(start, tokens.shape[1]):
            mask[row, t] = True
            if tokens[row, t] == eos_token_id:
                break
    return mask


def _mask_by_last_place(tokens: Tensor, prompt_tokens: Tensor, eos_token_id: int) -> Tensor:
    place, time = _places(tokens), tokens.shape[1]
    is_end = (tokens == eos_token_id) & (place >= prompt_tokens[:, None])
    last = torch.where(is_end, place, time).min(-1, keepdim=True).values
    return (place >= prompt_tokens[:, None]) & (place <= last)


WHAT_COUNTS = Exercise(
    id="what-counts",
    title="Which tokens count",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=_what_counts,
    cases=_mask_cases,
    mistakes=(_without_eos, _with_padding, _with_prompt, _too_late, _too_early, _first_eos_anywhere),
    variants=(_mask_by_rows, _mask_by_last_place),
    parts={"prompt": 1, "end": 2},
)


def _accumulation_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, lengths: list[list[int]], padding: float) -> Case:
        mask = torch.arange(max(map(max, lengths)) + 1) < torch.tensor(lengths)[:, :, None]
        losses = torch.tensor(rng.gamma(1.0, size=mask.shape)).masked_fill(~mask, padding)
        return Case(title=title, args=(losses, mask), gradient_of=(0,))

    return [
        case("two micro-batches of two rows, of different lengths", [[5, 5], [2, 2]], 0.0),
        case("rows of different lengths in one micro-batch", [[6, 1]], 0.0),
        case("padding that is not 0", [[4, 2], [3, 1], [1, 1]], 99.0),
        case("padding that is no number (nan)", [[3, 2], [4, 4]], math.nan),
        case("a micro-batch in which nothing counts", [[4, 3], [0, 0]], 99.0),
    ]


def _global_mean(losses: Tensor, mask: Tensor) -> Tensor:
    return masked_mean(losses, mask)


def _mean_of_means(losses: Tensor, mask: Tensor) -> Tensor:
    """A mean of means: each token of a short micro-batch weighs more than one of a long. Divide once, by all tokens."""
    total = 0.0 * losses.masked_fill(~mask, 0.0).sum()
    for part, counted in zip(losses, mask, strict=True):
        total = total + part.masked_fill(~counted, 0.0).sum() / counted.sum()
    return total / len(losses)


def _times_mask(losses: Tensor, mask: Tensor) -> Tensor:
    """0 times nan is nan: set what does not count to 0 (masked_fill, where), or select what does."""
    return (losses * mask).sum() / mask.sum()


def _mean_of_rows(losses: Tensor, mask: Tensor) -> Tensor:
    """A mean over rows of the rows' means: a token of a short summary weighs more than one of a long."""
    kept = losses.masked_fill(~mask, 0.0)
    return (kept.sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def _padding_counted(losses: Tensor, mask: Tensor) -> Tensor:
    """You divide by the number of places, padding included: the loss would fall when a batch has more padding."""
    return losses.masked_fill(~mask, 0.0).sum() / losses.numel()


def _never_divided(losses: Tensor, mask: Tensor) -> Tensor:
    """That is the sum: twice as large a batch would take a step twice as large. Divide by the tokens that count."""
    return losses.masked_fill(~mask, 0.0).sum()


def _unmasked(losses: Tensor, mask: Tensor) -> Tensor:
    """Everything counts for you, padding too: where is the mask?"""
    return losses.mean()


def _selected(losses: Tensor, mask: Tensor) -> Tensor:
    return losses[mask].mean()


def _accumulated(losses: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum()
    return torch.stack([part[counted].sum() / count for part, counted in zip(losses, mask, strict=True)]).sum()


GLOBAL_MEAN = Exercise(
    id="global-mean",
    title="A mean over what?",
    kind="find the bug",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_global_mean,
    cases=_accumulation_cases,
    mistakes=(_mean_of_means, _times_mask, _mean_of_rows, _padding_counted, _never_divided, _unmasked),
    variants=(_selected, _accumulated),
    masked=tuple(f"rlhf_lab.equations.sequence.{name}" for name in ("masked_mean", "masked_moments", "pooled_moments")),
)
