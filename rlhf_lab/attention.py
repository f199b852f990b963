"""Attention over texts that lie end to end: the padding exists in the attention alone, and nowhere else.

A batch of texts of different lengths is one long row of real tokens, which every layer but the attention treats one by
one. The attention needs to know who belongs together: there the tokens are laid out as rows, padded on the right, so
that a causal mask is all that is needed, and taken back afterwards.

A prompt may have several continuations. It is then read once; each continuation sees the prompt and itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_unpadded"
"""Of this attention among Transformers'. Without a layout it is `sdpa` and nothing else."""


@dataclass(frozen=True)
class Grid:
    """Where the tokens of a long row stand when each text is a row, padded on the right."""

    shape: tuple[int, ...]
    places: Int[Tensor, " tokens"]
    """Of each token in the flattened rows."""

    @classmethod
    def of(cls, mask: Bool[Tensor, "*batch time"]) -> "Grid":
        """The grid whose rows hold the masked tokens of `mask`, moved to the left."""
        lengths = mask.sum(-1)
        width = max(1, int(lengths.max())) if lengths.numel() else 1
        starts = torch.arange(lengths.numel(), device=mask.device).view(lengths.shape) * width
        places = starts[..., None] + mask.long().cumsum(-1) - 1
        return cls((*lengths.shape, width), places[mask])

    def spread(self, tokens: Float[Tensor, "1 heads tokens size"]) -> Float[Tensor, "*rows heads width size"]:
        """The tokens in their places, zeros elsewhere."""
        rows: Tensor = _Spread.apply(tokens[0].transpose(0, 1), self.places, torch.Size(self.shape).numel())  # type: ignore[assignment]
        return rows.unflatten(0, self.shape).transpose(-2, -3)

    def collect(self, rows: Float[Tensor, "*rows width heads size"]) -> Float[Tensor, "tokens heads size"]:
        """The tokens again."""
        return _Collect.apply(rows.flatten(0, len(self.shape) - 1), self.places)  # type: ignore[return-value]


class _Spread(torch.autograd.Function):
    """`places` has no number twice, so that the gradient is a mere copy; PyTorch's own would add, one by one."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return tokens.new_zeros(size, *tokens.shape[1:]).index_copy_(0, places, tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = rows.shape[0]
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.size, *gradients[0].shape[1:]).index_copy_(0, places, gradients[0]), None


@dataclass(frozen=True)
class Layout:
    """Who sees whom in a long row: texts, each by itself, and behind them the continuations of these texts, if any."""

    texts: Grid
    continuations: Grid | None = None
    sees: Bool[Tensor, "continuations 1 response prompt_and_response"] | None = None
    """True where a token of a continuation (down) may look at one of its prompt or of itself (across)."""

    @classmethod
    def branching(
        cls, prompt_mask: Bool[Tensor, "batch prompt"], response_mask: Bool[Tensor, "batch candidates response"]
    ) -> "Layout":
        """All prompts, then all responses, in the order of the masks."""
        prompts, responses = Grid.of(prompt_mask), Grid.of(response_mask)
        device, (_, count, width) = prompt_mask.device, responses.shape
        is_prompt = torch.arange(prompts.shape[1], device=device) < prompt_mask.sum(-1, keepdim=True)
        in_prompt = is_prompt.repeat_interleave(count, dim=0)[:, None, None].expand(-1, -1, width, -1)
        in_response = torch.ones(width, width, dtype=torch.bool, device=device).tril().expand(len(in_prompt), 1, -1, -1)
        return cls(prompts, responses, torch.cat([in_prompt, in_response], dim=-1))


def unpadded_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Layout | None = None,
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
    tokens, split = (query, key, value), len(layout.texts.places)
    queries, keys, values = (layout.texts.spread(part[:, :, :split]) for part in tokens)
    seen = sdpa_attention_forward(module, queries, keys, values, None, scaling=scaling, is_causal=True)[0]
    output = layout.texts.collect(seen)
    if layout.continuations is not None:
        branches = layout.continuations
        count = branches.shape[1]
        more_queries, *more = (branches.spread(part[:, :, split:]).flatten(0, 1) for part in tokens)
        keys, values = (
            torch.cat([shared.repeat_interleave(count, dim=0), own], dim=-2)
            for shared, own in zip((keys, values), more, strict=True)
        )
        seen = sdpa_attention_forward(module, more_queries, keys, values, layout.sees, scaling=scaling)[0]
        output = torch.cat([output, branches.collect(seen.unflatten(0, branches.shape[:2]))])
    return output[None], None


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
    network: PreTrainedModel, tokens: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"], layout: Layout
) -> Float[Tensor, "tokens hidden"]:
    """Last hidden state of each token of a long row.

    Args:
        network: One that `can_unpad`; from now on it has this attention, which changes nothing else.
        tokens: Ids.
        positions: Of each token in its text.
        layout: Who sees whom.
    """
    if network.config._attn_implementation != NAME:
        network.config._attn_implementation = NAME
    # A mask of four dimensions keeps Transformers from making one; the layout says all.
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=tokens.device)
    return network.base_model(  # type: ignore[operator]
        input_ids=tokens[None], position_ids=positions[None], attention_mask=no_mask, layout=layout, use_cache=False
    )[0][0]
