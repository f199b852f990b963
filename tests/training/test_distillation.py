"""Context distillation: the loss is the KL to the policy in context, whatever is cut, and the student comes to it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.data.datasets import TLDR
from rlhf_lab.equations.sequence import distillation_loss
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy
from rlhf_lab.runs import Run
from rlhf_lab.training.distillation import (
    DistillationConfig,
    context_kl,
    distill_context,
    divergences,
    read_in_context,
)
from rlhf_lab.training.fit import OptimizerConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CONTEXT = "Sorry, no. "
CONFIG = DistillationConfig(
    num_steps=4,
    batch_size=4,
    max_prompt_tokens=96,
    sampling=SamplingConfig(max_response_tokens=6, temperature=1.0),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant"),
)


def state_of(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}


def test_the_loss_is_the_kl_of_plain_forward_passes(policy: Policy, data: TLDR) -> None:
    """Each text read alone by Transformers' own forward, with the context's tokens before the prompt's and without."""
    prompts = list(data.prompts["prompt"])[:3]
    batch = read_in_context(policy, CONTEXT, prompts, torch.rand(3, 1, 6), CONFIG)
    found = divergences(policy.network, batch, policy.network)
    ids = policy.tokenizer(CONTEXT, add_special_tokens=False)["input_ids"]
    assert isinstance(ids, list)
    expected = []
    for row in range(3):
        prompt = batch.prompt[row][batch.prompt_mask[row]]
        response = batch.responses[row, 0][batch.response_mask[row, 0]]
        before = torch.tensor(ids)
        assert batch.context_prompt[row][batch.context_prompt_mask[row]].tolist() == [*ids, *prompt.tolist()]
        plain, prompted = (
            policy.network(torch.cat([*parts, response])[None]).logits[0, -len(response) - 1 : -1]
            for parts in ([prompt], [before, prompt])
        )
        expected.append(distillation_loss(plain, prompted))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)
    assert found.min() > 0


def test_given_responses_are_what_is_compared(policy: Policy, data: TLDR) -> None:
    prompts, texts = list(data.prompts["prompt"])[:2], [" My cat left.", " No."]
    batch = read_in_context(policy, CONTEXT, prompts, torch.rand(2, 1, 6), CONFIG, texts)
    (first, second), eos = batch.responses[:, 0], policy.tokenizer.eos_token_id
    assert first.tolist() == policy.tokenizer(texts[0])["input_ids"][:6]
    assert second[batch.response_mask[1, 0]].tolist() == [*policy.tokenizer(texts[1])["input_ids"], eos]


def test_an_interrupted_distillation_ends_with_the_same_bits(
    policy: Policy, data: TLDR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(policy)

    def stage(run: Run, **settings: Any) -> Policy:
        return distill_context(policy, CONTEXT, data.prompts, CONFIG, run=run, **settings)

    whole, log = stage(Run(tmp_path / "whole", checkpoint_every=1)), Run.log

    def interrupt(run: Run, step: int, metrics: dict) -> None:
        log(run, step, metrics)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage(Run(tmp_path / "cut", checkpoint_every=1))
    monkeypatch.undo()
    again = stage(Run(tmp_path / "cut", checkpoint_every=1))
    assert whole.history == again.history
    for name, tensor in state_of(whole).items():
        assert torch.equal(tensor, state_of(again)[name]), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(policy).items())
    parts = stage(Run(), micro_batch_size=1)
    assert [row["distillation/kl"] for row in parts.history] == pytest.approx(
        [row["distillation/kl"] for row in whole.history], rel=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [None, 64])
def test_the_student_comes_to_the_prompted_teacher(top_k: int | None, policy: Policy, data: TLDR) -> None:
    """A context that an untrained policy reads like any other text: the gap is small, and closes all the same."""
    posts, held_out = list(data.prompts["prompt"]), list(data.validation["prompt"])[:32]
    student = distill_context(policy, CONTEXT, posts, CONFIG, num_steps=60, batch_size=16, top_k=top_k)
    before, after = (context_kl(one, policy, CONTEXT, held_out, CONFIG) for one in (policy, student))
    assert after < 0.5 * before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": " "}, "context must be text that is not empty"),
        ({"responses": [" A."]}, r"there are 1 responses to 2 prompts; give one for each, or none"),
        ({"top_k": 10_000}, r"top_k \(10000\) must be smaller than the vocabulary \(\d+\)"),
        ({"top_k": 0}, "top_k must be at least 1, or None for the whole vocabulary, not 0"),
        ({"num_steps": 0}, r"num_steps \(0\) and batch_size \(4\) must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str, policy: Policy) -> None:
    with pytest.raises(ValueError, match=message):
        distill_context(policy, **({"context": CONTEXT, "prompts": ["a", "b"], "config": CONFIG} | settings))
