"""Sampling with a KV cache: the prompt is read once, K responses are written, best-of-n picks among them.

The token at each place is chosen by inverting the cumulative distribution at one uniform number. So the same numbers
give the same text, however the rows are split over batches and processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from rlhf_lab.data.batching import Candidates, decode_responses, encode_prompts
from rlhf_lab.decoding import reader_of
from rlhf_lab.models import Policy
from rlhf_lab.scoring import vocabulary_head

WORTH_DROPPING = 0.75
"""Finished responses are taken out of the batch when fewer than this share is still being written."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How to sample; the defaults are Huang et al. 2024's (arXiv:2403.17031, details 20 and 23)."""

    max_response_tokens: int = 53
    temperature: float = 0.7
    """Divides the logits; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together have this probability."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.max_response_tokens < 1:
            raise ValueError(f"max_response_tokens must be at least 1, not {self.max_response_tokens}.")
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}.")


@dataclass(frozen=True)
class Rollout(Candidates):
    """K responses that a policy wrote to each prompt."""

    finished: Bool[Tensor, "batch candidates"]
    """True where EOS was written within the limit."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be written: K responses to each prompt, up to EOS or the limit."""

    prompt: Int[Tensor, "batch prompt"]
    """Padded on the left."""
    prompt_mask: Bool[Tensor, "batch prompt"]
    """True on real tokens."""
    uniforms: Float[Tensor, "batch candidates max_response"]
    """One number in [0, 1) for each token that may be written."""
    config: SamplingConfig
    eos_token_id: int
    """Ends a response, and belongs to it."""

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        prompts: list[str],
        uniforms: Float[Tensor, "batch candidates max_response"],
        config: SamplingConfig,
        *,
        max_prompt_tokens: int,
        device: torch.device,
    ) -> "Request":
        """For texts, of which longer ones than `max_prompt_tokens` are cut inside the post."""
        prompt, mask = encode_prompts(tokenizer, prompts, max_prompt_tokens=max_prompt_tokens)
        return cls(
            prompt=prompt.to(device),
            prompt_mask=mask.to(device),
            uniforms=uniforms.to(device),
            config=config,
            eos_token_id=tokenizer.eos_token_id,
        )


@torch.no_grad()
def sample(network: PreTrainedModel, request: Request) -> Rollout:
    """What `network`, a causal language model, answers to `request`."""
    prompt, prompt_mask, config = request.prompt, request.prompt_mask, request.config
    (batch, num_candidates), limit = request.uniforms.shape[:2], config.max_response_tokens
    uniforms = request.uniforms.flatten(0, 1)
    reader = reader_of(network, prompt, prompt_mask, num_candidates=num_candidates, limit=limit)
    hidden = reader.start()
    tokens = prompt.new_zeros(len(uniforms), limit)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    unfinished = torch.ones(len(uniforms), dtype=torch.bool, device=prompt.device)
    rows = torch.arange(len(uniforms), device=prompt.device)  # which responses the network is writing
    for step in range(limit):
        token = choose(vocabulary_head(network)(hidden).float(), uniforms[rows, step], config)
        mask[:, step] = unfinished
        tokens[rows, step] = torch.where(unfinished[rows], token, 0)
        unfinished[rows] &= token != request.eos_token_id
        going = unfinished[rows]
        num_going = int(going.sum())  # The one number that a step waits for.
        if step + 1 == limit or not num_going:
            break
        if num_going < WORTH_DROPPING * len(rows):
            rows = rows[going]
            reader.keep(going)
        hidden = reader.read(tokens[rows, step])
    shape, width = (batch, num_candidates, -1), int(mask.sum(-1).max())
    return Rollout(
        prompt=prompt,
        prompt_mask=prompt_mask,
        responses=tokens[:, :width].reshape(shape),
        response_mask=mask[:, :width].reshape(shape),
        finished=~unfinished.view(batch, num_candidates),
    )


@runtime_checkable
class Backend(Protocol):
    """Who writes for a policy while it trains; both give the same text for the same numbers, up to rounding."""

    queues: bool
    """Takes any number of prompts, and writes as many at once as fit; otherwise the caller has to know."""

    def memory(self, network: PreTrainedModel, mixed_precision: str) -> float:
        """Of its own on each process, besides `network` [bytes]."""
        ...

    def follow(self, network: PreTrainedModel) -> None:
        """Take note that `network` has changed."""
        ...

    def sample(self, network: PreTrainedModel, request: Request) -> Rollout:
        """As the function `sample`."""
        ...


class TransformersBackend:
    """The network writes itself, on the memory where it trains."""

    queues = False
    sample = staticmethod(sample)

    def memory(self, network: PreTrainedModel, mixed_precision: str) -> float:
        """None of its own; what sampling needs is counted with the network."""
        return 0.0

    def follow(self, network: PreTrainedModel) -> None:
        """Nothing to do."""


def choose(
    logits: Float[Tensor, "batch vocab"], uniforms: Float[Tensor, " batch"], config: SamplingConfig
) -> Int[Tensor, " batch"]:
    """The token at which the cumulative probability passes the uniform number.

    Example:
        >>> logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
        >>> [choose(logits, torch.tensor([u]), SamplingConfig(temperature=1.0)).item() for u in (0.1, 0.6, 0.9)]
        [0, 1, 2]
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    probs = torch.softmax(logits / config.temperature, dim=-1)
    if config.top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        ordered = ordered * (ordered.cumsum(-1) - ordered < config.top_p)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    cumulative = probs.cumsum(-1)
    # The last sum is 1 only up to rounding, so the number is stretched to it; a token without probability is never hit.
    target = uniforms[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return token.clamp_max(logits.shape[-1] - 1)


def generate(
    policy: Policy,
    prompts: Sequence[str],
    config: SamplingConfig | None = None,
    *,
    num_candidates: int = 1,
    rng: torch.Generator | None = None,
    batch_size: int = 256,
    max_prompt_tokens: int = 512,
    backend: Backend | None = None,
) -> list[list[str]]:
    """K texts for each prompt, in the order of the prompts.

    Args:
        policy: Who writes.
        prompts: Queries.
        config: How to sample.
        num_candidates: K.
        rng: Draws the texts; seed 0 by default.
        batch_size: Responses written at once.
        max_prompt_tokens: Longer prompts are cut inside the post.
        backend: Who writes in the policy's place; by default its network does.

    Raises:
        ValueError: num_candidates is below 1, or a prompt cannot be encoded.
    """
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, not {num_candidates}.")
    config = config or SamplingConfig()
    rng = rng or torch.Generator().manual_seed(0)
    settings: dict[str, Any] = {"max_prompt_tokens": max_prompt_tokens, "device": policy.network.device}
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts: list[list[str]] = [[] for _ in prompts]
    backend = backend or TransformersBackend()
    backend.follow(policy.network)
    size = len(order) if backend.queues else max(1, batch_size // num_candidates)
    for start in tqdm(range(0, len(order), max(1, size)), desc="writing", delay=2, leave=False):
        rows = order[start : start + size]
        uniforms = torch.rand(len(rows), num_candidates, config.max_response_tokens, generator=rng)
        request = Request.of(policy.tokenizer, [prompts[row] for row in rows], uniforms, config, **settings)
        rollout = backend.sample(policy.network, request)
        for row, group in zip(rows, decode_responses(policy.tokenizer, rollout), strict=True):
            texts[row] = group
    return texts


def distinct_pairs(
    policy: Policy | Sequence[Policy],
    prompts: Sequence[str],
    num_pairs: int,
    config: SamplingConfig | None = None,
    *,
    seed: int = 0,
) -> tuple[list[str], list[tuple[str, str]]]:
    """Prompts for `num_pairs` comparisons, and two samples for each that differ.

    Prompts are taken in order and again from the start when they run out; pairs of identical samples, or with an empty
    one, are left out and other samples are drawn instead. Of several policies, two are drawn for each pair.

    Raises:
        ValueError: There are no prompts or no policies, or the policy writes the same text for every sample.
    """
    policies = [policy] if isinstance(policy, Policy) else list(policy)
    if not policies:
        raise ValueError("there are no policies to compare summaries of.")
    if not prompts:
        raise ValueError("there are no prompts to compare summaries of.")
    asked: list[str] = []
    pairs: list[tuple[str, str]] = []
    for attempt in range(20):
        if not (missing := num_pairs - len(pairs)):
            break
        texts = [prompts[(len(asked) + index + attempt) % len(prompts)] for index in range(missing)]
        rng = torch.Generator().manual_seed(seed * 1000 + attempt)
        groups = _two_samples(policies, texts, config, rng)
        for prompt, (first, second) in zip(texts, groups, strict=True):
            if first != second and first.strip() and second.strip():
                asked.append(prompt)
                pairs.append((first, second))
    if len(pairs) < num_pairs:
        raise ValueError(
            f"only {len(pairs)} of {num_pairs} pairs differ: the policy repeats itself; raise the temperature."
        )
    return asked, pairs


def _two_samples(
    policies: Sequence[Policy], prompts: Sequence[str], config: SamplingConfig | None, rng: torch.Generator
) -> list[list[str]]:
    """Two texts for each prompt: of the one policy, or of two that are drawn for it."""
    if len(policies) == 1:
        return generate(policies[0], prompts, config, num_candidates=2, rng=rng)
    authors = [torch.randperm(len(policies), generator=rng)[:2].tolist() for _ in prompts]
    texts = [["", ""] for _ in prompts]
    for index, policy in enumerate(policies):
        places = [(row, two.index(index)) for row, two in enumerate(authors) if index in two]
        written = generate(policy, [prompts[row] for row, _ in places], config, rng=rng)
        for (row, side), (text,) in zip(places, written, strict=True):
            texts[row][side] = text
    return texts


def best_of_n(
    policy: Policy,
    score: Callable[[Sequence[str], Sequence[str]], Sequence[float]],
    prompts: Sequence[str],
    n: int,
    config: SamplingConfig | None = None,
    *,
    rng: torch.Generator | None = None,
    backend: Backend | None = None,
) -> list[str]:
    """The best of n texts for each prompt, by `score(prompts, responses)`.

    Reference:
        Nakano et al. 2021, arXiv:2112.09332; its KL is at most log n - (n - 1) / n.
    """
    groups = generate(policy, prompts, config, num_candidates=n, rng=rng, backend=backend)
    repeated = [prompt for prompt in prompts for _ in range(n)]
    scores = list(score(repeated, [text for group in groups for text in group]))
    best = [max(range(n), key=lambda index: scores[row * n + index]) for row in range(len(prompts))]
    return [group[index] for group, index in zip(groups, best, strict=True)]
