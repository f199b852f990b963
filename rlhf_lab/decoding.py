"""Reading what is being written, one token at a time, without reading anything twice.

A reader remembers keys and values. `SharedReader` keeps those of a prompt once for all that continue it, so that the K
responses of a prompt read its memory together; `PaddedReader` serves every other network, by Transformers' own cache.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlhf_lab.attention import can_unpad, read_unpadded
from rlhf_lab.layouts import Grid, Layout, numbered
from rlhf_lab.scoring import positions_of


@runtime_checkable
class Reader(Protocol):
    """A network that reads K continuations of each prompt."""

    def start(self) -> Float[Tensor, "rows hidden"]:
        """What the network thinks at the end of the prompts, for each of their continuations."""
        ...

    def read(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows hidden"]:
        """What it thinks after one more token of each."""
        ...

    def keep(self, going: Bool[Tensor, " rows"]) -> None:
        """Go on with some only."""
        ...


def reader_of(
    network: PreTrainedModel,
    prompt: Int[Tensor, "batch prompt"],
    prompt_mask: Bool[Tensor, "batch prompt"],
    *,
    num_candidates: int,
    limit: int,
) -> Reader:
    """The faster reader that `network` allows.

    Args:
        network: A causal language model.
        prompt: Padded on the left.
        prompt_mask: True on real tokens.
        num_candidates: K.
        limit: Tokens that may be read after a prompt.
    """
    kind = SharedReader if can_unpad(network, prompt.shape[1] + limit) else PaddedReader
    return kind(network, prompt, prompt_mask, num_candidates, limit)


@dataclass
class _Asked:
    """What a reader begins with; see `reader_of`."""

    network: PreTrainedModel
    prompt: Int[Tensor, "batch prompt"]
    prompt_mask: Bool[Tensor, "batch prompt"]
    num_candidates: int
    limit: int


class SharedReader(_Asked):
    """For networks whose attention is ours."""

    def start(self) -> Float[Tensor, "rows hidden"]:
        """Read the prompts, without their padding."""
        mask, lengths, cache = self.prompt_mask, self.prompt_mask.sum(-1), DynamicCache()
        hidden = read_unpadded(
            self.network,
            self.prompt[mask],
            positions_of(mask)[mask],
            Layout.of(mask),
            lengths.cumsum(0) - 1,
            cache=cache,
        )
        self._shared = SharedPrompts(cache, mask, self.num_candidates)
        rows = len(mask) * self.num_candidates
        self._own = Cache(layers=[_Own(layer, rows, self.limit) for layer in cache.layers])  # type: ignore[arg-type]
        self._position = lengths.repeat_interleave(self.num_candidates)[:, None]
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=mask.device)
        return hidden.repeat_interleave(self.num_candidates, dim=0)

    def read(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows hidden"]:
        """One more token of each."""
        position, self._position = self._position, self._position + 1
        return self.network.base_model(  # type: ignore[operator]
            input_ids=tokens[:, None],
            position_ids=position,
            attention_mask=self._no_mask,
            past_key_values=self._own,
            use_cache=True,
            layout=self._shared,
        )[0][:, -1]

    def keep(self, going: Bool[Tensor, " rows"]) -> None:
        """Forget the others."""
        self._position = self._position[going]
        self._own.batch_select_indices(going.nonzero().squeeze(-1))
        self._shared.keep(going)


class SharedPrompts:
    """Keys and values of prompts, and who continues which."""

    def __init__(self, cache: DynamicCache, mask: Bool[Tensor, "batch prompt"], num_candidates: int) -> None:
        """From the cache of a reading of the prompts without padding."""
        prompts, self._count = numbered(mask), num_candidates
        grid = Grid.of([prompts], [(int(mask.sum()), 1)])
        self._memory: list[tuple[Tensor, Tensor]] = []
        for layer in cache.layers:
            assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
            ((keys,), (values,)) = (grid.spread(part[0]) for part in (layer.keys, layer.values))
            self._memory.append((keys, values))
        self._is_padding = (prompts < 0)[:, None, None]
        self._slots = torch.arange(len(mask) * num_candidates, device=mask.device)

    def keep(self, going: Bool[Tensor, " rows"]) -> None:
        """Go on with some continuations; a prompt that nobody continues is forgotten."""
        prompt = self._slots[going] // self._count
        kept, number, counts = prompt.unique(return_inverse=True, return_counts=True)
        # Continuations of a prompt stand together, so that each has as many before it as there are since the first.
        candidate = torch.arange(len(number), device=number.device) - (counts.cumsum(0) - counts)[number]
        self._count = int(counts.max())
        self._slots = number * self._count + candidate
        if len(kept) < len(self._is_padding):
            self._memory = [(keys[kept], values[kept]) for keys, values in self._memory]
            self._is_padding = self._is_padding[kept]

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Float[Tensor, "rows 1 heads size"]:
        """Attention of one token of each continuation over its prompt and over itself.

        Args:
            module: The attention's layer, which has a `layer_idx`.
            query: (rows heads 1 size).
            key: (rows key_heads time size) of the continuations, as is `value`.
            scaling: Of the products; by default 1/sqrt(size).
        """
        keys, values = self._memory[module.layer_idx]  # type: ignore[index]
        rows, heads, _, size = query.shape
        # Heads that share their keys are alike to candidates that share their prompt.
        query = query.view(rows, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)
        on_prompt = self._grouped(query) @ keys.transpose(-1, -2)
        on_own = self._grouped(query @ key.transpose(-1, -2))
        scores = torch.cat([on_prompt.masked_fill_(self._is_padding, -torch.inf), on_own], dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        of_prompt, of_own = weights.split([keys.shape[-2], key.shape[-2]], dim=-1)
        seen = self._ungrouped(of_prompt @ values) + self._ungrouped(of_own) @ value
        return seen.reshape(rows, 1, heads, size)

    def _grouped(self, tensor: Float[Tensor, "rows heads group size"]) -> Float[Tensor, "batch heads many size"]:
        """All continuations of a prompt together; where a prompt has fewer than others, zeros."""
        slots = len(self._is_padding) * self._count
        if len(self._slots) < slots:
            tensor = tensor.new_zeros(slots, *tensor.shape[1:]).index_copy(0, self._slots, tensor)
        return tensor.unflatten(0, (-1, self._count)).transpose(1, 2).flatten(2, 3)

    def _ungrouped(self, tensor: Float[Tensor, "batch heads many size"]) -> Float[Tensor, "rows heads group size"]:
        tensor = tensor.unflatten(2, (self._count, -1)).transpose(1, 2).flatten(0, 1)
        return tensor if len(self._slots) == len(tensor) else tensor.index_select(0, self._slots)


class _Own(DynamicLayer):
    """A cache layer with memory for all that may come: a new token costs no copy of the old ones."""

    def __init__(self, like: Any, rows: int, limit: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True
        _, heads, _, size = like.keys.shape
        self._memory = [like.keys.new_empty(rows, heads, limit, size) for _ in range(2)]
        self._show(0)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (part[:, :, :length] for part in self._memory)
        self.keys, self.values = keys, values
        return keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write behind what is there."""
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        for part, states in zip(self._memory, (key_states, value_states), strict=True):
            part[:, :, start:stop] = states
        return self._show(stop)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        length = self.get_seq_length()
        self._memory = [part[indices] for part in self._memory]
        self._show(length)


class PaddedReader(_Asked):
    """For any network, with a mask over the padding; the prompt's memory is repeated for each continuation."""

    def start(self) -> Float[Tensor, "rows hidden"]:
        """Read the prompts."""
        self._seen, self._cache = self.prompt_mask, DynamicCache(config=self.network.config)
        hidden = self._forward(self.prompt, positions_of(self._seen))
        self._cache.batch_repeat_interleave(self.num_candidates)
        self._seen = self._seen.repeat_interleave(self.num_candidates, dim=0)
        return hidden.repeat_interleave(self.num_candidates, dim=0)

    def read(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows hidden"]:
        """One more token of each."""
        position = self._seen.sum(-1, keepdim=True)
        self._seen = nn.functional.pad(self._seen, (0, 1), value=True)
        return self._forward(tokens[:, None], position)

    def keep(self, going: Bool[Tensor, " rows"]) -> None:
        """Forget the others."""
        self._seen = self._seen[going]
        self._cache.batch_select_indices(going.nonzero().squeeze(-1))

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.network.base_model(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=self._seen.long(),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )[0][:, -1]
