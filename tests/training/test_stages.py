"""Every stage: it learns, leaves its arguments alone, and an interrupted run ends with the same bits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from rlhf_lab.data.datasets import TLDR
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.training.a2c import a2c, a2c_config
from rlhf_lab.training.dpo import dpo, dpo_config
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.grpo import grpo, grpo_config
from rlhf_lab.training.ppo import PPOConfig, ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.rloo import rloo, rloo_config
from rlhf_lab.training.supervised import pretrain, sft, sft_config

pytestmark = pytest.mark.slow
Stage = Callable[[Run], Policy | RewardModel]


def wordy(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward that anything can learn: more letters."""
    return [min(len(response), 200) / 100 for response in responses]


def state_of(trained: Policy | RewardModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture(scope="session")
def stages(policy: Policy, data: TLDR, comparisons: Dataset) -> dict[str, Stage]:
    tiny: PPOConfig = ppo_config("tiny")
    reward_model = train_reward_model(policy, comparisons, reward_model_config("tiny"), num_epochs=0.25)
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations]
    settings = {"num_candidates": 2, "kl_target": 1.0, "evaluate_every": 2}
    return {
        "pretrain": lambda run: pretrain(policy, texts, run=run, num_steps=6, batch_size=8),
        "sft": lambda run: sft(policy, data.demonstrations, sft_config("tiny"), run=run, num_epochs=0.75),
        "reward model": lambda run: train_reward_model(
            policy, comparisons, reward_model_config("tiny"), run=run, num_epochs=0.75
        ),
        "dpo": lambda run: dpo(policy, comparisons, dpo_config("tiny"), run=run, num_epochs=0.75),
        "ppo": lambda run: ppo(
            policy, reward_model, data.prompts, tiny, held_out=data.validation.select(range(4)), run=run, **settings
        ),
        "a2c": lambda run: a2c(
            policy, reward_model, data.prompts, a2c_config("tiny"), held_out=data.validation.select(range(4)), run=run
        ),
        "rloo": lambda run: rloo(
            policy, reward_model, data.prompts, rloo_config("tiny"), held_out=data.validation.select(range(4)), run=run
        ),
        "grpo": lambda run: grpo(policy, reward_model, data.prompts, grpo_config("tiny"), num_epochs=2, run=run),
        "ppo on a callable": lambda run: ppo(policy, wordy, data.prompts, tiny, run=run),
    }


NAMES = ["pretrain", "sft", "reward model", "dpo", "ppo", "a2c", "rloo", "grpo", "ppo on a callable"]


class Interrupted(Exception):
    """Stands for a kill between two steps."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_stage_ends_with_the_same_bits(
    name: str, stop: int, stages: dict[str, Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stages[name](Run(tmp_path / "whole", seed=5, checkpoint_every=2))
    log = Run.log

    def interrupt(run: Run, step: int, metrics: dict) -> None:
        log(run, step, metrics)
        if step == stop:
            raise Interrupted

    monkeypatch.setattr(Run, "log", interrupt)
    with pytest.raises(Interrupted):
        stages[name](Run(tmp_path / "cut", seed=5, checkpoint_every=2))
    monkeypatch.undo()
    again = stages[name](Run(tmp_path / "cut", seed=5, checkpoint_every=2))
    assert_same_bits(state_of(whole), state_of(again))
    assert whole.history == again.history
    for file in ("metrics.jsonl", "samples.jsonl"):
        if (tmp_path / "whole" / file).exists():
            assert (tmp_path / "whole" / file).read_text() == (tmp_path / "cut" / file).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_leaves_its_arguments_alone_and_repeats_itself(
    name: str, stages: dict[str, Stage], policy: Policy
) -> None:
    before = state_of(policy)
    first = stages[name](Run(seed=1))
    second = stages[name](Run(seed=1))
    assert_same_bits(before, state_of(policy))
    assert_same_bits(state_of(first), state_of(second))
    assert any(not torch.equal(tensor, before.get(key, tensor + 1)) for key, tensor in state_of(first).items())


def test_imitation_lowers_the_loss(policy: Policy, data: TLDR) -> None:
    fast = OptimizerConfig(learning_rate=5e-3, warmup_fraction=0.1)
    history = sft(policy, data.demonstrations, sft_config("tiny"), num_epochs=6.0, optimizer=fast).history
    assert history[-1]["sft/loss"] < history[0]["sft/loss"] - 0.8


def test_the_reward_model_learns_the_comparisons(policy: Policy, comparisons: Dataset, data: TLDR) -> None:
    config = reward_model_config("tiny")
    fast = OptimizerConfig(learning_rate=2e-3, warmup_fraction=0.1)
    model = train_reward_model(
        policy, comparisons, config, references=data.demonstrations, num_epochs=8.0, optimizer=fast
    )
    assert sum(row["rm/accuracy"] for row in model.history[-8:]) / 8 > 0.7  # the labels' noise allows 0.84
    limits = {"max_prompt_tokens": config.max_prompt_tokens, "max_response_tokens": config.max_response_tokens}
    scores = LearnedReward(model, **limits)(data.demonstrations["prompt"], data.demonstrations["completion"])
    assert sum(scores) / len(scores) == pytest.approx(0.0, abs=1e-4)


def test_ppo_earns_more_of_a_reward_that_it_can_learn(policy: Policy, data: TLDR) -> None:
    fast = OptimizerConfig(learning_rate=3e-3, schedule="constant")
    settings = {"num_steps": 25, "kl_coef": 0.0, "prompts_per_step": 16, "minibatch_size": 8, "optimizer": fast}
    history = ppo(policy, wordy, data.prompts, ppo_config("tiny"), **settings).history
    first, last = (sum(row["objective/score"] for row in rows) / 4 for rows in (history[:4], history[-4:]))
    assert last > first + 0.3
    assert history[0]["objective/kl"] == 0.0


def test_the_kl_penalty_holds_the_policy_back(policy: Policy, data: TLDR) -> None:
    config = ppo_config("tiny")
    fast = OptimizerConfig(learning_rate=1e-3, schedule="constant")
    kl = {}
    for kl_coef in (0.0, 5.0):
        history = ppo(policy, wordy, data.prompts, config, num_steps=25, kl_coef=kl_coef, optimizer=fast).history
        kl[kl_coef] = sum(row["objective/kl"] for row in history[-4:]) / 4
    assert kl[5.0] < 0.5 * kl[0.0]


def test_ppo_looks_at_held_out_prompts_and_learns_as_without_them(policy: Policy, data: TLDR) -> None:
    held_out = data.validation.select(range(6))
    settings = {"num_steps": 6, "evaluate_every": 2, "watch": {"words": wordy}, "missing_eos_score": None}
    looking = ppo(policy, wordy, data.prompts, ppo_config("tiny"), held_out=held_out, **settings)
    blind = ppo(policy, wordy, data.prompts, ppo_config("tiny"), **settings)
    assert_same_bits(state_of(looking), state_of(blind))
    seen = [row["step"] for row in looking.history if "held_out/score" in row]
    assert seen == [0, 2, 4, 5]  # every second step, and the last
    both = [row for row in looking.history if row["step"] in seen]
    for name in both[0]:
        if name.startswith("objective/"):
            assert all(name.replace("objective", "held_out") in row for row in both)
    assert all(row["held_out/score"] == pytest.approx(row["held_out/words"]) for row in both)
    stripped = [{name: value for name, value in row.items() if "held_out" not in name} for row in looking.history]
    assert stripped == list(blind.history)


def test_a_policy_that_stands_still_is_seen_to_stand_still(policy: Policy, data: TLDR) -> None:
    still = OptimizerConfig(learning_rate=1e-12, schedule="constant")
    held_out = data.validation.select(range(6))
    settings = {"held_out": held_out, "optimizer": still, "num_steps": 4, "evaluate_every": 1}
    settings["missing_eos_score"] = None
    history = ppo(policy, wordy, data.prompts, ppo_config("tiny"), **settings).history
    assert len({row["held_out/score"] for row in history}) == 1
    assert len({row["objective/score"] for row in history}) > 1  # other posts at each step
    assert max(abs(row["held_out/kl"]) for row in history) < 1e-5


def test_held_out_means_are_those_of_the_texts(policy: Policy, data: TLDR) -> None:
    held_out = data.validation.select(range(5))
    read: list[tuple[list[str], list[str]]] = []

    def reward(prompts: list[str], responses: list[str]) -> list[float]:
        read.append((list(prompts), list(responses)))
        return wordy(prompts, responses)

    settings = {"num_steps": 1, "num_candidates": 2, "missing_eos_score": None}
    (row,) = ppo(policy, reward, data.prompts, ppo_config("tiny"), held_out=held_out, **settings).history
    prompts, responses = next(pair for pair in read if len(pair[0]) == 10)
    assert prompts == [prompt for prompt in held_out["prompt"] for _ in range(2)]
    assert row["held_out/score"] == pytest.approx(sum(wordy(prompts, responses)) / 10)
    assert row["held_out/kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, not 0"),
        ({"kl_coef": -0.1}, r"kl_coef must be 0 or more, not -0\.1"),
        ({"prompts_per_step": 6, "minibatch_size": 4}, r"prompts_per_step \(6\) must be a multiple"),
    ],
)
def test_ppo_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**settings)


def test_no_held_out_prompts_are_refused_before_anything_runs(policy: Policy, data: TLDR) -> None:
    with pytest.raises(ValueError, match="there are no prompts"):
        ppo(policy, wordy, data.prompts, ppo_config("tiny"), held_out=data.validation.select([]))
