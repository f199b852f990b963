"""The estimate of memory: its parts by hand, its whole against a process that is watched, and its refusals."""

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab import devices, memory
from rlhf_lab.adapters import LoRAConfig, shared_copy, with_lora
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.memory import MemoryEstimate, Texts, check_memory, estimate_memory
from rlhf_lab.models import Policy, new_policy
from rlhf_lab.training.ppo import ppo
from rlhf_lab.training.supervised import sft
from tests.capabilities import ROOT
from tests.networks import architectures, random_network, seeded

CPU = torch.device("cpu")
TEXTS = Texts(rows=4, prompt_tokens=20, response_tokens=6, num_candidates=2)


def llama(**settings: Any) -> PreTrainedModel:
    """On the meta device: it may be as large as one likes."""
    shape = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(LlamaConfig(**shape | {"vocab_size": 1000} | settings))


def estimate(network: PreTrainedModel, kind: str = "adamw", **settings: Any) -> MemoryEstimate:
    given = {"device": CPU, "frozen": [], "texts": TEXTS} | settings
    return estimate_memory("sft", [(network, kind)], **given)


def test_parts_by_hand() -> None:
    network = llama()
    # Embeddings and head, three layers of attention, feed-forward and two norms, a last norm.
    count = 2 * 1000 * 64 + 3 * (4 * 64 * 64 + 3 * 64 * 160 + 2 * 64) + 64
    parts = estimate(network).parts
    assert parts["weights"] == parts["gradients"] == 4 * count
    assert parts["moments"] == 8 * count
    assert parts["overhead"] == pytest.approx(0.1 * (16 * count + parts["activations"]))
    assert estimate(network, "adamw_8bit").parts["moments"] == pytest.approx(2.03 * count)
    assert estimate(network, num_shards=4).parts["weights"] == count


def test_an_adapter_has_gradients_and_moments_and_its_base_has_none() -> None:
    base = llama()
    adapted = with_lora(base, LoRAConfig(rank=2), rng=seeded())
    count = 3 * 2 * (4 * (64 + 64) + 3 * (64 + 160))
    parts = estimate(adapted, frozen=[base, shared_copy(base)]).parts
    assert parts["gradients"] == 4 * count and parts["moments"] == 8 * count
    assert parts["weights"] == 4 * (count + sum(weight.numel() for weight in base.parameters()))
    apart = estimate(adapted, frozen=[copy.deepcopy(base)]).parts
    assert apart["weights"] > 1.9 * parts["weights"]


@architectures
def test_activations_are_what_the_backward_of_a_real_micro_batch_keeps(architecture: str) -> None:
    network = random_network(architecture, vocab_size=40, eos_token_id=0, pad_token_id=None)
    kept: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage()
        if place.data_ptr() not in weights:
            kept[place.data_ptr()] = place.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = network(torch.zeros(4, 32, dtype=torch.long), use_cache=False).logits[:, -13:-1].log_softmax(-1)
    predicted = estimate(network).parts["activations"]
    assert held.requires_grad and 0.8 < predicted / sum(kept.values()) < 1.25


def test_what_grows_with_what() -> None:
    def activations(**more: Any) -> float:
        return estimate(llama(), texts=Texts(**vars(TEXTS) | more)).parts["activations"]

    assert activations(rows=8) == pytest.approx(2 * activations(), rel=0.01)
    assert activations(num_candidates=4) > activations() < activations(prompt_tokens=40)
    half = estimate(llama(), mixed_precision="bf16", texts=Texts(rows=64, prompt_tokens=20, response_tokens=6))
    whole = estimate(llama(), texts=Texts(rows=64, prompt_tokens=20, response_tokens=6))
    assert half.parts["activations"] < 0.85 * whole.parts["activations"]


def test_chunks_of_logits_cost_sums_of_the_heads_gradient_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    network = llama(vocab_size=5000)
    head = network.get_output_embeddings().weight

    def activations() -> float:
        return estimate(network).parts["activations"]

    whole = activations()
    monkeypatch.setattr(memory, "targets_at_once", lambda network: 2)
    chunked = activations()
    head.requires_grad_(False)
    without = activations()
    assert chunked - without == pytest.approx(3 * head.nbytes, rel=0.02)
    num_targets = TEXTS.rows * TEXTS.num_candidates * TEXTS.response_tokens
    # Log-probs are kept, and as much again is counted for their gradient; of both the share of a chunk is left.
    assert whole - without == pytest.approx(2 * 4 * 5000 * (num_targets - 2), rel=0.1)


def test_keys_and_values_by_hand() -> None:
    many = Texts(rows=2, prompt_tokens=5, response_tokens=5000)
    adapted = with_lora(llama(vocab_size=10), LoRAConfig(rank=1), rng=seeded())
    adapted.requires_grad_(False)  # Nothing to update: writing is the worst moment.
    parts = estimate(adapted, texts=many, samples=True).parts
    logits = 3 * 2 * 10 * 4
    assert parts["activations"] == 2 * 5005 * 3 * 2 * 64 * 4 + logits


def test_what_does_not_fit_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 4e9)
    large = llama(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=16)
    with pytest.raises(ValueError, match=r"^sft needs about 19\.\d\d GB \(weights 4\.\d\d, moments 8\.") as refusal:
        check_memory("sft", [(large, "adamw")], [], TEXTS, device=CPU)
    assert str(refusal.value).endswith(
        "of 4.0 GB on cpu; train an adapter (lora), or take 8-bit moments (kind of the optimizer); or load the "
        "networks in bf16, or share them among more processes (fsdp2)."
    )
    check_memory("sft", [(llama(), "adamw")], [], TEXTS, device=CPU)


def test_what_fits_with_activations_computed_again_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network, many = llama(num_hidden_layers=12), Texts(**vars(TEXTS) | {"rows": 64})
    plain = estimate(network, texts=many)
    assert plain.recomputed == plain.parts and not plain.recomputes
    monkeypatch.setattr(memory, "available_memory", lambda device: 0.9 * plain.total)
    tight = estimate(network, texts=many)
    assert tight.recomputes and tight.parts == plain.parts
    # Twelve inputs of layers, a twelfth of what the layers keep otherwise, and what the head keeps.
    inputs, head = 64 * 32 * 64 * 4, 64 * 12 * 1000 * 4
    assert 12 * inputs + head < tight.recomputed["activations"] < 0.5 * tight.parts["activations"]
    with pytest.warns(
        UserWarning, match=r"^sft needs .* GB; 0\.\d\d GB with activations computed again, as they will be"
    ):
        assert check_memory("sft", [(network, "adamw")], [], many, device=CPU)
    monkeypatch.setattr(memory, "available_memory", lambda device: 0.9 * sum(tight.recomputed.values()))
    with pytest.raises(ValueError, match=r"^sft needs"):
        check_memory("sft", [(network, "adamw")], [], many, device=CPU)


def test_many_texts_are_the_micro_batchs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 20e6)
    with pytest.raises(ValueError, match=r"; lower micro_batch_size \(now 512\); or "):
        check_memory("sft", [(llama(), "adamw")], [], Texts(**vars(TEXTS) | {"rows": 512}), device=CPU)


def test_a_network_that_looks_at_its_numbers_is_counted_without_activations() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.device("meta"):
        experts = AutoModelForCausalLM.from_config(MixtralConfig(vocab_size=100, num_local_experts=4, **shape))
    with pytest.warns(UserWarning, match="MixtralForCausalLM cannot be run as shapes .* lacks its activations"):
        parts = estimate(experts).parts
    assert parts["activations"] == 0 and parts["weights"] == 4 * sum(weight.numel() for weight in experts.parameters())


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["My cat left the house.", "A dog!"], 300)


def test_stages_refuse_before_they_start(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    policy: Policy = new_policy("small", tokenizer)
    monkeypatch.setattr(memory, "available_memory", lambda device: 1e6)
    rows = Dataset.from_list([{"prompt": "My cat", "completion": " left."}])
    with pytest.raises(ValueError, match=r"^sft needs about .* of 0\.0 GB on cpu; "):
        sft(policy, rows, batch_size=1)
    with pytest.raises(ValueError, match=r"^ppo needs about .* of 0\.0 GB on cpu; "):
        ppo(policy, lambda prompts, responses: [0.0] * len(prompts), rows, prompts_per_step=1, minibatch_size=1)


def test_a_container_has_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.Path, "exists", lambda path: True)
    monkeypatch.setattr(devices.Path, "read_text", lambda path: "1000000\n")
    assert devices.available_memory(CPU) == 1e6
    monkeypatch.setattr(devices.Path, "read_text", lambda path: "max\n")
    assert devices.available_memory(CPU) > 1e8


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("how", ["", "lora", "recompute", "lora recompute"])
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_process_that_is_watched_takes_what_was_estimated(stage: str, how: str) -> None:
    command = [sys.executable, "-m", "tests.memory_process", stage, *how.split()]
    # Freed memory goes back at once, so that what is held can be seen.
    returned = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | returned)
    assert done.returncode == 0, done.stderr[-3000:]
    measured, estimated = map(float, done.stdout.split())
    assert 0.8 < estimated / measured < 1.25, (measured, estimated)
