"""What a network thinks of texts: log-probs, scores, values, without padding, a shared prompt being read once.

All texts of a batch lie end to end in one row, and a prompt's K responses behind all prompts. So padding costs nothing,
a shared prompt costs one forward and one backward, and values and gradients are those of reading each text alone.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedModel

from rlhf_lab.attention import can_unpad, read_unpadded
from rlhf_lab.data.batching import Candidates, TokenBatch
from rlhf_lab.equations.sequence import entropy, token_logprobs
from rlhf_lab.layouts import Layout

MOST_LOGITS = 2**25
"""That are held at once, of 4 bytes each."""


def candidate_logprobs(
    network: PreTrainedModel, candidates: Candidates, *, temperature: float = 1.0, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates response"]:
    """Log pi(token | prompt, tokens before it) of each response token; 0 outside the mask.

    Logits are made for response tokens only.

    Args:
        network: A causal language model.
        candidates: What was written.
        temperature: Divides the logits, as in sampling.
        shared_prompt: Read the prompt once (True), once a response (False), or whichever is cheaper (None).
    """
    mask = candidates.response_mask

    def logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
        # In place: this is the largest tensor that there is.
        return token_logprobs(logits.div_(temperature) if temperature != 1.0 else logits, tokens)

    hidden = _hidden(network, candidates, shared_prompt)
    return _at(mask, over_vocabulary(network, hidden, candidates.responses[mask], logprobs))


def candidate_logprobs_and_entropies(
    network: PreTrainedModel, candidates: Candidates, *, temperature: float = 1.0
) -> tuple[Float[Tensor, "batch candidates response"], Float[Tensor, "batch candidates response"]]:
    """`candidate_logprobs`, and the entropy of the distribution that each token was drawn from [nats].

    In one reading, since processes that share their gradients want one forward for each backward.
    """
    mask, hidden = candidates.response_mask, _hidden(network, candidates, None)
    tokens = candidates.responses[mask]
    logprobs = over_vocabulary(network, hidden, tokens, lambda logits, at: token_logprobs(logits / temperature, at))
    entropies = over_vocabulary(network, hidden, tokens, lambda logits, _: entropy(logits / temperature))
    return _at(mask, logprobs), _at(mask, entropies)


def candidate_scores(
    network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates"]:
    """The centred score at the last token of each response; 0 for an absent candidate.

    Args:
        network: A sequence classification model with one label.
        candidates: What is scored.
        shared_prompt: As in `candidate_logprobs`.
    """
    is_there = candidates.response_mask.any(-1)
    scores = _scored(network, _hidden(network, candidates, shared_prompt, at_end=True))
    return _at(is_there, scores - getattr(network.config, "score_offset", 0.0))


def candidate_values(
    network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates response"]:
    """The critic's value *before* each response token; 0 outside the mask.

    The reward model's offset is taken off here too, so that a critic that starts from it starts centred.
    """
    values = _scored(network, _hidden(network, candidates, shared_prompt))
    return _at(candidates.response_mask, values - getattr(network.config, "score_offset", 0.0))


def response_hidden(network: PreTrainedModel, candidates: Candidates) -> Float[Tensor, "targets hidden"]:
    """The hidden states that predict the response tokens, in the order of the mask."""
    return _hidden(network, candidates, None)


def target_hidden(network: PreTrainedModel, batch: TokenBatch) -> Float[Tensor, "targets hidden"]:
    """The hidden states that predict the targets of `batch`, in their order; a text's first token is none."""
    targets = batch.loss_mask[:, 1:]
    if not can_unpad(network, batch.tokens.shape[1]):
        hidden = network.base_model(input_ids=batch.tokens, attention_mask=batch.mask.long(), use_cache=False)[0]  # type: ignore[operator]
        return hidden[:, :-1][targets]
    mask = batch.mask
    before = (_numbered(mask)[:, 1:] - 1)[targets]
    return read_unpadded(network, batch.tokens[mask], positions_of(mask)[mask], Layout.of(mask), before)


def over_vocabulary(
    network: PreTrainedModel,
    hidden: Float[Tensor, "targets hidden"],
    targets: Int[Tensor, " targets"],
    function: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, " targets"]:
    """`function(logits, targets)`, a number for each target; many logits are made in chunks, and again in the backward.

    With a vocabulary of 150,000 the logits of 8 texts of 512 tokens are 2.5 GB, and a log-softmax and two gradients
    have the same size. The price is that the function is called twice for each chunk: it must give the same both times.

    Args:
        network: A causal language model.
        hidden: The states that predict the targets.
        targets: Tokens.
        function: From (targets vocabulary) in fp32; it sees a chunk at a time.
    """
    head, size, device = vocabulary_head(network), targets_at_once(network), hidden.device.type
    if len(targets) <= size:
        return function(head(hidden).float(), targets)

    def of(hidden: Tensor, targets: Tensor) -> Tensor:
        # Of one copy of the weights for all chunks autocast would add the gradients in its own precision.
        settings = {"dtype": torch.get_autocast_dtype(device), "enabled": torch.is_autocast_enabled(device)}
        with torch.autocast(device, cache_enabled=False, **settings):
            return function(head(hidden).float(), targets)

    chunks = list(zip(hidden.split(size), targets.split(size), strict=True))
    if not torch.is_grad_enabled():
        return torch.cat([of(*chunk) for chunk in chunks])
    # Early, it stops by an exception, which would go through the function, perhaps a student's. Nothing is drawn at
    # random, so there is no state of that to keep.
    with set_checkpoint_early_stop(False):
        return torch.cat([checkpoint(of, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])


def targets_at_once(network: PreTrainedModel) -> int:
    """Targets in a chunk of `over_vocabulary`.

    As many as the hidden size has numbers are no more logits than the head has weights. If it learns, fewer would save
    nothing: the sums of the chunks' gradients of these weights are in memory too.
    """
    weight: Tensor = vocabulary_head(network).weight  # type: ignore[assignment]
    few = max(1, MOST_LOGITS // weight.shape[0])
    return max(few, weight.shape[1]) if weight.requires_grad else few


def _hidden(
    network: PreTrainedModel, candidates: Candidates, shared_prompt: bool | None, *, at_end: bool = False
) -> Float[Tensor, "wanted hidden"]:
    """Last hidden states: those that predict each response token, or those that have read each response (`at_end`)."""
    unpads = can_unpad(network, candidates.prompt.shape[1] + candidates.responses.shape[2])
    if shared_prompt and not unpads:
        raise ValueError(f"{type(network).__name__} cannot share a prompt; leave shared_prompt at None.")
    if unpads and shared_prompt is not False and candidates.responses.shape[1] > 1:
        return _read_branching(network, candidates, at_end)
    tokens, mask = _texts(candidates)
    if unpads:
        wanted = _wanted(_numbered(mask), candidates, at_end)
        return read_unpadded(network, tokens[mask], positions_of(mask)[mask], Layout.of(mask), wanted)
    hidden = network.base_model(  # type: ignore[operator]
        input_ids=tokens, attention_mask=mask.long(), position_ids=positions_of(mask), use_cache=False
    )[0].flatten(0, 1)
    return hidden[_wanted(torch.arange(len(hidden), device=hidden.device).view(mask.shape), candidates, at_end)]


def _read_branching(network: PreTrainedModel, candidates: Candidates, at_end: bool) -> Float[Tensor, "wanted hidden"]:
    """All prompts, each once, and their responses behind them."""
    prompt_mask, response_mask = candidates.prompt_mask, candidates.response_mask
    lengths, count = prompt_mask.sum(-1), response_mask.shape[1]
    positions = lengths[:, None, None] + positions_of(response_mask)
    ends = (lengths.cumsum(0) - 1).repeat_interleave(count)[:, None]
    numbers = torch.cat([ends, (lengths.sum() + _numbered(response_mask)).flatten(0, 1)], dim=1)
    return read_unpadded(
        network,
        torch.cat([candidates.prompt[prompt_mask], candidates.responses[response_mask]]),
        torch.cat([positions_of(prompt_mask)[prompt_mask], positions[response_mask]]),
        Layout.branching(prompt_mask, response_mask),
        _wanted(numbers, candidates, at_end),
    )


def _wanted(numbers: Int[Tensor, "texts time"], candidates: Candidates, at_end: bool) -> Int[Tensor, " wanted"]:
    """Of `numbers`, whose last columns are the response's, those whose hidden states are asked for."""
    mask = candidates.response_mask.flatten(0, 1)
    width = mask.shape[1]
    if not at_end:
        return numbers[:, -width - 1 : -1][mask]
    lengths = mask.sum(-1)
    last = numbers.shape[1] - width + (lengths - 1).clamp(min=0)
    return numbers.gather(1, last[:, None])[:, 0][lengths > 0]


def _texts(candidates: Candidates) -> tuple[Int[Tensor, "texts time"], Bool[Tensor, "texts time"]]:
    count = candidates.responses.shape[1]
    parts = [
        (candidates.prompt, candidates.responses),
        (candidates.prompt_mask, candidates.response_mask),
    ]
    tokens, mask = (
        torch.cat([prompt.repeat_interleave(count, dim=0), response.flatten(0, 1)], dim=1) for prompt, response in parts
    )
    return tokens, mask


def _numbered(mask: Bool[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """0, 1, 2, ... at the masked places, in their order."""
    return mask.flatten().long().cumsum(0).view(mask.shape) - 1


def _at(mask: Bool[Tensor, "*shape"], values: Float[Tensor, " counted"]) -> Float[Tensor, "*shape"]:
    """The values at the masked places, 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def vocabulary_head(network: PreTrainedModel) -> nn.Module:
    """The layer that turns hidden states into logits."""
    head = network.get_output_embeddings()
    if head is None:
        raise ValueError(f"{type(network).__name__} has no language model head; load it as a causal language model.")
    return head


def score_head(network: PreTrainedModel) -> nn.Module:
    """The layer that turns a hidden state into a score."""
    return network.score  # type: ignore[return-value]


def _scored(network: PreTrainedModel, hidden: Float[Tensor, "wanted hidden"]) -> Float[Tensor, " wanted"]:
    head = score_head(network)
    dtype: torch.dtype = head.weight.dtype  # type: ignore[assignment]
    return head(hidden.to(dtype)).squeeze(-1).float()  # An adapter's head is of fp32 on any base.


def positions_of(mask: Tensor) -> Tensor:
    """Position of each token when only masked ones count; 0 for padding on the left."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)
