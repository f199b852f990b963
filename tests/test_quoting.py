"""Constrained quotes: probabilities by hand, every quote verbatim, the same numbers the same text."""

import math

import pytest
import torch

from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.quotes import sentences_of, split_quote
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy
from rlhf_lab.quoting import _drawn, constrained_probs, write_with_quotes
from rlhf_lab.shipped import load_trained


def test_what_may_not_be_written_has_no_share() -> None:
    # Of all texts the two have 0.02 and 0.06; among themselves a quarter and three.
    assert constrained_probs([[1], [2]], [[math.log(0.02)], [math.log(0.06)]]) == pytest.approx([0.25, 0.75])


def test_what_follows_is_certain_once_all_others_are_excluded() -> None:
    rare = math.log(1e-9)
    assert constrained_probs([[1, 5, 6], [2]], [[math.log(0.3), rare, rare], [math.log(0.3)]]) == pytest.approx(
        [0.5, 0.5]
    )


def test_texts_that_begin_alike_share_what_their_beginning_has() -> None:
    half, fifth, tenth = math.log(0.5), math.log(0.2), math.log(0.1)
    probs = constrained_probs([[1, 2], [1, 3], [4]], [[half, fifth], [half, tenth], [tenth]])
    # 5 : 1 at the first token, then 2 : 1.
    assert probs == pytest.approx([5 / 6 * 2 / 3, 5 / 6 / 3, 1 / 6])


def test_a_number_draws_by_the_cumulative_probability_and_none_takes_the_likeliest() -> None:
    assert [_drawn([0.2, 0.5, 0.3], uniform) for uniform in (0.1, 0.3, 0.69, 0.71, None)] == [0, 1, 1, 2, 1]


def test_every_quote_is_verbatim_whoever_writes() -> None:
    policy = load_trained("supervised", "small")
    assert isinstance(policy, Policy)
    prompts = column(load_tldr(scale="tiny").validation, "prompt")[:4]
    config = SamplingConfig(max_response_tokens=16)
    first, again = (
        write_with_quotes(policy, prompts, config, num_candidates=2, rng=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert first == again and [len(group) for group in first] == [2] * 4
    for prompt, group in zip(prompts, first, strict=True):
        assert all(split_quote(text)[1] in sentences_of(prompt) for text in group)
    with pytest.raises(ValueError, match="has no post between POST: and TL;DR: to quote from"):
        write_with_quotes(policy, ["Just a text."], config)
