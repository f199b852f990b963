"""GRPO: its updates are those of its papers' equations, Dr. GRPO's too; and it learns."""

from typing import Any

import pytest
import torch

from rlhf_lab.data.datasets import TLDR
from rlhf_lab.equations.groups import group_normalized
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy, copy_network
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.training.actor_critic import collecting
from rlhf_lab.training.experience import Models, collect
from rlhf_lab.training.fit import Frozen, OptimizerConfig
from rlhf_lab.training.grpo import GRPOConfig, grpo, grpo_config

pytestmark = pytest.mark.usefixtures("one_thread")
STEADY = OptimizerConfig(learning_rate=1e-3, schedule="constant")
SHORT: dict[str, Any] = {
    "optimizer": STEADY,
    "sampling": SamplingConfig(max_response_tokens=16),
    "max_prompt_tokens": 128,
}
LEARNING = SHORT | {"num_steps": 30, "prompts_per_step": 8, "missing_eos_score": None}
DR = {"scale_by_std": False, "scale_by_length": False}


def vowels(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward that hardly two responses share, and that anything can learn."""
    return [5 * sum(letter in "aeiou" for letter in response) / max(len(response), 1) for response in responses]


@pytest.mark.parametrize("changes", [{}, DR], ids=["grpo", "dr_grpo"])
def test_updates_are_those_of_the_papers_loss(changes: dict[str, bool], policy: Policy, data: TLDR) -> None:
    """By hand, token by token: two epochs of two minibatches, so that ratios and KL are not those of the start."""
    prompts = data.prompts.select(range(4))
    config = GRPOConfig(
        num_steps=1,
        prompts_per_step=4,
        num_candidates=3,
        num_epochs=2,
        minibatch_size=2,
        kl_coef=0.7,
        clip_range=0.05,
        max_prompt_tokens=96,
        sampling=SamplingConfig(max_response_tokens=16, temperature=0.5),
        optimizer=STEADY,
        missing_eos_score=None,
        **changes,
    )
    trained = grpo(policy, vowels, prompts, config, run=Run(seed=3))

    network, run = copy_network(policy.network), Run(seed=3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0)
    asked = [prompts[row]["prompt"] for row in run.batch_rows(0, 4, 4)]
    models = Models(Frozen(policy.network), Frozen(policy.network), None, vowels)
    seen = collect(run, asked, models, policy.tokenizer, rng=run.rng("sampling", 0), **collecting(config))
    losses, clipped = [], 0
    for part in seen.minibatches(2, 2, slice(0, 2), run.rng("minibatches", 0)):
        logprobs, loss = candidate_logprobs(network, part, temperature=0.5), torch.zeros(())
        for prompt in range(2):
            scores = part.scores[prompt]
            for one in range(3):
                advantage = float(scores[one] - scores.mean())
                if not changes:
                    advantage /= float(scores.std()) + 1e-4
                length = int(part.response_mask[prompt, one].sum())
                for token in range(length):
                    now, old, ref = (
                        values[prompt, one, token] for values in (logprobs, part.old_logprobs, part.ref_logprobs)
                    )
                    ratio = torch.exp(now - old)
                    gain = torch.minimum(ratio * advantage, ratio.clamp(0.95, 1.05) * advantage)
                    clipped += int(gain < ratio * advantage - 1e-6)
                    kl = torch.exp(ref - now) - (ref - now) - 1
                    loss = loss - (gain - 0.7 * kl) / (16 if changes else length) / 6
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert clipped > 0
    assert trained.history[0]["grpo/policy_loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained.network.state_dict()[name], tensor, atol=2e-5, rtol=0)


def test_micro_batches_make_the_same_update(policy: Policy, data: TLDR) -> None:
    whole, parts = (
        grpo(policy, vowels, data.prompts, grpo_config("tiny"), num_steps=2, micro_batch_size=size, **SHORT)
        for size in (4, 1)
    )
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=2e-5, rtol=0.0)


def anothers(scores: torch.Tensor, *, scale_by_std: bool) -> torch.Tensor:
    return group_normalized(scores, scale_by_std=scale_by_std).roll(1, -1)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, DR], ids=["grpo", "dr_grpo"])
def test_grpo_earns_more_of_a_reward_that_it_can_learn(changes: dict[str, bool], policy: Policy, data: TLDR) -> None:
    gain = {}
    for name, advantages in (("own", group_normalized), ("another's", anothers)):
        settings = LEARNING | {"kl_coef": 0.0, "advantages": advantages} | changes
        history = grpo(policy, vowels, data.prompts, grpo_config("tiny"), **settings).history
        first, last = (sum(row["objective/score"] for row in rows) / 6 for rows in (history[:6], history[-6:]))
        gain[name] = last - first
    assert gain["own"] > 0.08
    assert gain["own"] > gain["another's"] + 0.12


@pytest.mark.slow
def test_the_kl_in_the_loss_holds_the_policy_back(policy: Policy, data: TLDR) -> None:
    kl = {}
    for kl_coef in (0.0, 5.0):
        history = grpo(policy, vowels, data.prompts, grpo_config("tiny"), **LEARNING, kl_coef=kl_coef).history
        kl[kl_coef] = sum(row["objective/kl"] for row in history[-4:]) / 4
    assert kl[5.0] < 0.5 * kl[0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, not 0"),
        ({"kl_coef": -0.1}, r"kl_coef must be 0 or more, not -0\.1"),
        ({"num_candidates": 1}, "num_candidates must be 2 or more, not 1"),
        ({"prompts_per_step": 6, "minibatch_size": 4}, r"prompts_per_step \(6\) must be a multiple"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRPOConfig(**settings)


def test_advantages_of_ones_own_train_and_wrong_ones_are_refused(policy: Policy, data: TLDR) -> None:
    calls = []

    def mine(scores: torch.Tensor, *, scale_by_std: bool) -> torch.Tensor:
        calls.append(scale_by_std)
        return group_normalized(scores, scale_by_std=scale_by_std)

    settings = SHORT | {"num_steps": 2}
    plain = grpo(policy, vowels, data.prompts, grpo_config("tiny"), **settings)
    again = grpo(policy, vowels, data.prompts, grpo_config("tiny"), **settings, advantages=mine)
    assert calls == [True, True]
    assert plain.history == again.history
    other = grpo(policy, vowels, data.prompts, grpo_config("tiny"), **settings, scale_by_std=False)
    assert other.history != plain.history
    with pytest.raises(ValueError, match=r"advantages .* must give one number for each response"):
        grpo(policy, vowels, data.prompts, grpo_config("tiny"), advantages=lambda scores, **_: scores.mean(-1))
