"""InstructGPT's and Anthropic's claims on text, for one seed and smaller than on the page of results, with slack."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.data.rules import load_rules
from rlhf_lab.experiments.systems import (
    context_distillation,
    preference_pretraining,
    pretraining_mix,
    ranked_or_binary,
    rankings,
    rules,
)
from rlhf_lab.experiments.systems.sections import Job
from rlhf_lab.feedback import LearnedReward, gold_judge, population
from rlhf_lab.models import Policy, RewardModel, load_base
from rlhf_lab.probing import best_temptations, writer
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.a2c import a2c, a2c_config
from rlhf_lab.training.distillation import context_kl, distill_context, distillation_config
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.rule_model import rule_model_config, train_rule_model
from rlhf_lab.training.supervised import text_loss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def job(system: str) -> Job:
    return Job(system, 0, "laptop", Path())


def supervised(size: str) -> Policy:
    policy = load_trained("supervised", size)
    assert isinstance(policy, Policy)
    return policy


def test_all_pairs_in_one_element_leave_a_smaller_gap_than_shuffled_pairs() -> None:
    policy, data = supervised("large"), load_tldr(scale="tiny")
    people = population(seed=0)
    train, held_out = (
        rankings.ranked(policy, posts, 48, 4, people, seed=0) for posts in (data.prompts, data.validation)
    )
    one, shuffled = (
        rankings.measured(policy, train, held_out, arm, 8, job("rankings")) for arm in ("one element", "shuffled")
    )
    assert shuffled["gap"] > one["gap"] + 0.03


def test_pretraining_text_recovers_what_ppo_gives_up() -> None:
    policy, reward_model = supervised("large"), load_trained("reward_model", "large")
    assert isinstance(reward_model, RewardModel)
    tuned = pretraining_mix.tuned(policy, reward_model, job("pretraining_mix"), num_steps=6, num_texts=256)
    texts = pretraining_mix.raw_posts("held out", 64, 0)
    start, free, mixed = (text_loss(one, texts, max_tokens=192) for one in (policy, tuned["ppo"], tuned["mixed"]))
    assert free > start + 0.01
    assert free - mixed > 0.8 * (free - start)
    scores = [tuned[name].history[-1]["objective/score"] for name in ("ppo", "mixed")]
    assert scores[1] > scores[0] - 0.5  # Of the same posts: what is remembered costs little of the reward.


def test_context_distillation_closes_the_gap_to_the_prompted_teacher() -> None:
    teacher = context_distillation.taught("small", 4096)
    config, data = distillation_config("laptop"), load_tldr(scale="tiny")
    student = distill_context(teacher, context_distillation.CONTEXT, data.prompts, config, num_steps=120)
    before, after = (
        context_kl(one, teacher, context_distillation.CONTEXT, list(data.validation["prompt"]), config)
        for one in (teacher, student)
    )
    assert before > 1.0
    assert after < 0.3 * before


def test_cheap_preferences_help_where_labels_are_few() -> None:
    policy, config = supervised("medium"), reward_model_config("laptop")
    cheap = preference_pretraining.cheap_comparisons(1500, 0)
    pretrained = train_reward_model(policy, cheap, config, run=Run(), num_epochs=1.0)
    few, held_out = (
        load_shipped_comparisons(part).select(range(number)) for part, number in (("train", 200), ("held_out", 500))
    )
    gentle = replace(config.optimizer, learning_rate=preference_pretraining.GENTLE)
    settings = {"batch_size": 8, "optimizer": gentle}
    plain, more = (train_reward_model(start, few, config, **settings) for start in (policy, pretrained))
    accuracy = [preference_pretraining.accuracy(model, held_out) for model in (plain, more)]
    assert accuracy[1] > accuracy[0] + 0.03


def test_a_preference_model_gains_more_over_imitation_where_answers_are_ranked() -> None:
    start, found, base = load_base("medium"), {}, {}
    for kind in ranked_or_binary.KINDS:
        train, held_out, near = (
            ranked_or_binary.comparisons(task, kind, number, split, 0)
            for task, number, split in (("told", 300, "train"), ("told", 200, "held out"), ("near", 100, "held out"))
        )
        before, there = (ranked_or_binary.answer_logprobs(start, one) for one in (held_out, near))
        base[kind] = [
            ranked_or_binary.accuracy(ranked_or_binary.imitation_scores(one, one)["mean"]) for one in (before, there)
        ]
        found[kind] = ranked_or_binary.accuracies(start, train, held_out, before, 16, job("ranked_or_binary"))
    ranked, binary = (found[kind]["preference"] - found[kind]["mean"] for kind in ranked_or_binary.KINDS)
    assert ranked > binary + 0.03
    assert binary > 0.2
    # The base model's own taste, which imitation starts from, is against what is wanted here and for it elsewhere.
    assert all(told < 0.35 and near > 0.65 for told, near in base.values())
    # Without that taste imitation has learnt what is wanted.
    assert found["ranked"]["ratio"] > found["ranked"]["mean"] + 0.2


def test_a2c_earns_what_ppo_earns_at_like_distance() -> None:
    policy, reward_model, data = supervised("large"), load_trained("reward_model", "large"), load_tldr()
    assert isinstance(reward_model, RewardModel)
    settings = {"held_out": data.validation.select(range(32)), "watch": {"gold": gold_judge()}}
    looks = {}
    for method, config, num_steps in ((ppo, ppo_config("laptop"), 5), (a2c, a2c_config("laptop"), 20)):
        train = partial(method, policy, reward_model, data.prompts, config, num_steps=num_steps, **settings)
        history = train(evaluate_every=num_steps).history
        looks[method] = history[0], history[-1]
    for start, end in looks.values():
        assert end["held_out/gold"] > start["held_out/gold"] + 0.1
    distance = [end["held_out/kl"] for _, end in looks.values()]
    assert 0.5 < distance[1] / distance[0] < 2.0


def test_a_classifier_that_reads_the_rule_tells_more_than_one_of_good_and_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = replace(rules.SIZES["laptop"], rated=480, tried=2)
    monkeypatch.setitem(rules.SIZES, "laptop", sizes)
    start, reader, known = supervised("large"), supervised("medium"), load_rules()
    mine = replace(job("rules"), folder=tmp_path)
    tempted = writer(start, rules.RATED, seed=0)
    best = best_temptations(tempted, known, rules._posts(mine, "found", sizes.tried), seed=0, num_kept=2)
    labels = rules._rated(mine, [tempted], known, best)
    config = rule_model_config("laptop")
    told = rules._told(
        mine,
        start,
        train_rule_model(reader, labels, config, run=Run(seed=0)),
        train_rule_model(reader, rules._by_any_rule(labels), config, run=Run(seed=0)),
        known,
        best,
    )
    reads, knows = (sum(row[name] for row in told) / len(told) for name in ("rule_model", "any_rule"))
    assert reads > 0.6
    assert reads > knows + 0.05


def test_fines_by_the_checks_make_a_policy_keep_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One round in place of two, and fewer prompts."""
    sizes = replace(rules.SIZES["laptop"], tried=2, imitated=120, num_rounds=1)
    monkeypatch.setitem(rules.SIZES, "laptop", sizes)
    liked, liking, known = load_trained("human_feedback"), load_trained("reward_model"), load_rules()
    assert isinstance(liked, Policy) and isinstance(liking, RewardModel)
    mine = replace(job("rules"), folder=tmp_path)
    kept = rules._imitated(mine, liked, rules.CheckedReward(LearnedReward(liking), known, sizes.fine))
    writers = (writer(policy, rules.ANSWERING, seed=0) for policy in (supervised("large"), kept))
    broken = [sum(row["rate"] for row in rules._probed(mine, write, known)) / len(known) for write in writers]
    assert broken[1] < 0.75 * broken[0]
