"""Networks and tokenizers: saved and loaded unchanged, copied apart, and refused with reasons."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rlhf_lab import models
from rlhf_lab.adapters import shared_copy
from rlhf_lab.data.batching import Candidates, check_tokenizer, encode_candidates
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.models import (
    MODEL_SIZES,
    PAD_TOKEN,
    Policy,
    RewardModel,
    copy_network,
    load_base,
    load_tokenizer,
    new_critic,
    new_policy,
    new_reward_model,
    without_dropout,
)
from rlhf_lab.scoring import candidate_scores
from tests.networks import architectures, random_network, seeded

TEXTS = ["My cat left the house.", "A dog!", "We were both in the wrong, my boss and I."]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(TEXTS, 300)


@pytest.fixture
def policy(tokenizer: PreTrainedTokenizerBase) -> Policy:
    return new_policy("small", tokenizer)


def policy_of(architecture: str, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int | None = None) -> Policy:
    size = vocabulary or len(tokenizer)
    network = random_network(architecture, vocab_size=size, eos_token_id=tokenizer.eos_token_id, pad_token_id=None)
    return Policy(network, tokenizer)


def centred(reward_model: RewardModel, offset: float) -> RewardModel:
    reward_model.network.config.score_offset = offset
    return reward_model


def some_candidates(tokenizer: PreTrainedTokenizerBase) -> Candidates:
    responses = [[" Gone.", " My cat and my boss."], [" I", " We left the house, both."]]
    return encode_candidates(tokenizer, TEXTS[:2], responses, max_prompt_tokens=64, max_response_tokens=64)


def scores_of(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    with torch.no_grad():
        return candidate_scores(network, some_candidates(tokenizer))


def assert_same_weights(one: PreTrainedModel, other: PreTrainedModel) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def memory(network: PreTrainedModel) -> set[int]:
    return {tensor.data_ptr() for tensor in [*network.parameters(), *network.buffers()]}


@architectures
def test_a_policy_is_the_same_after_saving_and_loading(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    policy = policy_of(architecture, tokenizer)
    policy.save(tmp_path / "new" / "policy")
    loaded = Policy.load(tmp_path / "new" / "policy")
    assert_same_weights(loaded.network, policy.network)
    ids = torch.tensor([tokenizer(TEXTS[2])["input_ids"]])
    torch.testing.assert_close(loaded.network(ids).logits, policy.network.eval()(ids).logits)
    assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert loaded.tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert (loaded.tokenizer.eos_token, loaded.tokenizer.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)


@architectures
def test_a_reward_model_is_the_same_after_saving_and_loading(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    reward_model = centred(new_reward_model(policy_of(architecture, tokenizer), generator=seeded()), 0.25)
    reward_model.save(tmp_path / "rm")
    loaded = RewardModel.load(tmp_path / "rm")
    assert_same_weights(loaded.network, reward_model.network)
    assert loaded.network.config.score_offset == 0.25
    torch.testing.assert_close(scores_of(loaded.network, loaded.tokenizer), scores_of(reward_model.network, tokenizer))


@architectures
def test_transformers_loads_a_saved_reward_model_and_scores_alike(
    architecture: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """By its own forward, padding with PAD; only the offset is ours to take off."""
    reward_model = centred(new_reward_model(policy_of(architecture, tokenizer), generator=seeded()), 0.25)
    reward_model.save(tmp_path / "rm")
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    candidates = some_candidates(tokenizer)
    texts = [
        {"input_ids": torch.cat([prompt[prompt_mask], response[mask]]).tolist()}
        for prompt, prompt_mask, group, masks in zip(*vars(candidates).values(), strict=True)
        for response, mask in zip(group, masks, strict=True)
    ]
    batch = tokenizer.pad(texts, padding_side="right", return_tensors="pt")
    assert not batch["attention_mask"].all()
    raw = network(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits.view(2, 2)
    torch.testing.assert_close(raw - 0.25, scores_of(reward_model.network, tokenizer), atol=1e-5, rtol=0)


def test_loading_takes_the_precision_asked_for(policy: Policy, tmp_path: Path) -> None:
    Policy(copy.deepcopy(policy.network).half(), policy.tokenizer).save(tmp_path / "half")
    assert Policy.load(tmp_path / "half").network.dtype == torch.float32
    assert Policy.load(tmp_path / "half", dtype=torch.bfloat16).network.dtype == torch.bfloat16


def test_a_save_that_fails_leaves_what_was_there(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.save(tmp_path / "policy")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(policy.tokenizer, "save_pretrained", full)
    for name in ("policy", "other"):
        with pytest.raises(OSError, match="no space left"):
            Policy(new_policy("small", policy.tokenizer, seed=1).network, policy.tokenizer).save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert_same_weights(Policy.load(tmp_path / "policy").network, policy.network)


def test_a_save_replaces_the_whole_folder(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "stale.txt").write_text("old")
    policy.save(tmp_path / "policy")
    assert not (tmp_path / "policy" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert_same_weights(Policy.load(tmp_path / "policy").network, policy.network)


@pytest.mark.parametrize("kind", [Policy, RewardModel])
@pytest.mark.parametrize("source", ["/no/such/folder", "nobody/no-such-model"])
def test_a_model_that_is_not_there_is_refused(kind: type[Policy] | type[RewardModel], source: str) -> None:
    with pytest.raises(ValueError, match=f"the model '{source}' could not be loaded .*: it is no folder"):
        kind.load(source)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="could not be loaded"):
        Policy.load(tmp_path)


def test_a_reward_model_with_several_labels_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = policy_of("llama", tokenizer).network.config
    config.num_labels = 3
    Policy(AutoModelForSequenceClassification.from_config(config), tokenizer).save(tmp_path / "classifier")
    with pytest.raises(ValueError, match="classifier has 3 labels; a reward model has 1"):
        RewardModel.load(tmp_path / "classifier")


def test_a_reward_model_of_others_has_no_offset(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = policy_of("llama", tokenizer).network.config
    config.num_labels = 1
    Policy(AutoModelForSequenceClassification.from_config(config), tokenizer).save(tmp_path / "rm")
    assert RewardModel.load(tmp_path / "rm").network.config.score_offset == 0


@pytest.mark.parametrize("pad_token", [None, "<eos>"])
def test_a_tokenizer_without_a_pad_of_its_own_gets_one(tmp_path: Path, pad_token: str | None) -> None:
    """Beyond the vocabulary, as with GPT-2, whose PAD is absent or set to EOS."""
    backend = Tokenizer(WordLevel({"<eos>": 0, "cat": 1, "dog": 2, "?": 3}, unk_token="?"))
    bare = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token=pad_token)
    with pytest.raises(ValueError, match=r"load it with rlhf_lab\.load_tokenizer"):
        check_tokenizer(bare)
    bare.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    check_tokenizer(loaded)
    assert (loaded.pad_token, loaded.pad_token_id, loaded.eos_token_id) == (PAD_TOKEN, 4, 0)
    assert loaded("dog")["input_ids"] == [2]


def test_a_tokenizer_with_a_pad_of_its_own_is_left_alone(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token == "<pad>"
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_a_tokenizer_without_eos_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no EOS token"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer could be loaded from"):
        load_tokenizer(tmp_path / "none")


def test_a_copy_to_train_shares_no_memory(policy: Policy) -> None:
    network = policy.network.requires_grad_(False).eval()
    before = copy.deepcopy(network.state_dict())
    twin = copy_network(network)
    assert_same_weights(twin, network)
    assert not memory(twin) & memory(network)
    assert {parameter.requires_grad for parameter in twin.parameters()} == {True}
    assert {parameter.requires_grad for parameter in network.parameters()} == {False}
    assert (twin.training, network.training) == (True, False)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.fill_(7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_copy_to_read_has_no_memory_of_its_own(policy: Policy) -> None:
    network = policy.network.train()
    twin = shared_copy(network)
    assert_same_weights(twin, network)
    assert {w.data_ptr() for w in twin.parameters()} == {w.data_ptr() for w in network.parameters()}
    assert {parameter.requires_grad for parameter in twin.parameters()} == {False}
    assert {parameter.requires_grad for parameter in network.parameters()} == {True}
    assert (twin.training, network.training) == (False, True)
    assert twin.config is not network.config


def test_a_copy_keeps_tied_embeddings_tied(policy: Policy) -> None:
    for copied in (shared_copy, copy_network):
        twin = copied(policy.network)
        assert twin.get_input_embeddings().weight is twin.get_output_embeddings().weight


def test_dropout_is_switched_off_in_network_and_config() -> None:
    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=1)
    noisy = AutoModelForCausalLM.from_config(config).train()
    ids = torch.arange(8)[None]
    assert not torch.equal(noisy(ids).logits, noisy(ids).logits)
    quiet = without_dropout(noisy)
    assert torch.equal(quiet(ids).logits, quiet(ids).logits)
    assert (quiet.config.attn_pdrop, quiet.config.embd_pdrop, quiet.config.resid_pdrop) == (0, 0, 0)


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_a_new_policy_has_the_shape_of_its_size(size: str, tokenizer: PreTrainedTokenizerBase) -> None:
    network = new_policy(size, tokenizer).network
    assert {name: getattr(network.config, name) for name in MODEL_SIZES[size]} == MODEL_SIZES[size]
    assert network.get_input_embeddings().weight.shape == (len(tokenizer), MODEL_SIZES[size]["hidden_size"])


def test_the_seed_alone_draws_a_new_policy(tokenizer: PreTrainedTokenizerBase) -> None:
    state = torch.get_rng_state()
    one = new_policy("small", tokenizer, seed=1).network
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert_same_weights(new_policy("small", tokenizer, seed=1).network, one)
    other = new_policy("small", tokenizer, seed=2).network
    assert not torch.equal(other.get_input_embeddings().weight, one.get_input_embeddings().weight)


def test_an_unknown_size_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="model size 'huge' is unknown; choose one of small, medium, large"):
        new_policy("huge", tokenizer)


@architectures
def test_a_new_reward_model_is_the_policy_with_a_drawn_head(
    architecture: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    policy = policy_of(architecture, tokenizer)
    before = copy.deepcopy(policy.network)
    network = new_reward_model(policy, generator=seeded(4)).network
    assert_same_weights(network.base_model, policy.network.base_model)
    assert_same_weights(policy.network, before)
    assert policy.network.config.to_dict() == before.config.to_dict()
    assert not memory(network) & memory(policy.network)
    expected = torch.randn(1, 16, generator=seeded(4)) / math.sqrt(17)
    torch.testing.assert_close(network.score.weight.detach(), expected)
    assert network.score.bias is None
    assert (network.config.num_labels, network.config.score_offset) == (1, 0)


def test_a_pad_beyond_the_embedding_is_made_room_for(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """As with GPT-2 and Pythia, whose tokenizers have no PAD: Transformers' own forward looks it up."""
    vocabulary = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    policy = policy_of("gpt_neox", tokenizer, vocabulary=vocabulary)
    reward_model = new_reward_model(policy, generator=seeded())
    weight = reward_model.network.get_input_embeddings().weight
    assert len(weight) == vocabulary + 1
    assert torch.equal(weight[:vocabulary], policy.network.get_input_embeddings().weight)
    reward_model.save(tmp_path / "rm")
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    ids = tokenizer(TEXTS[0])["input_ids"]
    alone, followed = (network(torch.tensor([ids + [tokenizer.pad_token_id] * count])).logits for count in (0, 3))
    torch.testing.assert_close(alone, followed)


def test_a_critic_starts_from_all_of_a_reward_model_or_from_a_policy_with_a_new_head(policy: Policy) -> None:
    reward_model = centred(new_reward_model(policy, generator=seeded(1)), 0.5)
    critic = new_critic(reward_model, generator=seeded(2))
    assert_same_weights(critic, reward_model.network)
    assert critic.config.score_offset == 0.5
    assert not memory(critic) & memory(reward_model.network)
    fresh = new_critic(policy, generator=seeded(2))
    assert_same_weights(fresh, new_reward_model(policy, generator=seeded(2)).network)
    assert not torch.equal(fresh.score.weight, critic.score.weight)


def test_the_base_of_a_scale_is_the_model_of_its_size(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.save(tmp_path / "small")
    monkeypatch.setattr(models, "checkpoint_folder", lambda: tmp_path)
    for name in ("tiny", "small"):
        assert_same_weights(load_base(name).network, policy.network)
    with pytest.raises(
        ValueError, match=r"medium holds no model; make one with: rlhf-lab pretrain --size medium --out DIR"
    ):
        load_base("medium")


def test_a_scale_for_which_no_base_ships_is_refused() -> None:
    with pytest.raises(ValueError, match="no base model ships for 'gpu'; give a folder or an id"):
        load_base("gpu")


@pytest.mark.parametrize("kind", [LlamaConfig, GPTNeoXConfig], ids=["llama", "neox"])
def test_dropout_that_a_module_keeps_as_a_number_is_off(kind: Any) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = AutoModelForCausalLM.from_config(kind(vocab_size=32, attention_dropout=0.5, **sizes))
    quiet = without_dropout(network).train()
    tokens = torch.arange(8)[None]
    assert torch.equal(quiet(tokens).logits, quiet(tokens).logits)
    assert quiet.config.attention_dropout == 0.0


def test_a_new_reward_model_leaves_the_global_generator_alone() -> None:
    tokenizer = train_tokenizer(["a few words for a tokenizer"] * 4, 300)
    before = torch.get_rng_state()
    new_reward_model(new_policy("small", tokenizer), generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
