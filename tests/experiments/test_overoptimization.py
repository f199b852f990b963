"""The curves' points: where a step starts, and how far above it a policy is."""

import pytest
import torch

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.experiments.overoptimization import curve_points, start_scores
from rlhf_lab.feedback import gold_judge
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import load_base, new_reward_model
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ppo import PPOConfig, ppo


@pytest.mark.usefixtures("one_thread")
def test_a_policy_that_stands_still_stays_where_each_step_starts() -> None:
    """PPO at no rate and (nearly) no temperature writes on each step's posts what the start writes on them."""
    posts, policy = load_tldr(scale="tiny").prompts, load_base("medium")
    reward_model = new_reward_model(policy, generator=torch.Generator().manual_seed(0))
    config = PPOConfig(
        num_steps=2,
        prompts_per_step=4,
        num_candidates=2,
        num_epochs=1,
        minibatch_size=4,
        missing_eos_score=None,
        sampling=SamplingConfig(max_response_tokens=64, temperature=1e-3),
        optimizer=OptimizerConfig(learning_rate=1e-12),
    )
    tuned = ppo(policy, reward_model, posts, config, watch={"gold": gold_judge()}, run=Run(seed=5))
    starts = start_scores(policy, reward_model, posts, config, num_steps=2, run=Run(seed=5))
    assert len({row["proxy"] for row in starts}) == len({row["gold"] for row in starts}) == 2
    for row, start in zip(tuned.history, starts, strict=True):
        assert row["objective/score"] == pytest.approx(start["proxy"], abs=1e-4)
        assert row["objective/gold"] == pytest.approx(start["gold"], abs=1e-4)
    other = start_scores(policy, reward_model, posts, config, num_steps=2, run=Run(seed=6))
    assert other[0]["proxy"] != pytest.approx(starts[0]["proxy"], abs=1e-4)


def test_points_are_gains_over_their_own_start_in_standard_deviations() -> None:
    best_of = [
        {"n": 1, "kl": 0.0, "proxy": 1.0, "gold": 3.0, "proxy_std": 0.5, "gold_std": 2.0},
        {"n": 4, "kl": 0.6, "proxy": 1.5, "gold": 4.0, "proxy_std": 0.5, "gold_std": 2.0},
    ]
    starts = [{"step": 0, "proxy": 1.2, "gold": 3.5}, {"step": 1, "proxy": 0.25, "gold": 2.0}]
    history = [
        {"step": 0, "objective/kl": 0.0, "objective/score": 1.2, "objective/gold": 3.5},
        {"step": 1, "objective/kl": 2.0, "objective/score": 0.75, "objective/gold": 1.0},
    ]
    points = curve_points(best_of, {"ppo": (history, starts), "ppo_penalty": (history[:1], starts[:1])}, seed=7)
    assert points == [
        {"seed": 7, "method": "best_of_n", "n": 1, "kl": 0.0, "proxy": 0.0, "gold": 0.0},
        {"seed": 7, "method": "best_of_n", "n": 4, "kl": 0.6, "proxy": 1.0, "gold": 0.5},
        {"seed": 7, "method": "ppo", "step": 0, "kl": 0.0, "proxy": 0.0, "gold": 0.0},
        {"seed": 7, "method": "ppo", "step": 1, "kl": 2.0, "proxy": 1.0, "gold": -0.5},
        {"seed": 7, "method": "ppo_penalty", "step": 0, "kl": 0.0, "proxy": 0.0, "gold": 0.0},
    ]


def test_scores_that_are_all_alike_keep_their_unit() -> None:
    best_of = [{"n": 1, "kl": 0.0, "proxy": 1.0, "gold": 3.0, "proxy_std": 0.0, "gold_std": 0.0}]
    row = {"step": 0, "objective/kl": 0.0, "objective/score": 3.0, "objective/gold": 2.0}
    points = curve_points(best_of, {"ppo": ([row], [{"step": 0, "proxy": 1.0, "gold": 3.0}])}, seed=0)
    assert (points[-1]["proxy"], points[-1]["gold"]) == (2.0, -1.0)
