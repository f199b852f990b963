"""How much memory a stage needs, before it starts: counted on networks without numbers, refused if it does not fit.

The networks are run once as shapes, in PyTorch's fake tensors, and what the backward would keep is added up. So it
holds for any architecture, adapter and precision, and takes seconds and no memory. A network that chooses its way by
numbers, as experts do, is counted without its activations, and a warning says so.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from rlhf_lab.attention import recomputing
from rlhf_lab.devices import available_memory
from rlhf_lab.equations.sequence import token_logprobs
from rlhf_lab.scoring import score_head, targets_at_once, vocabulary_head

BYTES_OF_MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.03, "adamw_paged": 0.0, "adamw_8bit_paged": 0.0}
"""AdamW's for each trained number, by the kind of optimizer; what is paged leaves where there is no room for it. Of
8 bits come, for each block of 256 numbers, two scales of 4 bytes."""
OVERHEAD = 0.1
"""For what libraries hold, and for the gaps between tensors, on top of what is counted."""
NOT_WORTH_A_LOOK = 1 / 64
"""A stage whose weights take less than this share of the memory is not looked at."""
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What is in memory at once, at most."""

    rows: int
    """Prompts in a micro-batch."""
    prompt_tokens: int
    response_tokens: int
    num_candidates: int = 1

    @property
    def tokens(self) -> int:
        """In a row: a prompt with its candidates."""
        return self.prompt_tokens + self.num_candidates * self.response_tokens


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes by what they hold, on each process."""

    stage: str
    parts: Mapping[str, float]
    available: float
    device: str
    advice: Mapping[str, str]
    """What makes a part smaller."""
    recomputed: Mapping[str, float]
    """The parts with activations that are computed again in the backward: layers keep their inputs only, and the
    update takes a third more time (Chen et al. 2016, arXiv:1604.06174). Where it is not needed, the parts."""

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        """In one line."""
        parts = ", ".join(f"{name} {size / _GB:.2f}" for name, size in self.parts.items())
        again = f"; {sum(self.recomputed.values()) / _GB:.2f} GB with activations computed again, as they will be"
        needs = f"{self.stage} needs about {self.total / _GB:.2f} GB ({parts}) of {self.available / _GB:.1f} GB"
        return needs + again * self.recomputes

    @property
    def recomputes(self) -> bool:
        """Whether it fits if activations are computed again, and not otherwise."""
        return self.total > self.available >= sum(self.recomputed.values())

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            ValueError: With what would make it smaller.
        """
        if self.total > self.available and not self.recomputes:
            largest = sorted(self.advice, key=lambda name: -self.parts.get(name, 0.0))
            advice = "; or ".join(dict.fromkeys(self.advice[name] for name in largest[:2]))
            raise ValueError(f"{self} on {self.device}; {advice}.")


def estimate_memory(
    stage: str,
    trained: Sequence[tuple[PreTrainedModel, str]],
    frozen: Sequence[PreTrainedModel],
    texts: Texts,
    *,
    device: torch.device,
    mixed_precision: str = "no",
    num_shards: int = 1,
    samples: bool = False,
    engine: float = 0.0,
) -> MemoryEstimate:
    """What a stage needs at its worst moment: the update of one of the networks, or sampling.

    Args:
        stage: Its name, for messages.
        trained: Networks that learn, each with the kind of its optimizer; with numbers or on the meta device.
        frozen: Networks that are only read; memory that they share with others is counted once.
        texts: The largest micro-batch.
        device: Where it will run.
        mixed_precision: Accelerate's setting.
        num_shards: Processes that share the trained weights, gradients and moments.
        samples: Whether the first of the trained networks also writes.
        engine: Memory of who writes in its place [bytes].
    """
    own = {id(network): sum(map(_size, _learning(network))) for network, _ in trained}
    count = sum(own.values())
    weights = _unique([*(network for network, _ in trained), *frozen]) - count + count / num_shards
    moments = sum(
        BYTES_OF_MOMENTS[kind] * sum(weight.numel() for weight in _learning(network)) for network, kind in trained
    )
    # Whole on each process while it is written, if they share their weights otherwise.
    gathered = count - count / num_shards
    written = _counted(_remembered, trained[0][0], texts, mixed_precision) + gathered if samples else 0.0

    def parts_by(saved: Callable[[PreTrainedModel, Texts, str], float]) -> dict[str, float]:
        updates = [
            (own[id(network)] / num_shards, _counted(saved, network, texts, mixed_precision)) for network, _ in trained
        ]
        gradients, activations = max([*updates, (0.0, written)], key=sum)
        parts = {
            "weights": weights,
            "moments": moments / num_shards,
            "gradients": gradients,
            "activations": activations,
        }
        return parts | {"overhead": OVERHEAD * sum(parts.values())} | ({"engine": engine} if engine else {})

    parts, available = parts_by(_saved), available_memory(device)
    can_recompute = all(network.supports_gradient_checkpointing for network, _ in trained)
    return MemoryEstimate(
        stage=stage,
        parts=parts,
        recomputed=parts_by(_saved_inputs) if sum(parts.values()) > available and can_recompute else parts,
        available=available,
        device=str(device),
        advice={
            "weights": "load the networks in bf16, or share them among more processes (fsdp2)",
            "moments": "train an adapter (lora), or take 8-bit moments (kind of the optimizer)",
            "gradients": "train an adapter (lora)",
            "engine": "lower cache_gb of the backend, or write with transformers",
            "activations": f"lower micro_batch_size (now {texts.rows})",
        },
    )


def check_memory(
    stage: str,
    trained: Sequence[tuple[PreTrainedModel, str]],
    frozen: Sequence[PreTrainedModel],
    texts: Texts,
    *,
    device: torch.device,
    mixed_precision: str = "no",
    num_shards: int = 1,
    samples: bool = False,
    engine: float = 0.0,
) -> bool:
    """Refuse a stage that does not fit; the arguments are those of `estimate_memory`.

    Returns:
        Whether it fits only if activations are computed again, for `Fit`; that is said in a warning, too.

    Raises:
        ValueError: With what would make it smaller.
    """
    weights = _unique([*(network for network, _ in trained), *frozen])
    if weights + engine <= NOT_WORTH_A_LOOK * available_memory(device):
        return False
    settings = {"mixed_precision": mixed_precision, "num_shards": num_shards, "samples": samples, "engine": engine}
    estimate = estimate_memory(stage, trained, frozen, texts, device=device, **settings)  # type: ignore[arg-type]
    estimate.check()
    if estimate.recomputes:
        warnings.warn(f"{estimate}.", stacklevel=3)
    return estimate.recomputes


def _learning(network: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in network.parameters() if weight.requires_grad]


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _unique(networks: Sequence[nn.Module]) -> float:
    """Bytes of all weights, each place in memory counted once."""
    places = {}
    for network in networks:
        for weight in network.parameters():
            places[weight.untyped_storage()._cdata] = _size(weight)
    return float(sum(places.values()))


def _shapes_of(network: PreTrainedModel) -> PreTrainedModel:
    """The same network without numbers; to be called, and used, in a `FakeTensorMode`."""
    twins: dict[int, object] = {}
    for weight in network.parameters():
        blank = torch.empty(weight.shape, dtype=weight.dtype)
        twins[id(weight)] = nn.Parameter(blank, requires_grad=weight.requires_grad)
    for buffer in network.buffers():
        twins[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
    twin = copy.deepcopy(network, twins)
    for part in (twin, twin.base_model):
        part.config._attn_implementation = "sdpa"  # type: ignore[union-attr, arg-type]
    return twin


def _counted(
    count: Callable[[PreTrainedModel, Texts, str], float], network: PreTrainedModel, texts: Texts, mixed_precision: str
) -> float:
    try:
        return count(network, texts, mixed_precision)
    except Exception as error:  # Whatever a network says that looks at its numbers, as experts do, and finds none.
        warnings.warn(
            f"{type(network).__name__} cannot be run as shapes ({type(error).__name__}): the estimate of memory lacks "
            f"its activations.",
            stacklevel=2,
        )
        return 0.0


def _saved_inputs(network: PreTrainedModel, texts: Texts, mixed_precision: str) -> float:
    """The same where the layers keep their inputs only: those of all, and one layer that is computed again."""
    head = _saved(network, texts, mixed_precision, recompute=True)
    layers = network.config.num_hidden_layers
    inputs = texts.rows * texts.tokens * network.config.hidden_size * network.dtype.itemsize
    return head + layers * inputs + (_saved(network, texts, mixed_precision) - head) / layers


def _saved(network: PreTrainedModel, texts: Texts, mixed_precision: str, recompute: bool = False) -> float:
    """Bytes that the backward of one micro-batch keeps, and the gradient of its largest tensor."""
    kept: dict[int, int] = {}
    with FakeTensorMode():
        twin = _shapes_of(network)
        mine = {weight.untyped_storage()._cdata for weight in twin.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage()
            if place._cdata not in mine:
                kept[place._cdata] = place.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        # Of layers that compute again these hooks see nothing.
        again = recomputing(twin.train()) if recompute else contextlib.nullcontext()
        with hooks, again, _autocast(mixed_precision):
            held = list(_forward(twin, texts))  # While they are held, no place is taken again.
        del held
    return float(sum(kept.values()) + max(kept.values(), default=0) + _sums_of_chunks(network, texts))


def _sums_of_chunks(network: PreTrainedModel, texts: Texts) -> int:
    """Where logits are made in chunks: the gradient of the vocabulary's weights so far, a chunk's, and their sum."""
    if network.get_output_embeddings() is None:
        return 0
    weight: nn.Parameter = vocabulary_head(network).weight  # type: ignore[assignment]
    is_whole = texts.rows * texts.num_candidates * texts.response_tokens <= targets_at_once(network)
    return 0 if is_whole or not weight.requires_grad else 3 * _size(weight)


def _forward(network: PreTrainedModel, texts: Texts) -> Iterator[torch.Tensor]:
    tokens = torch.zeros(texts.rows, texts.tokens, dtype=torch.long)
    hidden = network.base_model(input_ids=tokens, use_cache=False)[0]  # type: ignore[operator]
    yield hidden
    written = texts.num_candidates * texts.response_tokens
    if network.get_output_embeddings() is None:
        yield score_head(network)(hidden[:, -written:].to(score_head(network).weight.dtype)).float()
        return
    # Those of a chunk only: the others' are not there yet, or no longer.
    at_once = targets_at_once(network)
    logits = vocabulary_head(network)(hidden[:, -written - 1 : -1].flatten(0, 1)[:at_once]).float()
    yield logits
    yield token_logprobs(logits, tokens[:, -written:].flatten()[:at_once])


def _remembered(network: PreTrainedModel, texts: Texts, mixed_precision: str) -> float:
    """Bytes of keys and values while a micro-batch is written, and of the logits of its next tokens."""
    with FakeTensorMode(), torch.no_grad(), _autocast(mixed_precision):
        twin = _shapes_of(network)
        tokens = torch.zeros(texts.rows, texts.tokens, dtype=torch.long)
        cache = twin.base_model(input_ids=tokens, use_cache=True).past_key_values  # type: ignore[operator]
        memory = sum(_size(part) for layer in cache.layers for part in (layer.keys, layer.values))
    logits = texts.rows * texts.num_candidates * network.config.vocab_size * 4
    return float(memory + 3 * logits)  # Logits, probabilities and their sums.


def _autocast(mixed_precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision == "bf16")
