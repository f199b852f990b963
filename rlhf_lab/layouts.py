"""How texts that lie end to end, without padding, are laid out in rows for the attention, and who sees whom there.

A batch of texts of different lengths is one long row of real tokens. Where tokens of one text must meet, the long row
is spread over rows that are padded on the right, in buckets of like length; afterwards it is collected again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BUCKETS = 4
"""Into which rows are sorted by length, so that a long one does not make all others wide."""
ENOUGH_ROWS = 16
"""For buckets to be worth their calls."""


@dataclass(frozen=True)
class Grid:
    """Where the tokens of a long row stand when they are laid out in rows."""

    shapes: Sequence[tuple[int, int]]
    """Rows and width of each bucket."""
    source: Int[Tensor, " slots"]
    """The token in each slot, bucket after bucket; in padding any, since nobody looks at it."""
    places: Sequence[Int[Tensor, "_ _"]]
    """(tokens, copies): the slots of each token, part after part of the long row."""

    @classmethod
    def of(cls, buckets: Sequence[Int[Tensor, "_ _"]], copies: Sequence[tuple[int, int]]) -> "Grid":
        """The grid whose slots hold these tokens, by their numbers, and -1 in padding.

        Args:
            buckets: (rows, width) each.
            copies: Part after part of the long row, how many tokens it has and in how many rows each stands.
        """
        slots = torch.cat([bucket.flatten() for bucket in buckets])
        filled = (slots >= 0).nonzero()[:, 0]
        by_token = filled[slots[filled].argsort(stable=True)]
        places = [
            part.view(tokens, rows)
            for part, (tokens, rows) in zip(by_token.split([n * k for n, k in copies]), copies, strict=True)
        ]
        return cls([(len(bucket), bucket.shape[1]) for bucket in buckets], slots.clamp(min=0), places)

    def spread(self, tokens: Float[Tensor, "heads tokens size"]) -> list[Float[Tensor, "_ heads _ size"]]:
        """Copies of the tokens in their places, a tensor for each bucket."""
        slots: Tensor = _Spread.apply(tokens.transpose(0, 1), self.source, *self.places)  # type: ignore[assignment]
        parts = slots.split([rows * width for rows, width in self.shapes])
        return [part.unflatten(0, shape).transpose(1, 2) for part, shape in zip(parts, self.shapes, strict=True)]

    def collect(self, buckets: Sequence[Float[Tensor, "_ _ heads size"]]) -> Float[Tensor, "tokens heads size"]:
        """The tokens again, if each stands in one row."""
        slots = torch.cat([bucket.flatten(0, 1) for bucket in buckets])
        return take(slots, torch.cat([part[:, 0] for part in self.places]))


class _Spread(torch.autograd.Function):
    """The gradient of a token is the sum over its copies; padding has none. PyTorch's own would add one by one."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, source: Tensor, *places: Tensor) -> Tensor:
        ctx.save_for_backward(*places)
        return tokens.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slots,) = gradients
        places: tuple[Tensor, ...] = ctx.saved_tensors
        parts = [slots.index_select(0, part.flatten()).unflatten(0, part.shape) for part in places]
        summed = [part.squeeze(1) if part.shape[1] == 1 else part.sum(1) for part in parts]
        return summed[0] if len(summed) == 1 else torch.cat(summed), None, *(None for _ in places)


def take(tensor: Float[Tensor, "rows ..."], places: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen ..."]:
    """`tensor[places]` for places of which none comes twice; the gradient is then a mere copy."""
    return _Take.apply(tensor, places)  # type: ignore[return-value]


def put(values: Float[Tensor, "chosen ..."], places: Int[Tensor, " chosen"], size: int) -> Float[Tensor, "rows ..."]:
    """Zeros of `size` rows, with the values at places of which none comes twice."""
    return values.new_zeros(size, *values.shape[1:]).index_copy(0, places, values)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = tensor.shape[0]
        return tensor.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return put(gradients[0], places, ctx.size), None


@dataclass(frozen=True)
class Layout:
    """Who sees whom in a long row: texts, each by itself, and behind them the continuations of these texts, if any."""

    queries: Grid
    """Each token once."""
    keys: Grid
    """In the same buckets, those that may be seen: of a continuation, its text and itself."""
    sees: Sequence[Bool[Tensor, "_ 1 _ _"] | None]
    """For each bucket, True where a query (down) may see a key (across); None is all that are not behind it."""

    @classmethod
    def of(cls, mask: Bool[Tensor, "texts time"]) -> "Layout":
        """Texts in the order of `mask`."""
        texts = numbered(mask)
        grid = Grid.of(_cut(texts, _alike(texts)), [(int(mask.sum()), 1)])
        return cls(grid, grid, [None] * len(grid.shapes))

    @classmethod
    def branching(
        cls, prompt_mask: Bool[Tensor, "batch prompt"], response_mask: Bool[Tensor, "batch candidates response"]
    ) -> "Layout":
        """All prompts, then all responses, in the order of the masks."""
        num_prompt_tokens, num_response_tokens = int(prompt_mask.sum()), int(response_mask.sum())
        if not num_response_tokens:
            return cls.of(prompt_mask)
        count = response_mask.shape[1]
        prompts = numbered(prompt_mask)
        responses = numbered(response_mask.flatten(0, 1), first=num_prompt_tokens)
        before = prompt_mask.sum(-1).repeat_interleave(count)
        whole = _behind(prompts.repeat_interleave(count, dim=0), before, responses)
        some_prompts, some_responses = _alike(prompts), _alike(responses)
        roots, branches, wholes = (
            _cut(prompts, some_prompts),
            _cut(responses, some_responses),
            _cut(whole, some_responses),
        )
        queries = Grid.of([*roots, *branches], [(num_prompt_tokens + num_response_tokens, 1)])
        keys = Grid.of([*roots, *wholes], [(num_prompt_tokens, count + 1), (num_response_tokens, 1)])
        sees: list[Tensor | None] = [None] * len(roots)
        for rows, branch, text in zip(some_responses, branches, wholes, strict=True):
            query, key = (torch.arange(part.shape[1], device=rows.device) for part in (branch, text))
            sees.append((key <= (before[rows][:, None] + query)[..., None])[:, None])
        return cls(queries, keys, sees)


def numbered(mask: Bool[Tensor, "texts time"], first: int = 0) -> Int[Tensor, "texts width"]:
    """The masked tokens' numbers in the long row, each text's on the left, and -1 behind them."""
    lengths = mask.sum(-1, keepdim=True)
    width = max(1, int(lengths.max())) if len(lengths) else 1
    place = torch.arange(width, device=mask.device)
    starts = lengths.cumsum(0) - lengths + first
    return torch.where(place < lengths, starts + place, -1)


def _behind(
    texts: Int[Tensor, "rows text"], lengths: Int[Tensor, " rows"], more: Int[Tensor, "rows more"]
) -> Int[Tensor, "rows both"]:
    """Each row of `more` behind its text, without padding between them."""
    both = torch.full((len(texts), texts.shape[1] + more.shape[1]), -1, device=texts.device)
    both[:, : texts.shape[1]] = texts
    place = lengths[:, None] + torch.arange(more.shape[1], device=texts.device)
    return both.scatter(1, place, more)


def _alike(texts: Int[Tensor, "texts width"]) -> Sequence[Int[Tensor, " _"]]:
    """Numbers of texts, in buckets of like length."""
    order = (texts >= 0).sum(1).argsort(descending=True, stable=True)
    return order.tensor_split(BUCKETS if len(order) >= ENOUGH_ROWS else 1)


def _cut(texts: Int[Tensor, "texts width"], buckets: Sequence[Int[Tensor, " _"]]) -> list[Int[Tensor, "_ _"]]:
    """Each bucket's texts, no wider than the longest of them."""
    lengths = (texts >= 0).sum(1)
    widths = torch.stack([lengths[bucket].amax() for bucket in buckets]).clamp(min=1).tolist()
    return [texts[bucket, :width] for bucket, width in zip(buckets, widths, strict=True)]
