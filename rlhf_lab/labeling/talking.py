"""A policy as the other side of a conversation."""

from collections.abc import Callable, Sequence

import torch

from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.models import Policy
from rlhf_lab.records import Prompt

Messages = Sequence[dict[str, str]]
"""A conversation: each message has a `role`, user or assistant, and a `content`."""


def reply_with(
    policy: Policy,
    config: SamplingConfig | None = None,
    *,
    prompt_of: Callable[[Messages], str] | None = None,
    seed: int = 0,
) -> Callable[[list[dict[str, str]]], str]:
    """A function from a conversation to the policy's reply, as `lab.chat` takes it; each call draws another.

    Args:
        policy: Who replies.
        config: How it samples.
        prompt_of: The text that it reads. By default the tokenizer's chat template, where it has one; otherwise the
            query of the TL;DR task about all that the user wrote, as a summarizer knows no conversation.
        seed: Draws the replies.
    """
    answer = answer_with(policy, config, seed=seed)
    read = prompt_of or (_templated(policy) if policy.tokenizer.chat_template else query_of)

    def respond(messages: list[dict[str, str]]) -> str:
        return answer(read(messages)).strip()

    return respond


def answer_with(policy: Policy, config: SamplingConfig | None = None, *, seed: int = 0) -> Callable[[str], str]:
    """A function from a prompt to what the policy writes behind it, to the letter; each call draws another."""
    rng = torch.Generator().manual_seed(seed)

    def answer(prompt: str) -> str:
        return generate(policy, [prompt], config, rng=rng)[0][0]

    return answer


def query_of(messages: Messages) -> str:
    r"""The TL;DR query about what the user wrote; a query that they wrote themselves stays as it is.

    Example:
        >>> query_of([{"role": "user", "content": "My cat left."}])
        'SUBREDDIT: r/relationships\n\nTITLE: \n\nPOST: My cat left.\n\nTL;DR:'
    """
    said = [message["content"] for message in messages if message["role"] == "user"]
    if said[-1].rstrip().endswith("TL;DR:"):
        return said[-1].rstrip()
    return Prompt(subreddit="relationships", title="", post="\n\n".join(said)).query


def _templated(policy: Policy) -> Callable[[Messages], str]:
    def read(messages: Messages) -> str:
        chat = policy.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return str(chat)

    return read
