"""Ranked and binary comparisons of the same answers, and what imitation says about them."""

from typing import Any

import pytest
import torch

from rlhf_lab.data.world import World
from rlhf_lab.experiments.systems.ranked_or_binary import (
    KINDS,
    TASKS,
    accuracy,
    answer_logprobs,
    comparisons,
    gains,
    imitation_scores,
)
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import load_base


def facts_told(prompt: str, answer: str) -> int:
    """Of the post's facts."""
    return len(gold_judge().judge(prompt, answer).covered)


@pytest.mark.parametrize("kind", KINDS)
def test_the_better_one_tells_more(kind: str) -> None:
    rows = comparisons("told", kind, 30, "train", 0)
    assert len(rows) == len(set(rows["prompt"])) == 30
    for row in rows.to_list():
        chosen, rejected = (gold_judge().judge(row["prompt"], row[name]) for name in ("chosen", "rejected"))
        assert chosen.coverage > rejected.coverage
        assert chosen.accuracy == rejected.accuracy


def test_the_nearest_answer_tells_the_post_and_others_hardly() -> None:
    for row in comparisons("near", "binary", 30, "train", 0).to_list():
        assert facts_told(row["prompt"], row["chosen"]) > 1 + facts_told(row["prompt"], row["rejected"])


@pytest.mark.parametrize("task", TASKS)
def test_only_binary_comparisons_have_always_the_best_answer(task: str) -> None:
    world = World()
    facts = {post.query: len(post.facts) for post in world.posts(0, f"{task} train", 80)}

    def complete(kind: str) -> float:
        rows = comparisons(task, kind, 40, "train", 0).to_list()
        told = [facts_told(row["prompt"], row["chosen"]) for row in rows]
        return sum(number == facts[row["prompt"]] for row, number in zip(rows, told, strict=True)) / len(rows)

    assert complete("binary") == 1.0
    assert complete("ranked") < 0.9


def test_posts_that_are_learnt_from_are_not_those_that_are_measured_on() -> None:
    train, held_out = (comparisons("told", "ranked", 30, split, 0) for split in ("train", "held out"))
    assert not set(train["prompt"]) & set(held_out["prompt"])


def test_log_probs_of_answers_are_those_of_their_tokens_and_eos() -> None:
    policy = load_base("small")
    rows = comparisons("told", "ranked", 3, "train", 0)
    found = answer_logprobs(policy, rows)
    for index, row in enumerate(rows.to_list()):
        for place, answer in enumerate((row["chosen"], row["rejected"])):
            prompt = policy.tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            tokens = policy.tokenizer(answer, add_special_tokens=False)["input_ids"] + [policy.tokenizer.eos_token_id]
            with torch.no_grad():
                logits = policy.network(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
            each = logits.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)]
            assert found[index, place, 0].item() == pytest.approx(each.sum().item(), abs=1e-3)
            assert found[index, place, 1] == len(tokens)


def test_the_scores_of_imitation() -> None:
    before = torch.tensor([[[-9.0, 4.0], [-4.0, 2.0]]])
    after = torch.tensor([[[-6.0, 4.0], [-4.0, 2.0]]])
    scores = imitation_scores(after, before)
    assert scores["sum"].tolist() == [[-6.0, -4.0]]
    assert scores["mean"].tolist() == [[-1.5, -2.0]]
    assert scores["ratio"].tolist() == [[3.0, 0.0]]
    assert [accuracy(scores[name]) for name in ("sum", "mean", "ratio")] == [0.0, 1.0, 1.0]
    assert accuracy(torch.zeros(1, 2)) == 0.5


def test_gains_are_those_of_a_seed() -> None:
    common: dict[str, Any] = {"task": "told", "kind": "ranked", "comparisons": 8}
    rows = [
        {**common, "seed": seed, "method": method, "accuracy": value}
        for seed, values in enumerate(((0.9, 0.5), (0.75, 0.5)))
        for method, value in zip(("preference", "mean"), values, strict=True)
    ]
    assert gains(rows, "told", "ranked", 8) == pytest.approx([0.4, 0.25])
