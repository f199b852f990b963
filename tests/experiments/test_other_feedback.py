"""What other feedback teaches, for one seed and smaller than on the page, with slack; and minutes at another pace."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.experiments.systems import noise, other_feedback, rating_scales
from rlhf_lab.experiments.systems.sections import Job
from rlhf_lab.feedback import LearnedReward, gold_judge
from rlhf_lab.generation import SamplingConfig, distinct_pairs, generate
from rlhf_lab.model_feedback import InformationReward
from rlhf_lab.models import Policy, load_base
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import ppo_config

KINDS = ("rate", "thumbs", "compare", "rank", "edit")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_an_hour_of_each_kind_teaches_what_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = replace(other_feedback.SIZES["laptop"], minutes=(60.0,))
    monkeypatch.setitem(other_feedback.SIZES, "laptop", sizes)
    job = Job(system="other_feedback", seed=0, scale="laptop", folder=tmp_path)
    data, policy, start = load_tldr(scale="laptop"), load_trained("supervised"), load_trained("supervised", "small")
    assert isinstance(policy, Policy) and isinstance(start, Policy)
    pool = other_feedback._pool(job, policy, column(data.prompts, "prompt"))
    lab = other_feedback._Lab(job, policy, data.prompts, pool, data.validation)
    held_out, right = load_shipped_comparisons("held_out").select(range(200)), {}
    for kind in KINDS:
        model = other_feedback._reward_model(lab, start, kind, lab.labels(kind, 60.0), kind)
        right[kind] = noise.in_gold_order(held_out, LearnedReward(model))
    assert min(right.values()) > 0.6, right


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_ratings_of_people_far_apart_teach_less_than_their_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rating_scales.SIZES, "laptop", rating_scales.Sizes((60.0,), 2, 8, 2, 150))
    monkeypatch.setattr(rating_scales, "SCALES", {3.0: "three times as far apart"})
    monkeypatch.setattr(rating_scales, "WAYS", {"raw": "ratings as they are"})
    found = rating_scales.rows(Job(system="rating_scales", seed=0, scale="laptop", folder=tmp_path))
    right = {way: np.mean([row["people_accuracy"] for row in found if row["way"] == way]) for way in ("compare", "raw")}
    assert right["compare"] > right["raw"] + 0.01 > 0.6, right


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_model_in_place_of_people_chooses_better_answers_the_more_it_knows() -> None:
    policy, posts = load_trained("supervised"), column(load_tldr(scale="laptop").validation.select(range(48)), "prompt")
    assert isinstance(policy, Policy)
    groups = generate(policy, posts, SamplingConfig(max_response_tokens=48, temperature=0.5), num_candidates=6)
    prompts, texts = [post for post in posts for _ in range(6)], [text for group in groups for text in group]
    gold = np.reshape(gold_judge()(prompts, texts), (-1, 6))
    best = {}
    for size in ("small", "large"):
        scores = np.reshape(InformationReward(load_base(size))(prompts, texts), (-1, 6))
        best[size] = float(gold[range(len(posts)), scores.argmax(axis=1)].mean())
    assert best["large"] > best["small"] + 0.2
    assert best["large"] > gold.mean() + 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_reward_model_knows_the_starts_answers_better_than_those_of_the_policy_that_it_has_trained() -> None:
    """Why rounds of labels were tried (the system `iterated`)."""
    posts, right = column(load_tldr(scale="laptop").validation, "prompt"), {}
    scores = (LearnedReward(load_trained("reward_model")), gold_judge())
    for name in ("supervised", "no_penalty"):
        policy = load_trained(name)
        assert isinstance(policy, Policy)
        prompts, pairs = distinct_pairs(policy, posts, 240, ppo_config("laptop").sampling)
        learnt, gold = (
            np.subtract(*(score(prompts, list(side)) for side in zip(*pairs, strict=True))) for score in scores
        )
        right[name] = np.mean((learnt * gold)[gold != 0] > 0)
    assert right["supervised"] > right["no_penalty"] + 0.04, right


def test_at_another_pace_the_same_labels_take_other_minutes() -> None:
    base = {"num_comparisons": 0, "seed": 0, "gold": 5.0, "win_rate": 0.5, "length": 20.0}
    rows = [base | {"way": "edit", "kind": "edit", "num_labels": number} for number in (6, 60)]
    points = other_feedback.points_of(rows, "edit", {"edit": 30.0})
    assert [point["minutes"] for point in points] == [3.0, 30.0]
    with pytest.raises(ValueError, match=r"a way of asking is one of rate; thumbs; .*, not 'shout'"):
        other_feedback.points_of(rows, "shout")
