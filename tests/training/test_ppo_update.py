"""PPO-ptx: the mix's gradient is added to PPO's own, at its weight, however the work is divided and interrupted."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.data.batching import encode_texts
from rlhf_lab.data.datasets import TLDR
from rlhf_lab.models import Policy, copy_network
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import Fit, OptimizerConfig, Term
from rlhf_lab.training.ppo import PPOConfig, ppo, ppo_config
from rlhf_lab.training.supervised import target_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def wordy(prompts: list[str], responses: list[str]) -> list[float]:
    return [min(len(response), 200) / 100 for response in responses]


def tune(policy: Policy, data: TLDR, run: Run | None = None, **settings: Any) -> Policy:
    texts = list(data.demonstrations["completion"])[:32]
    mix = {"pretraining": texts, "pretraining_coef": 0.5, "pretraining_rows": 4, "missing_eos_score": None}
    return ppo(policy, wordy, data.prompts, ppo_config("tiny"), run=run, **(mix | settings))


def test_a_step_on_two_terms_is_a_step_on_the_sum_of_their_means(policy: Policy, data: TLDR) -> None:
    """By hand: one loss of both means, and AdamW on its gradient."""
    texts = list(data.demonstrations["completion"])
    batches = [encode_texts(policy.tokenizer, part, max_tokens=24) for part in (texts[:3], texts[3:8])]
    config = OptimizerConfig(learning_rate=1e-3, schedule="constant", max_grad_norm=1e9)
    fit = Fit(Run(), copy_network(policy.network), config, num_updates=1)

    def loss(weight: float) -> Any:
        return lambda part, count: weight * fit(target_losses, part).sum() / count

    terms = [Term(batch, loss(w), batch.loss_mask[:, 1:]) for batch, w in zip(batches, (1.0, 3.0), strict=True)]
    found = fit.step_on(terms, micro_batch_size=2)
    plain = copy_network(policy.network)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0)
    means = [target_losses(plain, batch).mean() for batch in batches]
    (means[0] + 3 * means[1]).backward()
    optimizer.step()
    assert found == pytest.approx([means[0].item(), 3 * means[1].item()], rel=1e-5)
    for name, tensor in fit.trained().state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], atol=2e-5, rtol=0)


@pytest.mark.slow
def test_the_mix_keeps_its_texts_likely_and_resumes_to_the_same_bits(
    policy: Policy, data: TLDR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, log = tune(policy, data, Run(tmp_path / "whole", checkpoint_every=1)), Run.log

    def interrupt(run: Run, step: int, metrics: dict) -> None:
        log(run, step, metrics)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(policy, data, Run(tmp_path / "cut", checkpoint_every=1))
    monkeypatch.undo()
    again = tune(policy, data, Run(tmp_path / "cut", checkpoint_every=1))
    assert whole.history == again.history
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    losses = [row["ppo/pretraining_loss"] for row in whole.history]
    assert losses[-1] < losses[0]  # It is learnt, and at the start it is the policy's own loss.
    assert losses[0] == pytest.approx(8.0, rel=0.5)


def test_texts_and_their_weight_come_together(policy: Policy, data: TLDR) -> None:
    with pytest.raises(ValueError, match=r"there are 32 pretraining texts at a pretraining_coef of 0; give texts"):
        tune(policy, data, pretraining_coef=0.0)
    with pytest.raises(ValueError, match=r"there are 0 pretraining texts at a pretraining_coef of 0\.5"):
        tune(policy, data, pretraining=[])
    with pytest.raises(ValueError, match=r"pretraining_coef \(-1\.0\) must be 0 or more"):
        PPOConfig(pretraining_coef=-1.0)
