"""Notebook 00, second half: returns, a reward written by hand, and what a policy can expect of it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_lab.course.exercise import Case, Exercise, Written


def _returns() -> list[float]:
    return [0.125, 0.25, 0.5, 2.0]


def _without_own() -> list[float]:
    """The return of a token begins with the token's own reward; yours begins with the next one's."""
    return [0.25, 0.5, 2.0, 0.0]


def _undiscounted() -> list[float]:
    """These are plain sums: a reward that comes k tokens later counts gamma to the power of k."""
    return [1.5, 1.5, 1.5, 2.0]


def _from_the_start() -> list[float]:
    """You discount by the distance from the first token; it is the distance from the token whose return this is."""
    return [0.125, 0.125, 0.125, 0.25]


def _so_far() -> list[float]:
    """You add up what came before. A return looks ahead: no action can change the rewards that are past."""
    return [0.0, 0.0, -0.5, 1.75]


def _backwards() -> list[float]:
    """These are the returns from last to first: the first number is that of the first token."""
    return [2.0, 0.5, 0.25, 0.125]


RETURNS = Exercise(
    id="returns",
    title="Returns by hand",
    kind="predict",
    points=1,
    minutes=5,
    difficulty=1,
    reference=_returns,
    cases=lambda rng: [Case(title="four tokens")],
    mistakes=(_without_own, _undiscounted, _from_the_start, _so_far, _backwards),
    variants=(lambda: [1 / 8, 1 / 4, 1 / 2, 2], lambda: [0.1251, 0.2499, 0.5, 2.0]),
    tolerance=2e-3,
)

FREE_WORDS = 20


def _text_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, *pairs: tuple[str, str]) -> Case:
        return Case(title=title, args=([prompt for prompt, _ in pairs], [response for _, response in pairs]))

    post, asking = "My wife sold our car.\n\nTL;DR:", "What now? Who is right?\n\nTL;DR:"
    drawn = [
        " ".join(["word"] * int(number)) + str(end)
        for number, end in zip(rng.integers(18, 40, 6), "?.?.?.", strict=True)
    ]
    return [
        case("a question, and none", (post, " My wife sold our car. What can I do?"), (post, " My wife sold our car.")),
        case("a question in the prompt only", (asking, " My wife sold our car.")),
        case("two questions", (post, " Who is right? What now?")),
        case("20 words and 25 words", (post, " word" * 20), (post, " word" * 25)),
        case("words between line breaks and double spaces", (post, "word  word\n" * 12)),
        case("nothing, and blanks", (post, ""), (post, "  \n ")),
        case("texts drawn at random", *((post, f" {text}") for text in drawn)),
    ]


def _handmade(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    scores = []
    for response in responses:
        words = response.split()
        scores.append(float("?" in response) - 0.1 * max(0, len(words) - FREE_WORDS) if words else -1.0)
    return scores


def _reads_prompt(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """You look into the prompt: a question that the poster asks earns nothing if the summary leaves it out."""
    together = [f"{prompt}{response}" for prompt, response in zip(prompts, responses, strict=True)]
    asks = [float("?" in text) for text in together]
    return [
        score - float("?" in response) + asked if response.strip() else score
        for score, response, asked in zip(_handmade(prompts, responses), responses, asks, strict=True)
    ]


def _counts_letters(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The length of a text is its number of characters: count words, the parts between blanks."""
    return [float("?" in text) - 0.1 * max(0, len(text) - FREE_WORDS) if text.strip() else -1.0 for text in responses]


def _splits_at_blanks(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Two blanks in a row hold no word between them, and a line break parts words too: try split() without argument."""
    return [
        float("?" in text) - 0.1 * max(0, len(text.split(" ")) - FREE_WORDS) if text.strip() else -1.0
        for text in responses
    ]


def _counts_questions(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """You reward every question mark, so a summary could earn any number of points by asking on and on."""
    return [
        text.count("?") - 0.1 * max(0, len(text.split()) - FREE_WORDS) if text.strip() else -1.0 for text in responses
    ]


def _no_free_words(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The first 20 words are free: only those beyond cost anything."""
    return [float("?" in text) - 0.1 * len(text.split()) if text.strip() else -1.0 for text in responses]


def _bonus_for_short(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A short text earns points for the words it does not use: the penalty is never below 0."""
    return [float("?" in text) - 0.1 * (len(text.split()) - FREE_WORDS) if text.strip() else -1.0 for text in responses]


def _nothing_is_free(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A text without a word scores -1: else silence would be worth as much as a good short summary."""
    return [float("?" in text) - 0.1 * max(0, len(text.split()) - FREE_WORDS) for text in responses]


def _in_one_line(prompts: Sequence[str], responses: Sequence[str]) -> list[float | int]:
    return [("?" in text) - max(0, len(text.split()) - FREE_WORDS) / 10 if text.split() else -1 for text in responses]


def _by_cases(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    def score(text: str) -> float:
        if not text.strip():
            return -1.0
        total = 1.0 if text.count("?") > 0 else 0.0
        for _ in text.split()[FREE_WORDS:]:
            total -= 0.1
        return total

    return [score(response) for _, response in zip(prompts, responses, strict=True)]


HANDMADE_REWARD = Exercise(
    id="handmade-reward",
    title="A reward of your own",
    kind="implement",
    points=2,
    minutes=8,
    difficulty=1,
    reference=_handmade,
    cases=_text_cases,
    mistakes=(
        _reads_prompt,
        _counts_letters,
        _splits_at_blanks,
        _counts_questions,
        _no_free_words,
        _bonus_for_short,
        _nothing_is_free,
    ),
    variants=(_in_one_line, _by_cases),
)


def _policies(rng: np.random.Generator) -> list[Case]:
    def case(title: str, vocab: int, scale: float = 1.0) -> Case:
        first, second = scale * rng.normal(size=vocab), scale * rng.normal(size=(vocab, vocab))
        rewards = rng.normal(size=(vocab, vocab))
        # What would follow EOS is never written: it must not count.
        second[0], rewards[0, 1:] = 5.0, 99.0
        args = tuple(torch.tensor(values) for values in (first, second, rewards))
        return Case(title=title, args=args, gradient_of=(0, 1))

    return [
        case("EOS and one word", 2),
        case("EOS and three words", 4),
        case("EOS and five words, a policy that is sure of itself", 6, scale=4.0),
    ]


def _expected(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    start, following = torch.softmax(first, -1), torch.softmax(second, -1)
    longer = start[1:, None] * following[1:] * rewards[1:]
    return start[0] * rewards[0, 0] + longer.sum()


def _beyond_the_end(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    """You count tokens after EOS: an episode that has ended has one reward, rewards[0, 0], and no second action."""
    return (torch.softmax(first, -1)[:, None] * torch.softmax(second, -1) * rewards).sum()


def _unweighted(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    """That is the mean over the texts as if all were equally likely: weigh each by the probability of writing it."""
    vocab = len(first)
    return (rewards[0, 0] + rewards[1:].sum()) / (1 + (vocab - 1) * vocab)


def _first_only(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    """You weigh by the first action alone: the probability of a text is the product over both its tokens."""
    start = torch.softmax(first, -1)
    return start[0] * rewards[0, 0] + (start[1:, None] * rewards[1:]).sum()


def _wrong_way_round(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    """The softmax runs over the first token: given the first, the probabilities of the second add up to 1."""
    start, following = torch.softmax(first, -1), torch.softmax(second[1:], 0)
    return start[0] * rewards[0, 0] + (start[1:, None] * following * rewards[1:]).sum()


def _detached(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    """The value is right, but no gradient reaches the logits: stay in torch, without item(), numpy() or detach()."""
    return _expected(first, second, rewards).detach()


def _half_detached(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    """The value is right, but the gradient reaches only one of the two choices: is one of them detached?"""
    return _expected(first, second.detach(), rewards)


def _by_texts(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    start, total = first.softmax(0), 0.0 * first.sum()
    for i in range(len(first)):
        if i == 0:
            total = total + start[0] * rewards[0, 0]
            continue
        for j, prob in enumerate(second[i].softmax(0)):
            total = total + start[i] * prob * rewards[i, j]
    return total


def _by_values(first: Tensor, second: Tensor, rewards: Tensor) -> Tensor:
    # The value of each state after one token, and then of the state before any.
    values = torch.cat([rewards[0, :1], (second[1:].softmax(-1) * rewards[1:]).sum(-1)])
    return first.log_softmax(-1).exp() @ values


EXPECTED_REWARD = Exercise(
    id="expected-reward",
    title="What a policy can expect",
    kind="implement",
    points=2,
    minutes=12,
    difficulty=3,
    reference=_expected,
    cases=_policies,
    mistakes=(_beyond_the_end, _unweighted, _first_only, _wrong_way_round, _detached, _half_detached),
    variants=(_by_texts, _by_values),
)

PUSHED_REWARD = Written(
    id="pushed-reward",
    title="What the reward got, and what you wanted",
    points=2,
    minutes=8,
    difficulty=2,
    rubric={
        "reads both curves with their numbers, at the least and at the largest n": 1,
        "says why they part: what earns the reward without making the summary better": 1,
    },
)
