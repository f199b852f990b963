"""What compute and labels cost, by hand, and that best-of-n, RL and more labels do what the results page says."""

import random
from typing import Any

import numpy as np
import pytest

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.experiments.systems.annotation_budget import cost
from rlhf_lab.experiments.systems.best_of_n_or_rl import Compute, break_even
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import PPOConfig, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

COMPUTE = Compute(body=10, head=4, prompt_tokens=5.0)


def test_an_answer_costs_what_is_read_written_and_scored() -> None:
    # One answer of 3 tokens: 2 * 10 * (5 + 3) to read and write, 2 * 4 * 3 for the vocabulary; nobody scores it.
    assert COMPUTE.answer(1, 3.0) == 184.0
    # Two: 2 * 10 * (5 + 6) + 2 * 4 * 6 to write them, 2 * 10 * (5 + 6) to score them.
    assert COMPUTE.answer(2, 3.0) == 268.0 + 220.0


def test_a_step_of_ppo_costs_its_passes() -> None:
    config = PPOConfig(prompts_per_step=8, minibatch_size=8, num_candidates=2, num_epochs=4)
    write, read = 268.0, 220.0  # of two responses of 3 tokens, as above
    # Sampling, two kinds of log-probs, scores and values; then four epochs of forward and backward of two networks.
    assert COMPUTE.ppo_step(config, 3.0) == 8 * (3 * write + 2 * read + 4 * 3 * (write + read))


def test_imitation_costs_its_samples_and_one_epoch() -> None:
    assert COMPUTE.imitation(7, 2, 3.0) == 7 * (488.0 + 3 * 184.0)


def _row(method: str, n: int, mean: float, flops: float, training: float = 0.0) -> dict[str, Any]:
    costs = {"answer_flops": flops, "training_flops": training, "tokens": 3.0}
    return {"method": method, "n": n, "mean": mean, "above_rl": 0.0, "above_rl_se": 0.0} | costs


def test_training_is_paid_back_after_as_many_answers_as_it_saves_for() -> None:
    rows = [_row("best_of_n", n, 0.3 + 0.1 * n, 10.0 * n) for n in (1, 2, 4)] + [_row("rl", 1, 0.5, 12.0, 800.0)]
    # Best-of-2 is as good as RL, and takes 20 - 12 more for an answer.
    found = break_even(rows)
    assert found is not None and (found["n"], found["answers"]) == (2, 100.0)
    assert break_even([*rows[:1], rows[-1]]) is None


def test_labels_cost_their_price() -> None:
    assert cost(1000, dollars_per_label=0.25, seconds_per_label=36.0) == {"dollars": 250.0, "hours": 10.0}
    with pytest.raises(ValueError, match=r"dollars_per_label \(-1\.0\)"):
        cost(10, dollars_per_label=-1.0)


def _samples(stage: str, num_posts: int, number: int) -> Samples:
    policy = load_trained(stage)
    assert isinstance(policy, Policy)
    posts = load_tldr().validation.select(range(num_posts))
    return Samples.of(policy, posts, number, ppo_config("laptop").sampling, seed=0)


@pytest.mark.slow
def test_best_of_n_does_what_rl_does_and_both_together_little_more() -> None:
    """With the models that ship; choosing by chance is the ablation."""
    reward_model = load_trained("reward_model")
    assert isinstance(reward_model, RewardModel)
    supervised, rl = _samples("supervised", 64, 8), _samples("human_feedback", 64, 8)
    alone, trained = supervised.won.mean(), rl.won.mean()
    best, both = (one.best_of(one.scores(LearnedReward(reward_model)), 8).mean() for one in (supervised, rl))
    chance = supervised.best_of(np.random.default_rng(0).random(supervised.won.shape), 8).mean()
    assert best > alone + 0.08 and trained > alone + 0.08
    assert chance < best - 0.08
    assert both < max(best, trained) + 0.08


@pytest.mark.slow
def test_labels_buy_preference_and_a_coins_do_not() -> None:
    """A reward model of 600 labels, and one of the same pairs whose better summary a coin has chosen."""
    samples, policy = _samples("supervised", 64, 8), load_trained("supervised")
    assert isinstance(policy, Policy)
    labels, coin = load_shipped_comparisons().select(range(600)).to_list(), random.Random(0)
    tossed = [
        row if coin.random() < 0.5 else row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in labels
    ]
    won = []
    for rows in (labels, tossed):
        model = train_reward_model(policy, rows, reward_model_config("laptop"), run=Run(seed=0), batch_size=16)
        won.append(samples.best_of(samples.scores(LearnedReward(model)), 8).mean())
    assert won[0] > samples.won.mean() + 0.05
    assert won[1] < won[0] - 0.05
