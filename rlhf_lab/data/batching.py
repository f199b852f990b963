"""The only place that tokenizes, pads, truncates and masks.

Masks are True where an element counts. A padded position holds token 0, a valid id: only masks carry the truth, so a
PAD token beyond the embedding never reaches a network (Huang et al. 2024, arXiv:2403.17031, detail 3).
"""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_lab.records import require_text

_POST, _SUFFIX = "\n\nPOST: ", "\n\nTL;DR:"
_LONG_WORD = 32
"""Characters by which a token count may run ahead of itself inside a word."""

SameRows = TypeVar("SameRows", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """Tensors whose first dimension is the same rows; inherited by everything that is batched."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(vars(self).values())))

    def __getitem__(self: SameRows, rows: slice | Tensor) -> SameRows:
        """Some of the rows."""
        return dataclasses.replace(self, **{name: tensor[rows] for name, tensor in vars(self).items()})

    def to(self: SameRows, device: torch.device | str) -> SameRows:
        """The same rows on `device`."""
        return dataclasses.replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})

    def split(self: SameRows, size: int) -> Iterator[SameRows]:
        """Consecutive parts of at most `size` rows."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(frozen=True)
class TokenBatch(Rows):
    """Whole texts, padded on the right."""

    tokens: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    """True on real tokens."""
    loss_mask: Bool[Tensor, "batch time"]
    """True on tokens that are targets of the loss."""


@dataclass(frozen=True)
class Candidates(Rows):
    """Prompts and K responses to each: a rollout, a comparison (K = 2), a ranking, best-of-n."""

    prompt: Int[Tensor, "batch prompt"]
    """Padded on the left, so that every response starts at the same place."""
    prompt_mask: Bool[Tensor, "batch prompt"]
    responses: Int[Tensor, "batch candidates response"]
    """Padded on the right."""
    response_mask: Bool[Tensor, "batch candidates response"]
    """True from the first token to EOS inclusive; nowhere True for an absent candidate."""


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot tell the end of a text from padding.

    Raises:
        ValueError: No EOS, no PAD, or PAD equal to EOS (the model would never learn to stop).
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token; set tokenizer.eos_token, or responses cannot end.")
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no PAD token; load it with rlhf_lab.load_tokenizer, which adds one.")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ValueError(
            f"the tokenizer uses {tokenizer.eos_token!r} as PAD and as EOS; load it with rlhf_lab.load_tokenizer, "
            "which adds a PAD of its own, or EOS is masked out and the model never learns to stop."
        )


def completion_text(summary: str) -> str:
    """A summary as a completion: one leading space, none at the end.

    Example:
        >>> completion_text("My cat left. ")
        ' My cat left.'
    """
    return " " + summary.strip()


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[return-value]


def _all_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """As `_ids` of each, in one call: a call costs more than a text does."""
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []  # type: ignore[return-value]


def query_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, *, max_tokens: int) -> list[int]:
    """Tokens of a query, cut inside its post if need be; the suffix `TL;DR:` always survives.

    Paragraphs are dropped from the end of the post while it is too long; when one is left, as many of its characters
    are kept as fit. Huang et al. 2024, detail 2.2.

    Raises:
        ValueError: The prompt is empty, or too long and not in the TL;DR template, or its title alone is too long.
    """
    return _queries(tokenizer, [prompt], max_tokens)[0]


def _queries(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_tokens: int) -> list[list[int]]:
    whole = _all_ids(tokenizer, [require_text(prompt, "prompt") for prompt in prompts])
    return [
        ids if len(ids) <= max_tokens else _cut(tokenizer, prompt, len(ids), max_tokens)
        for prompt, ids in zip(prompts, whole, strict=True)
    ]


def _cut(tokenizer: PreTrainedTokenizerBase, prompt: str, num_tokens: int, max_tokens: int) -> list[int]:
    """Tokens of a query without the end of its post."""
    head, found, rest = prompt.partition(_POST)
    if not found or not rest.endswith(_SUFFIX):
        raise ValueError(
            f"a prompt of {num_tokens} tokens is longer than max_prompt_tokens ({max_tokens}) and is not in the TL;DR "
            f"template, so it cannot be cut safely: {prompt[:60]!r}...; shorten it or raise max_prompt_tokens."
        )
    post = rest.removesuffix(_SUFFIX)

    def tokens(kept: str) -> list[int]:
        return _ids(tokenizer, head + _POST + kept + _SUFFIX)

    while "\n" in post:
        post = post.rpartition("\n")[0]
        if len(ids := tokens(post)) <= max_tokens:
            return ids
    # Token counts grow with the number of characters, but fall where a word is completed: the bisection may stop up to
    # a long word too early, so look downwards from there.
    kept = bisect.bisect_right(range(len(post)), max_tokens, key=lambda end: len(tokens(post[:end])))
    kept = min(len(post), kept + _LONG_WORD)
    while kept > 0:
        kept -= 1
        if len(ids := tokens(post[:kept])) <= max_tokens:
            return ids
    raise ValueError(
        f"the title and template alone take more than max_prompt_tokens ({max_tokens}): {head[:60]!r}...; raise it."
    )


def _padded(rows: Sequence[Sequence[int]], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids (0 where padded) and mask, as wide as the longest row and at least 1."""
    width = max(1, *map(len, rows)) if rows else 1
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = True
    return ids, mask


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, max_prompt_tokens: int, context: str = ""
) -> tuple[Int[Tensor, "batch prompt"], Bool[Tensor, "batch prompt"]]:
    """Queries padded on the left, and their mask; `context` stands before each and is never cut."""
    check_tokenizer(tokenizer)
    before = _ids(tokenizer, context)
    return _padded([before + query for query in _queries(tokenizer, prompts, max_prompt_tokens)], left=True)


def _responses(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Tokens with EOS; a response that is cut has none, and so counts as unfinished."""
    eos: int = tokenizer.eos_token_id  # type: ignore[assignment]
    return [[*ids, eos][:max_tokens] for ids in _all_ids(tokenizer, texts)]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> TokenBatch:
    """Raw documents, each ended by EOS, every token a target."""
    check_tokenizer(tokenizer)
    tokens, mask = _padded(_responses(tokenizer, texts, max_tokens))
    return TokenBatch(tokens, mask, mask)


def encode_demonstrations(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
    *,
    max_prompt_tokens: int,
    max_response_tokens: int,
    count_prompt: bool,
) -> TokenBatch:
    """Query, completion and EOS in one row, padded on the right.

    Args:
        tokenizer: With EOS and a PAD of its own.
        prompts: Queries.
        completions: Summaries with their leading space.
        max_prompt_tokens: Longer queries are cut inside the post.
        max_response_tokens: Longer completions are cut and then have no EOS.
        count_prompt: Make the query's tokens targets too.
    """
    check_tokenizer(tokenizer)
    queries = _queries(tokenizer, prompts, max_prompt_tokens)
    answers = _responses(tokenizer, completions, max_response_tokens)
    tokens, mask = _padded([query + answer for query, answer in zip(queries, answers, strict=True)])
    loss_mask = mask.clone()
    if not count_prompt:
        for index, query in enumerate(queries):
            loss_mask[index, : len(query)] = False
    return TokenBatch(tokens, mask, loss_mask)


def encode_candidates(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    *,
    max_prompt_tokens: int,
    max_response_tokens: int,
) -> Candidates:
    """Prompts with K responses each (fewer are filled up with absent ones).

    Raises:
        ValueError: There are not as many groups as prompts, or no response at all.
    """
    count = max(map(len, responses), default=0)
    if len(responses) != len(prompts) or not count:
        raise ValueError(
            f"{len(prompts)} prompts came with {len(responses)} groups of up to {count} responses; each prompt needs a "
            f"group, and one group at least a response."
        )
    prompt, prompt_mask = encode_prompts(tokenizer, prompts, max_prompt_tokens=max_prompt_tokens)
    tokens = iter(_responses(tokenizer, [text for group in responses for text in group], max_response_tokens))
    rows = [next(tokens) if index < len(group) else [] for group in responses for index in range(count)]
    ids, mask = _padded(rows)
    return Candidates(prompt, prompt_mask, ids.view(len(prompts), count, -1), mask.view(len(prompts), count, -1))


def decode_responses(tokenizer: Any, candidates: Candidates) -> list[list[str]]:
    """The text of each response, up to EOS; empty for an absent candidate."""
    flat = candidates.responses.flatten(0, 1).tolist()
    masks = candidates.response_mask.flatten(0, 1).tolist()
    kept = [
        [token for token, counts in zip(row, mask, strict=True) if counts and token != tokenizer.eos_token_id]
        for row, mask in zip(flat, masks, strict=True)
    ]
    texts = tokenizer.batch_decode(kept, skip_special_tokens=True)
    count = candidates.responses.shape[1]
    return [texts[start : start + count] for start in range(0, len(texts), count)]
