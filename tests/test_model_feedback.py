"""A model in place of people: what it says of an answer, and labels made of that."""

import math
from collections.abc import Sequence

import pytest
import torch

from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.feedback import Reward
from rlhf_lab.model_feedback import InformationReward, model_labels
from rlhf_lab.models import load_base

pytestmark = pytest.mark.usefixtures("one_thread")


def by_length(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def test_information_is_the_log_prob_after_the_prompt_less_that_after_none() -> None:
    """By hand: one token at a time, each text read alone."""
    policy = load_base("small")
    prompt, response = "SUBREDDIT: r/pets\n\nTITLE: My dog\n\nPOST: My dog ran away.\n\nTL;DR:", " My dog left."
    reward = InformationReward(policy, without="TL;DR:")
    expected = 0.0
    tokens = [*policy.tokenizer(response)["input_ids"], policy.tokenizer.eos_token_id]
    for start, sign in ((prompt, 1.0), ("TL;DR:", -1.0)):
        read = policy.tokenizer(start)["input_ids"]
        for token in tokens:
            with torch.no_grad():
                logits = policy.network(input_ids=torch.tensor([read])).logits[0, -1]
            expected += sign * float(logits.log_softmax(-1)[token])
            read = [*read, token]
    assert isinstance(reward, Reward)
    assert reward([prompt], [response]) == pytest.approx([expected], abs=1e-3)
    assert reward([prompt] * 3, [response] * 3) == pytest.approx([expected] * 3, abs=1e-3)
    assert InformationReward(policy, without=prompt)([prompt], [response]) == pytest.approx([0.0], abs=1e-4)


def test_a_summary_of_the_post_informs_more_than_one_of_another_post() -> None:
    """Nobody has told the model what is good; after a third post it cannot tell them apart."""
    data = load_tldr(scale="tiny").validation.select(range(40))
    prompts, own = column(data, "prompt"), column(data, "completion")
    others = own[1:] + own[:1]
    reward = InformationReward(load_base("medium"))
    right = [one > other for one, other in zip(reward(prompts, own), reward(prompts, others), strict=True)]
    assert sum(right) >= 38
    elsewhere = prompts[20:] + prompts[:20]
    unsure = [one > other for one, other in zip(reward(elsewhere, own), reward(elsewhere, others), strict=True)]
    assert 8 <= sum(unsure) <= 32


def test_labels_are_the_judges_choices_soft_by_the_difference() -> None:
    prompts, pairs = ["p", "q", "r"], [("longer", "long"), ("a", "abc"), ("ab", "cd")]
    rows = model_labels(by_length, prompts, pairs).to_list()
    assert [row["chosen"] for row in rows] == ["longer", "abc", "ab"]
    assert [row["rejected"] for row in rows] == ["long", "a", "cd"]
    assert [(row["chosen_prob"], row["labeler"]) for row in rows] == [(1.0, "model")] * 3
    soft = model_labels(by_length, prompts, pairs, temperature=2.0 / math.log(3.0), labeler="judge")
    assert soft["chosen_prob"] == pytest.approx([0.75, 0.75, 0.5])  # odds of 3 to 1 at a difference of 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ["p"]}, "there are 1 prompts for 2 pairs; give one for each."),
        ({"temperature": 0.0}, "temperature must be above 0, or None for plain choices, not 0.0."),
        ({"judge": lambda prompts, responses: [math.nan] * len(responses)}, "no finite number"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], message: str) -> None:
    given = {"judge": by_length, "prompts": ["p", "q"], "pairs": [("a", "b"), ("c", "d")]} | settings
    with pytest.raises(ValueError, match=message):
        model_labels(**given)  # type: ignore[arg-type]
