"""LoRA: the paper's sum by hand, the chain rule for its gradients, and one memory for all networks on a base."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.adapters import LoRAConfig, has_lora, merged, merged_weights, shared_copy, with_lora
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel, copy_network, new_critic, new_reward_model
from tests.networks import architectures, random_network, seeded

LORA = LoRAConfig(rank=3, alpha=6.0)
TOKENS = torch.arange(1, 13).view(2, 6)


def network_of(architecture: str = "llama") -> PreTrainedModel:
    return random_network(architecture, vocab_size=40, eos_token_id=0, pad_token_id=None)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["My cat left the house.", "A dog!"], 300)


@pytest.fixture
def policy(tokenizer: PreTrainedTokenizerBase) -> Policy:
    settings = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return Policy(random_network("llama", **settings), tokenizer)


def logits(network: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return network(TOKENS).logits


def moved(network: PreTrainedModel) -> PreTrainedModel:
    """As after some training: B is 0 at first, which would hide half of the mistakes."""
    generator = seeded(7)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    return network


def places(network: PreTrainedModel) -> set[int]:
    return {weight.data_ptr() for weight in network.parameters()}


def learning(network: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


@architectures
def test_a_new_adapter_changes_nothing_and_shares_every_weight(architecture: str) -> None:
    network = network_of(architecture)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    adapted = with_lora(network, LORA, rng=seeded(1))
    torch.testing.assert_close(logits(adapted), logits(network))
    assert places(network) < places(adapted)
    assert not has_lora(network) and all(weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    assert {"lora_" in name for name in learning(adapted)} == {True}


@architectures
def test_merged_is_the_same_function_on_weights_of_its_own(architecture: str) -> None:
    adapted = moved(with_lora(network_of(architecture), LORA, rng=seeded(1)))
    assert (logits(adapted) - logits(network_of(architecture))).abs().max() > 0.01
    whole = merged(adapted)
    torch.testing.assert_close(logits(whole), logits(adapted), atol=1e-5, rtol=1e-5)
    assert not has_lora(whole) and not places(whole) & places(adapted)
    assert whole.state_dict().keys() == network_of(architecture).state_dict().keys()
    one_by_one = dict(merged_weights(adapted))
    assert one_by_one.keys() == {name for name, _ in whole.named_parameters(remove_duplicate=False)}
    for name, weight in one_by_one.items():
        torch.testing.assert_close(weight, whole.get_parameter(name))
    assert has_lora(adapted)


def test_a_layer_by_hand() -> None:
    adapted = moved(with_lora(network_of(), LORA, rng=seeded(1)))
    layer = adapted.model.layers[0].self_attn.q_proj
    a, b, weight = layer.lora_A.default.weight, layer.lora_B.default.weight, layer.base_layer.weight
    assert a.shape == (3, 16) and b.shape == (16, 3)
    x = torch.randn(5, 16, generator=seeded(2))
    torch.testing.assert_close(layer(x), x @ weight.T + 6.0 / 3 * (x @ a.T) @ b.T)


def test_gradients_are_those_of_all_weights_by_the_chain_rule() -> None:
    adapted = moved(with_lora(network_of(), LORA, rng=seeded(1)))
    whole = copy_network(adapted)
    for network in (adapted, whole):
        network(TOKENS).logits.log_softmax(-1)[..., 5].sum().backward()
    for name, weight in whole.named_parameters():
        if not name.endswith("proj.weight"):
            continue
        layer = adapted.get_submodule(name.removesuffix(".weight"))
        a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
        torch.testing.assert_close(a.grad, 2.0 * b.T @ weight.grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(b.grad, 2.0 * weight.grad @ a.T, atol=1e-4, rtol=1e-4)
        assert layer.base_layer.weight.grad is None


def test_named_layers_only() -> None:
    adapted = with_lora(network_of(), LoRAConfig(rank=3, targets=("q_proj", "v_proj")), rng=seeded(1))
    assert {name.split(".")[4] for name in learning(adapted)} == {"q_proj", "v_proj"}
    # Two layers: q is 16 to 16, v is 16 to 8 (two of four heads), each with rank 3.
    assert sum(weight.numel() for weight in learning(adapted).values()) == 2 * 3 * ((16 + 16) + (16 + 8))


def test_the_seed_alone_draws_an_adapter() -> None:
    network = network_of()
    state = torch.get_rng_state()
    one, same, another = (learning(with_lora(network, LORA, rng=seeded(seed))) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, same[name]) for name, weight in one.items())
    assert not all(torch.equal(weight, another[name]) for name, weight in one.items())


def test_policy_reference_reward_and_critic_hold_one_base(policy: Policy) -> None:
    actor = with_lora(policy.network, LORA, rng=seeded(1))
    reward_model = new_reward_model(policy, generator=seeded(2), lora=LORA)
    moved(reward_model.network)
    critic = new_critic(reward_model, generator=seeded(3), lora=LORA)
    reference, reward = shared_copy(policy.network), shared_copy(reward_model.network)
    backbone = {weight.data_ptr() for weight in policy.network.model.parameters()}
    # PAD is no token of this network: a reward model has a row more, and so an embedding of its own.
    embedding = policy.network.get_input_embeddings().weight.data_ptr()
    for network in (actor, reference):
        assert backbone <= places(network)
    for network in (reward_model.network, critic, reward):
        assert backbone - {embedding} <= places(network)
    assert places(reward) == places(reward_model.network)
    ours, theirs = learning(critic), learning(reward_model.network)
    assert ours.keys() == theirs.keys() and "score.weight" in ours
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]) and weight.data_ptr() != theirs[name].data_ptr()


def test_an_adapter_is_of_fp32_on_any_base(policy: Policy) -> None:
    half = Policy(policy.network.bfloat16(), policy.tokenizer)
    model = new_reward_model(half, generator=seeded(2), lora=LORA)
    assert {weight.dtype for weight in learning(model.network).values()} == {torch.float32}
    assert model.network.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16


def test_saved_with_adapters_it_loads_without_peft(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = Policy(moved(with_lora(policy.network, LORA, rng=seeded(1))), policy.tokenizer)
    adapted.save(tmp_path / "policy")
    model = new_reward_model(policy, generator=seeded(2), lora=LORA)
    moved(model.network)
    model.save(tmp_path / "reward")
    monkeypatch.setitem(sys.modules, "peft", None)
    loaded, again = Policy.load(tmp_path / "policy"), RewardModel.load(tmp_path / "reward")
    torch.testing.assert_close(logits(loaded.network), logits(adapted.network), atol=1e-5, rtol=1e-5)
    texts = (["My cat", "A dog"], [" left.", " house!"])
    assert LearnedReward(again)(*texts) == pytest.approx(LearnedReward(model)(*texts), abs=1e-5)
    assert not has_lora(loaded.network) and not has_lora(again.network)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            LoRAConfig(targets=("q_proj", "query")),
            "LlamaModel has no linear layer 'query' for an adapter; it has down_",
        ),
        (LoRAConfig(targets=("lm_head",)), "no linear layer 'lm_head'"),
    ],
)
def test_a_target_that_matches_nothing(config: LoRAConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_lora(network_of(), config, rng=seeded(1))


def test_another_rank_than_the_adapters_that_are_there() -> None:
    adapted = with_lora(network_of(), LORA, rng=seeded(1))
    with pytest.raises(ValueError, match="has adapters of rank 3 already, which go on; give that rank instead of 8"):
        with_lora(adapted, LoRAConfig(rank=8), rng=seeded(1))


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"LoRA needs PEFT; install it with: pip install 'rlhf-lab\[large\]'"):
        with_lora(network_of(), LORA, rng=seeded(1))


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="rank must be at least 1, not 0"):
        LoRAConfig(rank=0)
    with pytest.raises(ValueError, match=r"alpha must be above 0, not -1\.0"):
        LoRAConfig(alpha=-1.0)
