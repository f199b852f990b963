"""Text to padded tensors and back: what is cut, where padding stands, what counts."""

from collections.abc import Sequence
from dataclasses import fields, replace

import hypothesis
import pytest
import torch
from hypothesis import strategies
from transformers import PreTrainedTokenizerBase

from rlhf_lab.data.batching import (
    Candidates,
    TokenBatch,
    check_tokenizer,
    completion_text,
    decode_responses,
    encode_candidates,
    encode_demonstrations,
    encode_prompts,
    encode_texts,
    query_tokens,
)
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.records import QUERY_TEMPLATE

BYTES = train_tokenizer(["x"], 0)
"""One token a character, so that lengths can be counted by hand."""
MERGED = train_tokenizer([QUERY_TEMPLATE, "the cat and the dog that they all left there\n\nwith another one"] * 3, 400)
"""Several characters a token."""
EOS = BYTES.eos_token_id
LONG = "the cat and the dog that they all left there with another one " * 3


def query(post: str) -> str:
    return QUERY_TEMPLATE.format(subreddit="pets", title="Cat", post=post)


FRAME = len(query(""))
"""Characters, and so byte tokens, of a query without its post."""


def cut(post: str, post_tokens: int) -> str:
    """What is left of a post when the query may have this many tokens more than its frame."""
    text = BYTES.decode(query_tokens(BYTES, query(post), max_tokens=FRAME + post_tokens))
    start, end = query("@").split("@")
    assert text.startswith(start) and text.endswith(end)
    return text.removeprefix(start).removesuffix(end)


def ids(text: str) -> list[int]:
    return BYTES(text)["input_ids"]


def real_tokens(tokens: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [row[counts].tolist() for row, counts in zip(tokens, mask, strict=True)]


def test_the_tokenizers_are_what_the_tests_take_them_for() -> None:
    assert len(ids(query("abc"))) == FRAME + 3
    assert len(MERGED(LONG)["input_ids"]) < len(LONG) / 2


@pytest.mark.parametrize("tokenizer", [BYTES, MERGED])
def test_a_query_that_fits_is_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = tokenizer(query("one\ntwo"))["input_ids"]
    assert query_tokens(tokenizer, query("one\ntwo"), max_tokens=len(whole)) == whole
    assert query_tokens(tokenizer, query("one\ntwo"), max_tokens=len(whole) - 1) != whole


@pytest.mark.parametrize(
    ("post_tokens", "kept"),
    [(13, "one\ntwo\nthree"), (12, "one\ntwo"), (7, "one\ntwo"), (6, "one"), (3, "one"), (2, "on"), (0, "")],
)
def test_paragraphs_go_from_the_end_of_the_post_and_then_characters(post_tokens: int, kept: str) -> None:
    assert cut("one\ntwo\nthree", post_tokens) == kept


def test_a_blank_line_is_two_line_ends() -> None:
    """The reference cuts at the last line end, so the first of a blank line's two stays if there is room for it."""
    assert [cut("one\n\ntwo", tokens) for tokens in (7, 4, 3)] == ["one\n", "one\n", "one"]


def test_a_post_that_begins_with_a_line_end_may_become_empty() -> None:
    assert cut("\nlong paragraph", 5) == ""


def test_only_the_first_post_mark_is_the_templates() -> None:
    post = "a\n\nPOST: b\n\nTL;DR: c"
    assert cut(post, len(post) - 1) == "a\n\nPOST: b\n"
    assert cut(post, 1) == "a"


def reference_cut(tokenizer: PreTrainedTokenizerBase, post: str, max_tokens: int) -> list[int] | None:
    """As `process_query` of OpenAI's summarize-from-feedback with a line end as truncate_text; Huang et al., 2.2."""
    while len(tokens := tokenizer(query(post))["input_ids"]) > max_tokens:
        if not post:
            return None
        post = post[: post.rindex("\n")] if "\n" in post else post[:-1]
    return tokens


@hypothesis.given(strategies.text("ab \n", max_size=30), strategies.integers(0, 32))
def test_queries_are_cut_as_in_the_reference(post: str, post_tokens: int) -> None:
    max_tokens = FRAME + post_tokens
    assert query_tokens(BYTES, query(post), max_tokens=max_tokens) == reference_cut(BYTES, post, max_tokens)


@hypothesis.given(strategies.integers(1, len(MERGED(query(LONG))["input_ids"]) - len(MERGED(query(""))["input_ids"])))
def test_a_cut_query_of_longer_tokens_keeps_its_frame_and_the_beginning_of_its_post(spared: int) -> None:
    limit = len(MERGED(query(LONG))["input_ids"]) - spared
    tokens = query_tokens(MERGED, query(LONG), max_tokens=limit)
    start, end = query("@").split("@")
    text = MERGED.decode(tokens)
    kept = text.removeprefix(start).removesuffix(end)
    assert text == start + kept + end
    assert LONG.startswith(kept) and kept != LONG
    assert limit - 3 <= len(tokens) <= limit


def test_a_query_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the title and template alone take more than max_prompt_tokens \(\d+\)"):
        query_tokens(BYTES, query("post"), max_tokens=FRAME - 1)
    for prompt in ("no template at all", "TITLE: x\n\nTL;DR:", query("post") + " "):
        with pytest.raises(ValueError, match=r"longer than max_prompt_tokens \(9\) and is not in the TL;DR template"):
            query_tokens(BYTES, prompt, max_tokens=9)
    assert query_tokens(BYTES, "no template", max_tokens=11) == ids("no template")


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt must be text that is not empty"):
        query_tokens(BYTES, prompt, max_tokens=9)


def test_prompts_are_padded_on_the_left_with_token_zero() -> None:
    prompt, mask = encode_prompts(BYTES, ["abc", "d"], max_prompt_tokens=9)
    assert prompt.tolist() == [ids("abc"), [0, 0, *ids("d")]]
    assert mask.tolist() == [[True, True, True], [False, False, True]]


def test_prompts_are_cut() -> None:
    prompt, mask = encode_prompts(BYTES, [query("long"), "d"], max_prompt_tokens=FRAME + 2)
    assert real_tokens(prompt, mask) == [ids(query("lo")), ids("d")]


def test_texts_are_padded_on_the_right_and_end_in_eos_which_is_a_target() -> None:
    batch = encode_texts(BYTES, ["abc", "d"], max_tokens=9)
    assert batch.tokens.tolist() == [[*ids("abc"), EOS], [*ids("d"), EOS, 0, 0]]
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert torch.equal(batch.loss_mask, batch.mask)


def test_a_text_that_is_cut_has_no_eos() -> None:
    batch = encode_texts(BYTES, ["abc", "ab"], max_tokens=3)
    assert real_tokens(batch.tokens, batch.mask) == [ids("abc"), [*ids("ab"), EOS]]


@pytest.mark.parametrize("count_prompt", [False, True])
def test_demonstrations_are_query_completion_and_eos(count_prompt: bool) -> None:
    completions = [completion_text(text) for text in ("Gone.\n", " Sad")]
    batch = encode_demonstrations(
        BYTES, ["abc", "d"], completions, max_prompt_tokens=9, max_response_tokens=9, count_prompt=count_prompt
    )
    assert batch.tokens.tolist() == [[*ids("abc Gone."), EOS], [*ids("d Sad"), EOS, 0, 0, 0, 0]]
    assert batch.mask.tolist() == [[True] * 10, [True] * 6 + [False] * 4]
    targets = real_tokens(batch.tokens, batch.loss_mask)
    answers = [[*ids(" Gone."), EOS], [*ids(" Sad"), EOS]]
    assert targets == (real_tokens(batch.tokens, batch.mask) if count_prompt else answers)


def test_a_demonstration_is_cut_in_its_post_and_at_its_completions_end() -> None:
    batch = encode_demonstrations(
        BYTES, [query("long")], [" Gone."], max_prompt_tokens=FRAME + 2, max_response_tokens=4, count_prompt=False
    )
    assert batch.tokens.tolist() == [ids(query("lo") + " Gon")]
    assert real_tokens(batch.tokens, batch.loss_mask) == [ids(" Gon")]


def test_as_many_completions_as_prompts_are_asked_for() -> None:
    with pytest.raises(ValueError, match="shorter"):
        encode_demonstrations(BYTES, ["a", "b"], [" c"], max_prompt_tokens=9, max_response_tokens=9, count_prompt=False)


def candidates_of(responses: Sequence[Sequence[str]], max_response_tokens: int = 9) -> Candidates:
    prompts = ["abc", "d"][: len(responses)]
    return encode_candidates(BYTES, prompts, responses, max_prompt_tokens=9, max_response_tokens=max_response_tokens)


def test_candidates_have_prompts_padded_left_and_responses_right() -> None:
    candidates = candidates_of([[" xy", ""], [" z", " uvw"]])
    assert candidates.prompt.tolist() == [ids("abc"), [0, 0, *ids("d")]]
    assert candidates.responses.tolist() == [
        [[*ids(" xy"), EOS, 0], [EOS, 0, 0, 0, 0]],
        [[*ids(" z"), EOS, 0, 0], [*ids(" uvw"), EOS]],
    ]
    assert candidates.response_mask.sum(-1).tolist() == [[4, 1], [3, 5]]


def test_missing_candidates_are_absent() -> None:
    candidates = candidates_of([[" x"], [" y", " z"]])
    assert candidates.response_mask.any(-1).tolist() == [[True, False], [True, True]]
    assert decode_responses(BYTES, candidates) == [[" x", ""], [" y", " z"]]


def test_a_response_that_is_cut_has_no_eos() -> None:
    candidates = candidates_of([[" xyz", " x"]], max_response_tokens=3)
    assert candidates.responses.tolist() == [[ids(" xy"), [*ids(" x"), EOS]]]


@pytest.mark.parametrize("tokenizer", [BYTES, MERGED])
def test_responses_are_decoded_as_they_were_written(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [[" the cat left", " \u00e9t\u00e9 \U0001f600", " two  spaces\n"], ["", " !", "no space"]]
    candidates = encode_candidates(tokenizer, ["abc", "d"], texts, max_prompt_tokens=9, max_response_tokens=99)
    assert decode_responses(tokenizer, candidates) == texts


def test_masked_tokens_are_not_decoded() -> None:
    candidates = candidates_of([[" x", " yz"]])
    junk = candidates.responses.where(candidates.response_mask, ids("q")[0])
    assert decode_responses(BYTES, replace(candidates, responses=junk)) == [[" x", " yz"]]


def test_rows_are_taken_and_split_in_every_tensor_alike() -> None:
    batch = encode_texts(BYTES, ["a", "bc", "d", "ef", "g"], max_tokens=9)
    assert len(batch) == 5
    parts = list(batch.split(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    for field in fields(TokenBatch):
        whole = getattr(batch, field.name)
        assert torch.equal(torch.cat([getattr(part, field.name) for part in parts]), whole)
        assert torch.equal(getattr(batch[torch.tensor([3, 0])], field.name), whole[[3, 0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token": None}, "the tokenizer has no EOS token"),
        ({"pad_token": None}, "the tokenizer has no PAD token"),
        ({"pad_token": "<|endoftext|>"}, r"uses '<\|endoftext\|>' as PAD and as EOS"),
    ],
)
def test_a_tokenizer_that_confuses_end_and_padding_is_refused(changes: dict[str, str | None], message: str) -> None:
    tokenizer = train_tokenizer(["x"], 0)
    check_tokenizer(tokenizer)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    with pytest.raises(ValueError, match=message):
        check_tokenizer(tokenizer)
    with pytest.raises(ValueError, match=message):
        encode_prompts(tokenizer, ["a"], max_prompt_tokens=9)
    with pytest.raises(ValueError, match=message):
        encode_texts(tokenizer, ["a"], max_tokens=9)
    with pytest.raises(ValueError, match=message):
        encode_demonstrations(tokenizer, ["a"], ["b"], max_prompt_tokens=9, max_response_tokens=9, count_prompt=False)
    with pytest.raises(ValueError, match=message):
        encode_candidates(tokenizer, ["a"], [["b"]], max_prompt_tokens=9, max_response_tokens=9)


def test_a_cut_inside_a_word_does_not_lose_the_words_before_it() -> None:
    """A completed word can take fewer tokens than its beginning."""
    tokenizer = train_tokenizer([" supervisor xyz"] * 9, 400)
    post = "my supervisor left early"

    def size(kept: str) -> int:
        return len(tokenizer(query(kept), add_special_tokens=False)["input_ids"])

    for limit in range(size("") + 1, size(post)):
        best = max((end for end in range(len(post)) if size(post[:end]) <= limit), default=0)
        kept = tokenizer.decode(query_tokens(tokenizer, query(post), max_tokens=limit))
        assert kept == query(post[:best])


def test_groups_that_do_not_fit_their_prompts_are_refused() -> None:
    tokenizer = train_tokenizer(["a few words"] * 4, 300)
    sizes = {"max_prompt_tokens": 64, "max_response_tokens": 8}
    for responses in ([["a"], ["b"], ["c"], ["d"]], [], [[], []]):
        with pytest.raises(ValueError, match="each prompt needs a group"):
            encode_candidates(tokenizer, ["x", "y"], responses, **sizes)
