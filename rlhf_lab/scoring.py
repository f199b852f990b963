"""What a network thinks of texts: log-probs, scores, values, without padding, a shared prompt being read once.

All texts of a batch lie end to end in one row, and a prompt's K responses behind all prompts. So padding costs nothing,
a shared prompt costs one forward and one backward, and values and gradients are those of reading each text alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_lab.attention import Grid, Layout, can_unpad, read_unpadded
from rlhf_lab.data.batching import Candidates, TokenBatch
from rlhf_lab.equations.sequence import token_logprobs


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
    reading, mask = _read(network, candidates, shared_prompt), candidates.response_mask
    logits = vocabulary_head(network)(reading.hidden[reading.before]).float() / temperature
    return _at(mask, token_logprobs(logits, candidates.responses[mask]))


def candidate_scores(
    network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates"]:
    """The centred score at the last token of each response; 0 for an absent candidate.

    Args:
        network: A sequence classification model with one label.
        candidates: What is scored.
        shared_prompt: As in `candidate_logprobs`.
    """
    reading, lengths = _read(network, candidates, shared_prompt), candidates.response_mask.sum(-1)
    is_there = lengths > 0
    last = lengths[is_there].cumsum(0) - 1
    scores = score_head(network)(reading.hidden[reading.after[last]]).squeeze(-1).float()
    return _at(is_there, scores - getattr(network.config, "score_offset", 0.0))


def candidate_values(
    network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates response"]:
    """The critic's value *before* each response token; 0 outside the mask.

    The reward model's offset is taken off here too, so that a critic that starts from it starts centred.
    """
    reading = _read(network, candidates, shared_prompt)
    values = score_head(network)(reading.hidden[reading.before]).squeeze(-1).float()
    return _at(candidates.response_mask, values - getattr(network.config, "score_offset", 0.0))


def target_hidden(network: PreTrainedModel, batch: TokenBatch) -> Float[Tensor, "targets hidden"]:
    """The hidden states that predict the targets of `batch`, in their order; a text's first token is none."""
    targets = batch.loss_mask[:, 1:]
    if not can_unpad(network, batch.tokens.shape[1]):
        hidden = network.base_model(input_ids=batch.tokens, attention_mask=batch.mask.long(), use_cache=False)[0]  # type: ignore[operator]
        return hidden[:, :-1][targets]
    mask = batch.mask
    hidden = read_unpadded(network, batch.tokens[mask], positions_of(mask)[mask], Layout(Grid.of(mask)))
    return hidden[(_numbered(mask)[:, 1:] - 1)[targets]]


@dataclass(frozen=True)
class _Reading:
    """Last hidden states, and which of them belong to each response token, in the order of the response mask."""

    hidden: Float[Tensor, "vectors hidden"]
    before: Int[Tensor, " tokens"]
    """Predicts the token."""
    after: Int[Tensor, " tokens"]
    """Has read it."""


def _read(network: PreTrainedModel, candidates: Candidates, shared_prompt: bool | None) -> _Reading:
    longest = candidates.prompt.shape[1] + candidates.responses.shape[2]
    unpads = can_unpad(network, longest)
    if shared_prompt and not unpads:
        raise ValueError(f"{type(network).__name__} cannot share a prompt; leave shared_prompt at None.")
    if not unpads:
        return _read_padded(network.base_model, candidates)
    if candidates.responses.shape[1] > 1 and shared_prompt is not False:
        return _read_branching(network, candidates)
    return _read_each(network, candidates)


def _read_branching(network: PreTrainedModel, candidates: Candidates) -> _Reading:
    """Each prompt once, its responses behind it."""
    prompt_mask, response_mask = candidates.prompt_mask, candidates.response_mask
    lengths = prompt_mask.sum(-1)
    positions = lengths[:, None, None] + positions_of(response_mask)
    hidden = read_unpadded(
        network,
        torch.cat([candidates.prompt[prompt_mask], candidates.responses[response_mask]]),
        torch.cat([positions_of(prompt_mask)[prompt_mask], positions[response_mask]]),
        Layout.branching(prompt_mask, response_mask),
    )
    after = int(lengths.sum()) + _numbered(response_mask)
    ends = (lengths.cumsum(0) - 1)[:, None, None].expand(-1, after.shape[1], 1)
    before = torch.cat([ends, after[:, :, :-1]], dim=-1)
    return _Reading(hidden, before[response_mask], after[response_mask])


def _read_each(network: PreTrainedModel, candidates: Candidates) -> _Reading:
    """Prompt and response as one text, the prompt repeated for each response."""
    tokens, mask = _texts(candidates)
    hidden = read_unpadded(network, tokens[mask], positions_of(mask)[mask], Layout(Grid.of(mask)))
    after = _numbered(mask)[:, candidates.prompt.shape[1] :][candidates.response_mask.flatten(0, 1)]
    return _Reading(hidden, after - 1, after)


def _read_padded(backbone: nn.Module, candidates: Candidates) -> _Reading:
    """As `_read_each`, for a network that knows its own attention only."""
    tokens, mask = _texts(candidates)
    hidden = backbone(input_ids=tokens, attention_mask=mask.long(), position_ids=positions_of(mask), use_cache=False)[
        0
    ].flatten(0, 1)
    number = torch.arange(len(hidden), device=hidden.device).view(mask.shape)
    after = number[:, candidates.prompt.shape[1] :][candidates.response_mask.flatten(0, 1)]
    return _Reading(hidden, after - 1, after)


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


def positions_of(mask: Tensor) -> Tensor:
    """Position of each token when only masked ones count; 0 for padding on the left."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)
