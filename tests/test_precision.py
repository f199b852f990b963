"""bf16 beside fp32, within bounds that are stated here: on the CPU always, on a GPU with `make test-gpu`.

The bounds are about twice what the shipped models show on a CPU.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.batching import Candidates, encode_candidates
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.devices import check_precision
from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.memory import estimate_memory
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs, candidate_scores
from rlhf_lab.shipped import load_trained
from rlhf_lab.training import actor_critic
from rlhf_lab.training.ppo import ppo, ppo_config
from tests.capabilities import ROOT

MEAN_LOGPROB, LARGEST_LOGPROB = 0.03, 0.25  # nats a token
SCORE = 0.1  # standard deviations of the scores
COSINE = 0.995  # of the gradients
DATA = load_tldr(scale="tiny")

on_each = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
gpu = pytest.mark.gpu


def loaded(size: str, device: str) -> tuple[Policy, RewardModel]:
    policy, model = (load_trained(stage, size) for stage in ("supervised", "reward_model"))  # type: ignore[arg-type]
    for network in (policy.network, model.network):
        network.to(device).requires_grad_(True)
    return policy, model


def summaries(policy: Policy, device: str) -> Candidates:
    rows = DATA.validation.select(range(32))
    texts = [[text] for text in rows["completion"]]
    prompts = list(rows["prompt"])
    return encode_candidates(policy.tokenizer, prompts, texts, max_prompt_tokens=192, max_response_tokens=48).to(device)


def gradient(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])


@on_each
@pytest.mark.parametrize("size", ["small", "large"])
def test_bf16_stays_near_fp32(size: str, device: str) -> None:
    policy, model = loaded(size, device)
    texts = summaries(policy, device)
    seen = []
    for on in (False, True):
        policy.network.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=on):
            logprobs, scores = candidate_logprobs(policy.network, texts), candidate_scores(model.network, texts)
        assert logprobs.dtype == scores.dtype == torch.float32
        (-logprobs.sum() / texts.response_mask.sum()).backward()
        seen.append((logprobs.detach()[texts.response_mask], scores.detach(), gradient(policy.network).clone()))
    (exact, exact_scores, exact_gradient), (half, half_scores, half_gradient) = seen
    assert not torch.equal(exact, half)
    assert (exact - half).abs().mean() < MEAN_LOGPROB
    assert (exact - half).abs().max() < LARGEST_LOGPROB
    assert (exact_scores - half_scores).abs().max() < SCORE * exact_scores.std()
    assert torch.cosine_similarity(exact_gradient, half_gradient, dim=0) > COSINE


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """Accelerate has one precision a process, and keeps it."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def one_rollout(precision: str, **settings: Any) -> dict[str, float]:
    policy, model = loaded("small", "cpu")
    config = ppo_config("tiny")
    run = Run(mixed_precision=precision)
    return dict(ppo(policy, model, DATA.prompts, config, run=run, num_steps=1, **settings).history[0])


@on_each
@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=4)])
def test_before_the_first_update_policy_and_reference_are_one_in_bf16_too(device: str, lora: LoRAConfig | None) -> None:
    if torch.cuda.is_available() != (device == "cuda"):
        pytest.skip("runs take the GPU where there is one") if device == "cpu" else pytest.fail("no run on the GPU")
    row = one_rollout("bf16", lora=lora)
    # A reference in another precision than the policy would be some hundredths of a nat a token away.
    assert abs(row["objective/kl"]) < 1e-4
    assert row["ppo/approx_kl"] < 0.05


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_a_precision_that_is_not_ours_is_refused(precision: str) -> None:
    with pytest.raises(ValueError, match=f"mixed precision '{precision}' is not supported: .*; choose bf16, or no"):
        check_precision(precision, torch.device("cpu"))


@pytest.mark.parametrize(
    ("environment", "engine"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP of version 1"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP of version 1"),
    ],
)
def test_an_engine_that_is_not_ours_is_refused(
    environment: dict[str, str], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{engine} is not supported: .* .rlhf-lab launch --strategy fsdp2."):
        Run()


def test_a_precision_that_the_gpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    with pytest.raises(ValueError, match="Tesla V100 does not compute in bf16; choose the precision no, or a newer"):
        check_precision("bf16", torch.device("cuda"))


@gpu
def test_a_gpu_writes_and_trains_as_a_cpu_does() -> None:
    policy, _ = loaded("small", "cpu")
    config = SamplingConfig(max_response_tokens=24, temperature=0.0)
    prompts = list(DATA.validation["prompt"])[:8]
    here = generate(policy, prompts, config)
    there = generate(Policy(policy.network.to("cuda"), policy.tokenizer), prompts, config)
    assert sum(one == other for one, other in zip(here, there, strict=True)) >= 7  # A tie may fall either way.
    row = one_rollout("no")
    assert row["objective/kl"] == pytest.approx(0.0, abs=1e-4)


@gpu
@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=4)])
def test_a_gpus_memory_is_what_was_estimated(lora: LoRAConfig | None, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, model = loaded("large", "cpu")
    seen: list[float] = []
    monkeypatch.setattr(
        actor_critic, "check_memory", lambda *args, **settings: seen.append(estimate_memory(*args, **settings).total)
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    long = Dataset.from_dict({"prompt": [f"SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: {'my dog ' * 400}\n\nTL;DR:"] * 64})
    sizes = {"num_steps": 1, "prompts_per_step": 64, "minibatch_size": 64, "micro_batch_size": 64}
    ppo(policy, model, long, ppo_config("laptop"), run=Run(), lora=lora, **sizes)
    measured = torch.cuda.max_memory_allocated() - held
    assert 0.6 < seen[0] / measured < 1.8, (seen[0], measured)


@gpu
def test_two_processes_are_launched_on_gpus_or_refused() -> None:
    count = torch.cuda.device_count()
    command = [sys.executable, "-m", "rlhf_lab.cli", "launch", "--num-processes", str(count + 1), "--", "tldr"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2 and f"this machine has {count}" in done.stderr
