"""Build, load, copy and save tokenizers, policies, critics and reward models. Dropout is off everywhere."""

import copy
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_lab.adapters import LoRAConfig, has_lora, merged, shared_copy, with_lora
from rlhf_lab.records import replace_folder

PAD_TOKEN = "[PAD]"
MODEL_SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2},
    "medium": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4},
    "large": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
}
"""Llama shapes of the base models that ship."""
BASE_OF_SCALE = {"tiny": "small", "laptop": "large"}


@dataclass(frozen=True)
class Policy:
    """A language model that writes: network, tokenizer, and the metrics of the training that made it."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: tuple[Mapping[str, Any], ...] = ()

    def save(self, folder: str | Path) -> None:
        """Write it as `from_pretrained` reads it, adapters merged; the folder appears whole or not at all."""
        _save(folder, self.network, self.tokenizer)

    @classmethod
    def load(cls, source: str | Path, *, dtype: torch.dtype = torch.float32) -> "Policy":
        """The causal language model in a folder or with an id on the Hub.

        Raises:
            ValueError: No such folder, no network for the id, or no such model.
        """
        network = _load(AutoModelForCausalLM, source, dtype=dtype)
        return cls(without_dropout(network), load_tokenizer(source))


@dataclass(frozen=True)
class RewardModel:
    """A network that gives a response one number, read at its EOS token.

    `network.config.score_offset` is what the references score on average; it is taken off, so that they are worth 0.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: tuple[Mapping[str, Any], ...] = ()

    def save(self, folder: str | Path) -> None:
        """Write it so that `AutoModelForSequenceClassification.from_pretrained` loads it, adapters merged."""
        _save(folder, self.network, self.tokenizer)

    @classmethod
    def load(cls, source: str | Path, *, dtype: torch.dtype = torch.float32) -> "RewardModel":
        """The reward model in a folder or with an id on the Hub.

        Raises:
            ValueError: No such folder, no network for the id, no such model, or one with several labels.
        """
        network = _load(AutoModelForSequenceClassification, source, dtype=dtype)
        if network.config.num_labels != 1:
            raise ValueError(f"{source} has {network.config.num_labels} labels; a reward model has 1.")
        network.config.score_offset = getattr(network.config, "score_offset", 0.0)
        return cls(without_dropout(network), load_tokenizer(source))


def _save(folder: str | Path, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        (merged(network) if has_lora(network) else network).save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.chmod(0o755)  # Temporary folders and their files are their owner's alone.
        for file in part.iterdir():
            file.chmod(0o644)
        replace_folder(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _load(kind: Any, source: str | Path, *, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return kind.from_pretrained(source, dtype=dtype)
    except Exception as error:  # the Hub's client has a dozen errors for "not reached"
        raise ValueError(
            f"the model {str(source)!r} could not be loaded ({type(error).__name__}): it is no folder "
            "with a model, and the Hub has it not or was not reached; check the name and the network."
        ) from error


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer with a PAD token that is not EOS; embeddings are not resized, since PAD never reaches a network.

    Raises:
        ValueError: It cannot be loaded, or has no EOS.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise ValueError(f"no tokenizer could be loaded from {str(source)!r} ({type(error).__name__}).") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {source} has no EOS token, so responses could not end; choose another model."
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return tokenizer


def without_dropout(network: PreTrainedModel) -> PreTrainedModel:
    """The same network with every dropout at 0, in its config too (else PPO's ratio is not 1 at first)."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        _clear_rates(module)
    _clear_rates(network.config)
    return network


def _clear_rates(owner: object) -> None:
    """Set the rates that an object keeps as plain numbers, such as GPT-NeoX's `attention_dropout`, to 0."""
    for name, value in list(vars(owner).items()):
        if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
            setattr(owner, name, 0.0)


def copy_network(network: PreTrainedModel) -> PreTrainedModel:
    """A network with the same weights, adapters merged, of which every one is ready to be trained."""
    copied = merged(network)
    copied.requires_grad_(True)
    return copied.train()


def trainable(
    network: PreTrainedModel,
    lora: LoRAConfig | None = None,
    *,
    rng: torch.Generator,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """What a stage trains: a copy of all weights, or an adapter on those of `network`.

    Args:
        network: Where to start; its numbers are not changed.
        lora: The adapter; `network` then goes to `device`, where its weights are shared.
        rng: Draws the adapter.
        device: Where the stage runs.
    """
    return with_lora(network.to(device), lora, rng=rng) if lora else copy_network(network)  # type: ignore[arg-type]


def check_size(size: str) -> None:
    """Refuse a model size that is not known.

    Raises:
        ValueError: Unknown size.
    """
    if size not in MODEL_SIZES:
        raise ValueError(f"model size {size!r} is unknown; choose one of {', '.join(MODEL_SIZES)}.")


def new_policy(size: str, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0) -> Policy:
    """A Llama-shaped policy with random weights.

    Args:
        size: small, medium or large.
        tokenizer: Fixes the vocabulary.
        seed: Draws the weights.

    Raises:
        ValueError: Unknown size.
    """
    check_size(size)
    config = LlamaConfig(
        # The default of 0.02 suits wide networks; narrow ones would need some hundred updates to outgrow it.
        initializer_range=MODEL_SIZES[size]["hidden_size"] ** -0.5,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=int(tokenizer.eos_token_id),  # pyright: ignore[reportArgumentType]
        pad_token_id=int(tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
        **MODEL_SIZES[size],  # pyright: ignore[reportArgumentType]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Policy(LlamaForCausalLM(config), tokenizer)


def new_reward_model(
    policy: Policy,
    *,
    generator: torch.Generator,
    lora: LoRAConfig | None = None,
    device: torch.device | None = None,
) -> RewardModel:
    """A reward model to train: the policy's backbone with a new head.

    The head's weights have standard deviation 1/sqrt(d + 1), and it has no bias. Huang et al. 2024, detail 11.

    Args:
        policy: Its backbone is copied; with `lora` it is shared.
        generator: Draws the head, and the adapter.
        lora: Train an adapter, and the head.
        device: Where the policy goes if its weights are shared.
    """
    start: PreTrainedModel = policy.network.to(device) if lora else policy.network  # type: ignore[arg-type]
    config = copy.deepcopy(start.config)
    config.num_labels = 1
    config.score_offset = 0.0
    config.pad_token_id = policy.tokenizer.pad_token_id
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(config).to(start.dtype)
    source = shared_copy(start) if lora else copy_network(start)
    # Its layers and the network go by one config: the attention is chosen there.
    backbone = copy.deepcopy(source.base_model, {id(source.config): config} | {id(w): w for w in source.parameters()})
    setattr(network, network.base_model_prefix, backbone)
    network.score.to_empty(device=start.device)
    weight = network.score.weight
    weight.data.copy_(torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5)
    pad: int = policy.tokenizer.pad_token_id  # type: ignore[assignment]
    if pad >= network.get_input_embeddings().num_embeddings:
        # Transformers' own forward, unlike ours, looks PAD up.
        network.resize_token_embeddings(pad + 1, mean_resizing=False)
    network = without_dropout(network)
    return RewardModel(with_lora(network, lora, rng=generator) if lora else network, policy.tokenizer)


def new_critic(
    start: RewardModel | Policy,
    *,
    generator: torch.Generator,
    lora: LoRAConfig | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """A critic: the reward model's network, or a new head on the policy's backbone. Huang et al. 2024, detail 22.

    The arguments are those of `new_reward_model`.
    """
    if isinstance(start, RewardModel):
        return trainable(start.network, lora, rng=generator, device=device)
    return new_reward_model(start, generator=generator, lora=lora, device=device).network.train()


def load_base(scale: str) -> Policy:
    """The pretrained model of the embedded world that ships for a scale (or by size: small, medium, large).

    Raises:
        ValueError: There is none for this scale.
    """
    size = BASE_OF_SCALE.get(scale, scale)
    if size not in MODEL_SIZES:
        raise ValueError(f"no base model ships for {scale!r}; give a folder or an id of a causal language model.")
    folder = checkpoint_folder() / size
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no model; make one with: rlhf-lab pretrain --size {size} --out DIR, and copy DIR/result "
            "there."
        )
    return Policy.load(folder)


def checkpoint_folder() -> Path:
    """Where the base models lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / "checkpoints"
    return installed if installed.is_dir() else package.parent / "data" / "checkpoints"
