"""Answers with verbatim quotes: a policy writes a summary, and may then only write one of the post's sentences.

A small policy copies badly, so the quote is decoded under a constraint: at each token, only what continues one of the
sentences is allowed, and the probabilities of what is left are scaled to sum to 1.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from rlhf_lab.data.batching import encode_candidates
from rlhf_lab.data.quotes import OPEN, sentences_of, split_quote, with_quote
from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.models import Policy
from rlhf_lab.scoring import candidate_logprobs

TELLING_TOKENS = 12
"""Of a sentence; two of a post that share as many first tokens are taken to be as likely."""


def write_with_quotes(
    policy: Policy,
    prompts: Sequence[str],
    sampling: SamplingConfig | None = None,
    *,
    num_candidates: int = 1,
    rng: torch.Generator | None = None,
) -> list[list[str]]:
    """K summaries of each post, each with a sentence of the post that is to support it.

    Args:
        policy: Fine-tuned on `quoting_demonstrations`.
        prompts: Queries with a post.
        sampling: How to write; its limit is of the summary and the quote's first mark.
        num_candidates: K.
        rng: Draws summaries and quotes; seed 0 by default.

    Raises:
        ValueError: num_candidates is below 1, or a prompt has no post to quote.
    """
    sampling, rng = sampling or SamplingConfig(), rng or torch.Generator().manual_seed(0)
    groups = generate(policy, prompts, sampling, num_candidates=num_candidates, rng=rng)
    asked = [prompt for prompt in prompts for _ in range(num_candidates)]
    # What it goes on to write after the mark is not constrained, and is dropped.
    summaries = [split_quote(text)[0] for group in groups for text in group]
    quotes = _quotes(policy, asked, summaries, sampling.temperature, rng)
    texts = [with_quote(*pair) for pair in zip(summaries, quotes, strict=True)]
    return [texts[start : start + num_candidates] for start in range(0, len(texts), num_candidates)]


@torch.no_grad()
def _quotes(
    policy: Policy, prompts: Sequence[str], summaries: Sequence[str], temperature: float, rng: torch.Generator
) -> list[str]:
    uniforms = torch.rand(len(prompts), generator=rng).tolist()
    quotes = []
    for start in range(0, len(prompts), 64):
        rows = range(start, min(start + 64, len(prompts)))
        options = [sentences_of(prompts[row]) for row in rows]
        if empty := [prompts[row] for row, sentences in zip(rows, options, strict=True) if not sentences]:
            raise ValueError(f"the prompt {empty[0]!r:.60} has no post between POST: and TL;DR: to quote from.")
        batch = encode_candidates(
            policy.tokenizer,
            [f"{prompts[row]} {summaries[row]} {OPEN}" for row in rows],
            options,
            max_prompt_tokens=512,
            max_response_tokens=TELLING_TOKENS,
        ).to(policy.network.device)
        logprobs = candidate_logprobs(policy.network, batch, temperature=temperature or 1.0).tolist()
        lengths = batch.response_mask.sum(-1).tolist()
        for index, (sentences, row) in enumerate(zip(options, rows, strict=True)):
            paths = list(zip(batch.responses[index].tolist(), logprobs[index], lengths[index], strict=True))
            paths = [(tokens[:length], values[:length]) for tokens, values, length in paths[: len(sentences)]]
            probs = constrained_probs([tokens for tokens, _ in paths], [values for _, values in paths])
            quotes.append(sentences[_drawn(probs, uniforms[row] if temperature else None)])
    return quotes


def _drawn(probs: Sequence[float], uniform: float | None) -> int:
    """The index at which the cumulative probability passes the number; without one, the likeliest."""
    if uniform is None:
        return max(range(len(probs)), key=probs.__getitem__)
    target, total = uniform * math.fsum(probs), 0.0
    for index, prob in enumerate(probs):
        total += prob
        if total > target:
            return index
    return len(probs) - 1


def constrained_probs(paths: Sequence[Sequence[int]], logprobs: Sequence[Sequence[float]]) -> list[float]:
    """Probability of each text if only these may be written.

        P(y) = prod_t p(y_t | y_<t) / sum_{v allowed after y_<t} p(v | y_<t)

    So where all texts but one are excluded the rest of it is certain, and its length costs nothing.

    Args:
        paths: Tokens of each text.
        logprobs: Of each token, after those before it.

    Example:
        >>> half, tenth = math.log(0.5), math.log(0.1)
        >>> probs = constrained_probs([[1, 2], [1, 3], [4]], [[half, tenth], [half, tenth], [tenth]])
        >>> [round(prob, 3) for prob in probs]  # 5 : 1 at the first token, 1 : 1 at the second
        [0.417, 0.417, 0.167]
    """
    allowed: dict[tuple[int, ...], dict[int, float]] = defaultdict(dict)
    for tokens, values in zip(paths, logprobs, strict=True):
        for place, (token, value) in enumerate(zip(tokens, values, strict=True)):
            allowed[tuple(tokens[:place])][token] = value
    totals = {before: _log_sum(list(values.values())) for before, values in allowed.items()}
    return [
        math.exp(math.fsum(value - totals[tuple(tokens[:place])] for place, value in enumerate(values)))
        for tokens, values in zip(paths, logprobs, strict=True)
    ]


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))
