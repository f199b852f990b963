"""Attention over texts that lie end to end: the padding exists in the attention alone, and nowhere else.

A batch of texts of different lengths is one long row of real tokens, which every layer but the attention treats one by
one. The attention needs to know who belongs together: there the tokens are laid out as rows, padded on the right, so
that a causal mask is all that is needed, and taken back afterwards.

A prompt may have several continuations. It is then read once; each continuation sees the prompt and itself.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_unpadded"
"""Of this attention among Transformers'. Without a layout it is `sdpa` and nothing else."""
BUCKETS = 4
"""Into which rows are sorted by length, so that a long one does not make all others wide."""
ENOUGH_ROWS = 16
"""For buckets to be worth their calls."""


@dataclass(frozen=True)
class Grid:
    """Where the tokens of a long row stand when they are laid out in rows, which are padded on the right."""

    shapes: Sequence[tuple[int, int]]
    """Rows and width of each bucket."""
    source: Int[Tensor, " slots"]
    """The token in each slot, bucket after bucket; in padding any, since nobody looks at it."""
    places: Sequence[Int[Tensor, "_ _"]]
    """(tokens, copies): the slots of each token; those that stand in one row and in several come apart."""

    @classmethod
    def rows(cls, lengths: Int[Tensor, " texts"]) -> "Grid":
        """Texts that lie end to end, as rows of one bucket in their order."""
        return _Rows.sorted(torch.zeros_like(lengths), lengths, parts=1).grid(lengths)

    def spread(self, tokens: Float[Tensor, "heads tokens size"]) -> list[Float[Tensor, "_ heads _ size"]]:
        """Copies of the tokens in their places, a tensor for each bucket."""
        slots: Tensor = _Spread.apply(tokens.transpose(0, 1), self.source, *self.places)  # type: ignore[assignment]
        parts = slots.split([rows * width for rows, width in self.shapes])
        return [part.unflatten(0, shape).transpose(1, 2) for part, shape in zip(parts, self.shapes, strict=True)]

    def collect(self, buckets: Sequence[Float[Tensor, "_ _ heads size"]]) -> Float[Tensor, "tokens heads size"]:
        """The tokens again, if each stands in one row."""
        (places,) = self.places
        slots = torch.cat([bucket.flatten(0, 1) for bucket in buckets])
        return take(slots, places[:, 0])


class _Spread(torch.autograd.Function):
    """The gradient of a token is the sum over its copies; padding has none. PyTorch's own would add one by one."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, source: Tensor, *places: Tensor) -> Tensor:
        ctx.save_for_backward(*places)
        return tokens.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slots,), places = gradients, ctx.saved_tensors
        parts = [slots.index_select(0, group.flatten()).unflatten(0, group.shape) for group in places]
        summed = [part.squeeze(1) if part.shape[1] == 1 else part.sum(1) for part in parts]
        return torch.cat(summed), None, *(None for _ in places)


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
        return put(gradients[0], *ctx.saved_tensors, ctx.size), None


@runtime_checkable
class Attending(Protocol):
    """Who sees whom, for an attention that asks."""

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """From (batch heads tokens size) to (batch tokens heads size)."""
        ...


@dataclass(frozen=True)
class Layout:
    """Who sees whom in a long row: texts, each by itself, and behind them the continuations of these texts, if any."""

    texts: Grid
    continuations: Grid | None = None
    whole: Grid | None = None
    """Each continuation with its text before it, in the order of `continuations`."""
    sees: Sequence[Bool[Tensor, "_ 1 _ _"]] = ()
    """True where a token of a continuation (down) may look at one of its text or of itself (across)."""

    @classmethod
    def of(cls, mask: Bool[Tensor, "texts time"]) -> "Layout":
        """Texts in the order of `mask`."""
        lengths = mask.sum(-1)
        rows = _Rows.sorted(lengths, lengths)
        return cls(rows.grid(lengths))

    @classmethod
    def branching(
        cls, prompt_mask: Bool[Tensor, "batch prompt"], response_mask: Bool[Tensor, "batch candidates response"]
    ) -> "Layout":
        """All prompts, then all responses, in the order of the masks."""
        count, lengths = response_mask.shape[1], response_mask.sum(-1).flatten()
        prompt_lengths = prompt_mask.sum(-1)
        texts = _Rows.sorted(prompt_lengths, prompt_lengths).grid(prompt_lengths)
        if not bool(lengths.any()):
            return cls(texts)
        first, num_prompt_tokens = _starts(prompt_lengths), int(prompt_lengths.sum())
        before = prompt_lengths.repeat_interleave(count)
        own, whole = _Rows.sorted(lengths, lengths), _Rows.sorted(lengths, before + lengths)

        def token(row: Tensor, place: Tensor) -> Tensor:
            in_prompt = first.repeat_interleave(count)[row] + place
            return torch.where(
                place < before[row], in_prompt, num_prompt_tokens + _starts(lengths)[row] + place - before[row]
            )

        starts = whole.starts.view(-1, count)
        places = (
            starts.repeat_interleave(prompt_lengths, dim=0) + _counted(prompt_lengths)[:, None],
            ((whole.starts + before).repeat_interleave(lengths) + _counted(lengths))[:, None],
        )
        keys = Grid(whole.shapes, whole.source(before + lengths, token), places)
        sees = []
        for rows, (_, width), (_, wide) in zip(whole.rows, own.shapes, whole.shapes, strict=True):
            last = before[rows][:, None] + torch.arange(width, device=rows.device)
            sees.append((torch.arange(wide, device=rows.device) <= last[..., None])[:, None])
        return cls(texts, own.grid(lengths), keys, sees)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Float[Tensor, "1 tokens heads size"]:
        """Attention of every token over those that it sees.

        Args:
            module: The attention's layer.
            query: (1 heads tokens size), as are key and value, whose heads may be fewer.
            scaling: Of the products; by default 1/sqrt(size).
        """
        split = int(self.texts.places[0].shape[0])
        tokens = (query[0], key[0], value[0])
        rows = zip(*(self.texts.spread(part[:, :split]) for part in tokens), strict=True)
        output = self.texts.collect(
            [sdpa_attention_forward(module, *parts, None, scaling=scaling, is_causal=True)[0] for parts in rows]
        )
        if self.continuations is not None and self.whole is not None:
            queries = self.continuations.spread(query[0, :, split:])
            rows = zip(queries, *(self.whole.spread(part) for part in tokens[1:]), self.sees, strict=True)
            seen = [sdpa_attention_forward(module, *parts, scaling=scaling)[0] for parts in rows]
            output = torch.cat([output, self.continuations.collect(seen)])
        return output[None]


@dataclass(frozen=True)
class _Rows:
    """Texts as rows, in buckets."""

    rows: Sequence[Int[Tensor, " _"]]
    """Numbers of the texts in each bucket."""
    shapes: Sequence[tuple[int, int]]
    starts: Int[Tensor, " texts"]
    """Slot of each text's first token."""

    @classmethod
    def sorted(cls, key: Int[Tensor, " texts"], lengths: Int[Tensor, " texts"], parts: int = BUCKETS) -> "_Rows":
        """Buckets of texts with a similar `key`, each as wide as its longest text."""
        order = key.argsort(descending=True, stable=True)
        rows = order.tensor_split(parts if len(key) >= ENOUGH_ROWS else 1)
        widths = torch.stack([lengths[part].amax() for part in rows]).clamp(min=1).tolist()
        starts, offset = torch.empty_like(lengths), 0
        for part, width in zip(rows, widths, strict=True):
            starts[part] = offset + torch.arange(len(part), device=key.device) * width
            offset += len(part) * width
        return cls(rows, [(len(part), width) for part, width in zip(rows, widths, strict=True)], starts)

    def source(self, lengths: Int[Tensor, " texts"], token: Any) -> Int[Tensor, " slots"]:
        """The token in each slot, `token(row, place)` in those that are filled."""
        filled = []
        for part, (_, width) in zip(self.rows, self.shapes, strict=True):
            place = torch.arange(width, device=part.device).expand(len(part), -1)
            filled.append(torch.where(place < lengths[part][:, None], token(part[:, None], place), 0).flatten())
        return torch.cat(filled)

    def grid(self, lengths: Int[Tensor, " texts"]) -> Grid:
        """Of texts that lie end to end in the order of their numbers."""
        first = _starts(lengths)
        places = self.starts.repeat_interleave(lengths) + _counted(lengths)
        return Grid(self.shapes, self.source(lengths, lambda row, place: first[row] + place), [places[:, None]])


def _starts(lengths: Int[Tensor, " texts"]) -> Int[Tensor, " texts"]:
    return lengths.cumsum(0) - lengths


def _counted(lengths: Int[Tensor, " texts"]) -> Int[Tensor, " tokens"]:
    """0, 1, 2, ... in each text."""
    total = torch.arange(int(lengths.sum()), device=lengths.device)
    return total - _starts(lengths).repeat_interleave(lengths)


def unpadded_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Attending | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """`sdpa_attention_forward` of Transformers; with a layout, over texts that lie end to end.

    Args:
        query: (1 heads tokens size), as are key and value, whose heads may be fewer.
        attention_mask: Not read if there is a layout.
        layout: Who sees whom.
    """
    if layout is None:
        if attention_mask is not None and attention_mask.shape[-1] < key.shape[-2]:
            raise RuntimeError(
                f"{type(module).__name__} was not handed the layout of its texts; load it with eager attention."
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    return layout.attend(module, query, key, value, scaling), None


AttentionInterface.register(NAME, unpadded_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def can_unpad(network: PreTrainedModel, longest: int) -> bool:
    """Whether who sees whom is up to the attention alone, and the attention to us.

    It is not with a state that runs along the row, biases by distance in the row, or another attention than `sdpa`; nor
    with a window that is shorter than the longest text.
    """
    config = network.config
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        config._attn_implementation in ("sdpa", NAME)
        and bool(getattr(network, "_supports_attention_backend", False))
        and not getattr(network, "_is_stateful", False)
        and not getattr(config, "alibi", False)
        and kinds <= {"full_attention", "sliding_attention"}
        and longest <= (getattr(config, "sliding_window", None) or longest)
    )


def read_unpadded(
    network: PreTrainedModel,
    tokens: Int[Tensor, " tokens"],
    positions: Int[Tensor, " tokens"],
    layout: Layout,
    wanted: Int[Tensor, " wanted"],
    *,
    cache: Cache | None = None,
) -> Float[Tensor, "wanted hidden"]:
    """Last hidden states of the wanted tokens of a long row.

    Args:
        network: One that `can_unpad`; from now on it has this attention, which changes nothing else.
        tokens: Ids.
        positions: Of each token in its text.
        layout: Who sees whom.
        wanted: Tokens, by their numbers in the long row; one may come several times.
        cache: Where to keep keys and values, end to end as the tokens.
    """
    if network.config._attn_implementation != NAME:
        network.config._attn_implementation = NAME
    once, again = wanted.unique(return_inverse=True)
    # A mask of four dimensions keeps Transformers from making one; the layout says all.
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=tokens.device)
    with _last_feed_forward_at(network, once, len(tokens)):
        hidden = network.base_model(  # type: ignore[operator]
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_mask=no_mask,
            layout=layout,
            past_key_values=cache,
            use_cache=cache is not None,
        )[0][0]
    chosen = take(hidden, once)
    return chosen if len(once) == len(wanted) and bool((again.diff() > 0).all()) else chosen[again]


@contextlib.contextmanager
def _last_feed_forward_at(network: PreTrainedModel, wanted: Int[Tensor, " wanted"], size: int) -> Iterator[None]:
    """Within, the last layer's feed-forward is computed for the wanted tokens only: nobody sees the others after it."""
    block = _last_feed_forward(network)
    # Recomputed in the backward, it would not be within.
    if block is None or network.is_gradient_checkpointing:
        yield
        return
    before = block.register_forward_pre_hook(lambda _, inputs: (take(inputs[0][0], wanted)[None],))
    after = block.register_forward_hook(lambda _, inputs, output: put(output[0], wanted, size)[None])
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _last_feed_forward(network: PreTrainedModel) -> nn.Module | None:
    """None where it is not found, or is a mixture of experts, which also counts its tokens."""
    config = network.config
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    for module in network.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return getattr(module[-1], "mlp", None)
    return None
