"""Attention over texts that lie end to end: the padding exists in the attention alone, and nowhere else.

Every layer but the attention treats tokens one by one. The attention asks a layout who sees whom.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf_lab.layouts import Layout, put, take

NAME = "sdpa_unpadded"
"""Of this attention among Transformers'. Without a layout it is `sdpa` and nothing else."""
_MORE = ("softcap", "s_aux", "position_bias")
"""What some networks ask of their attention on top of products and a mask, and ours does not do."""


@runtime_checkable
class Attending(Protocol):
    """Who sees whom, for an attention that asks."""

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """From (batch heads tokens size) to (batch tokens heads size)."""
        ...


def unpadded_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Layout | Attending | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """`sdpa_attention_forward` of Transformers; with a layout, over texts that lie end to end.

    Args:
        query: (1 heads tokens size), as are key and value, whose heads may be fewer.
        attention_mask: Not read if there is a layout.
        layout: Who sees whom.

    Raises:
        ValueError: The network asks for more than products and a mask.
        RuntimeError: It did not hand its layout on.
    """
    if layout is None:
        if attention_mask is not None and attention_mask.shape[-1] < key.shape[-2]:
            raise RuntimeError(
                f"{type(module).__name__} was not handed the layout of its texts; load it with eager attention."
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    if asked := [name for name in _MORE if settings.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} asks for {asked[0]} in its attention; load it with eager attention.")
    if isinstance(layout, Layout):
        return _attend(layout, module, query, key, value, scaling), None
    return layout.attend(module, query, key, value, scaling), None


def _attend(
    layout: Layout, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Float[Tensor, "1 tokens heads size"]:
    keys, values = layout.keys.spread(key[0]), layout.keys.spread(value[0])
    rows = zip(layout.queries.spread(query[0]), keys, values, layout.sees, strict=True)
    seen = [sdpa_attention_forward(module, *parts, scaling=scaling, is_causal=parts[-1] is None)[0] for parts in rows]
    return layout.queries.collect(seen)[None]


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
    if block is None or _recomputes(network):
        yield
        return
    before = block.register_forward_pre_hook(lambda _, inputs: (take(inputs[0][0], wanted)[None],))
    after = block.register_forward_hook(lambda _, inputs, output: put(output[0], wanted, size)[None])
    try:
        yield
    finally:
        before.remove()
        after.remove()


@contextlib.contextmanager
def recomputing(network: PreTrainedModel) -> Iterator[None]:
    """Within, layers keep their inputs only, and compute the rest again in the backward.

    Reference:
        Chen et al. 2016, arXiv:1604.06174.
    """
    # Before Transformers 5.20 it had the other name.
    kind = "activation" if hasattr(network, "activation_checkpointing_enable") else "gradient"
    # PyTorch's newer way, in which an input that needs no gradient, as that of a frozen base, is none.
    getattr(network, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(network, f"{kind}_checkpointing_disable")()
        network.disable_input_require_grads()  # Each time that it is enabled adds a hook to the embeddings.


def _recomputes(network: PreTrainedModel) -> bool:
    """Whether activations are made anew in the backward, in Transformers' way or in that of FSDP."""
    marks = ("gradient_checkpointing", "_checkpoint_wrapped_module")
    return any(getattr(module, mark, False) for module in network.modules() for mark in marks)


def _last_feed_forward(network: PreTrainedModel) -> nn.Module | None:
    """None where it is not found, or is a mixture of experts, which also counts its tokens."""
    config = network.config
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    for module in network.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return getattr(module[-1], "mlp", None)
    return None
