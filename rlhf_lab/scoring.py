"""What a network thinks of candidates: log-probs, scores, values, the prompt being read once for all K responses.

A prompt and its K responses are packed into one row, in which a response sees the prompt and itself. So a shared prompt
costs one forward and one backward, and values and gradients are those of repeating it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_lab.data.batching import Candidates
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
    hidden = _hidden(network, candidates, shared_prompt)
    mask = candidates.response_mask
    logits = vocabulary_head(network)(hidden[mask]).float() / temperature
    logprobs = token_logprobs(logits, candidates.responses[mask])
    return torch.zeros(mask.shape, dtype=logprobs.dtype, device=logprobs.device).masked_scatter(mask, logprobs)


def candidate_scores(
    network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates"]:
    """The centred score at the last token of each response; 0 for an absent candidate.

    Args:
        network: A sequence classification model with one label.
        candidates: What is scored.
        shared_prompt: As in `candidate_logprobs`.
    """
    hidden = _hidden(network, candidates, shared_prompt, after=True)
    lengths = candidates.response_mask.sum(-1)
    last = (lengths - 1).clamp_min(0)[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
    scores = score_head(network)(hidden.gather(2, last).squeeze(2)).squeeze(-1).float()
    offset = getattr(network.config, "score_offset", 0.0)
    return torch.where(lengths > 0, scores - offset, torch.zeros_like(scores))


def candidate_values(
    network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool | None = None
) -> Float[Tensor, "batch candidates response"]:
    """The critic's value *before* each response token; 0 outside the mask.

    The reward model's offset is taken off here too, so that a critic that starts from it starts centred.
    """
    hidden = _hidden(network, candidates, shared_prompt)
    values = score_head(network)(hidden).squeeze(-1).float() - getattr(network.config, "score_offset", 0.0)
    return values * candidates.response_mask


def _hidden(
    network: PreTrainedModel, candidates: Candidates, shared_prompt: bool | None, *, after: bool = False
) -> Float[Tensor, "batch candidates response hidden"]:
    """Last hidden states: those that predict each response token, or (`after`) those that have read it."""
    packs = can_pack(network, candidates)
    if shared_prompt and not packs:
        raise ValueError(f"{type(network).__name__} cannot read a packed row; leave shared_prompt at None.")
    if shared_prompt is None:
        shared_prompt = packs and candidates.responses.shape[1] > 1
    before_first, response = (_packed if shared_prompt else _repeated)(network.base_model, candidates)
    if after:
        return response
    return torch.cat([before_first, response[:, :, :-1]], dim=2)


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


def can_pack(network: PreTrainedModel, candidates: Candidates) -> bool:
    """Whether who sees whom is up to the mask alone.

    It is not with a state that runs along the row, biases by distance in the row, or an attention that knows only
    causal masks; nor with a window that is shorter than the texts.
    """
    config = network.config
    kinds = set(getattr(config, "layer_types", None) or ())
    length = candidates.prompt.shape[1] + candidates.responses.shape[2]
    return (
        config._attn_implementation == "sdpa"
        and not getattr(network, "_is_stateful", False)
        and not getattr(config, "alibi", False)
        and kinds <= {"full_attention", "sliding_attention"}
        and length <= (getattr(config, "sliding_window", None) or length)
    )


def _repeated(backbone: nn.Module, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """One forward over prompt and response together, the prompt repeated K times."""
    batch, count, width = candidates.responses.shape
    start = candidates.prompt.shape[1]
    prompt = candidates.prompt.repeat_interleave(count, dim=0)
    mask = torch.cat(
        [candidates.prompt_mask.repeat_interleave(count, dim=0), candidates.response_mask.flatten(0, 1)], dim=1
    )
    hidden = backbone(
        input_ids=torch.cat([prompt, candidates.responses.flatten(0, 1)], dim=1),
        attention_mask=mask.long(),
        position_ids=positions_of(mask),
        use_cache=False,
    )[0].view(batch, count, start + width, -1)
    return hidden[:, :, start - 1 : start], hidden[:, :, start:]


def _packed(backbone: nn.Module, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """One forward over rows of a prompt and its K responses, in which no response sees another."""
    _, count, width = candidates.responses.shape
    start = candidates.prompt.shape[1]
    response_positions = candidates.prompt_mask.sum(-1)[:, None, None] + positions_of(candidates.response_mask)
    hidden = backbone(
        input_ids=torch.cat([candidates.prompt, candidates.responses.flatten(1)], dim=1),
        attention_mask=_who_sees_whom(candidates),
        position_ids=torch.cat([positions_of(candidates.prompt_mask), response_positions.flatten(1)], dim=1),
        use_cache=False,
    )[0]
    before_first = hidden[:, None, start - 1 : start].expand(-1, count, -1, -1)
    return before_first, hidden[:, start:].unflatten(1, (count, width))


def _who_sees_whom(candidates: Candidates) -> Bool[Tensor, "batch 1 token token"]:
    """True where a token of the packed row (down) may look at another (across)."""
    _, count, width = candidates.responses.shape
    device = candidates.prompt.device
    # 0 for the prompt, 1 to K for the responses.
    owner = torch.arange(count + 1, device=device).repeat_interleave(
        torch.tensor([candidates.prompt.shape[1]] + [width] * count, device=device)
    )
    place = torch.arange(len(owner), device=device)
    before = place[:, None] >= place
    related = (owner == 0) | (owner[:, None] == owner)
    real = torch.cat([candidates.prompt_mask, candidates.response_mask.flatten(1)], dim=1)
    # Padding looks at itself: a softmax over nothing would be NaN.
    return ((before & related & real[:, None]) | (place[:, None] == place))[:, None]
