"""LoRA: few trained numbers on frozen weights, which any number of networks share.

PEFT puts the adapters into the layers, so a network with adapters is of the class that it was, and is read as before.
Policy, reference, critic and reward are then four adapters of one base: its weights are in memory once.

Reference: Hu et al. 2021, arXiv:2106.09685.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_MARK = "lora_"
"""In the names of an adapter's weights."""


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """What is trained instead of a weight W: W + (alpha / rank) B A, where B starts at 0."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()
    """Ends of the names of the linear layers that get an adapter, such as q_proj; none means all of the
    backbone, which it takes to learn as full training does (Dettmers et al. 2023, arXiv:2305.14314, section 4)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, not {self.rank}.")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, not {self.alpha}.")


def has_lora(network: nn.Module) -> bool:
    """Whether there are adapters in it."""
    return any(_MARK in name for name, _ in network.named_parameters())


def shared_copy(network: PreTrainedModel) -> PreTrainedModel:
    """A frozen network of its own on the same memory; nothing is copied, and adapters are shared too."""
    same = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in network.parameters()}
    return copy.deepcopy(network, same).eval()


def with_lora(network: PreTrainedModel, config: LoRAConfig, *, rng: torch.Generator) -> PreTrainedModel:
    """A network to train, on the frozen weights of `network`, which it shares.

    Adapters that `network` has already, and the head of a reward model, are copied, and the copies go on. So a critic
    starts as the reward model that it comes from. What is trained is kept in fp32: it is the sum of many small updates.

    Args:
        network: A policy's, or a reward model's; not changed.
        config: Rank, scale and layers of new adapters.
        rng: Draws A.

    Raises:
        ValueError: PEFT is not installed, no layer has such a name, or the adapters that are there have another rank.
    """
    trained = shared_copy(network)
    if has_lora(network):
        _check_rank(trained, config)
    else:
        _inject(trained.base_model, config, rng)  # type: ignore[arg-type]
    for name, module in trained.named_modules():
        for own, weight in list(module.named_parameters(recurse=False)):
            if _MARK in name or name == "score":
                setattr(module, own, nn.Parameter(weight.detach().to(torch.float32, copy=True)))
    return trained.train()


def merged(network: PreTrainedModel) -> PreTrainedModel:
    """A network of the same outputs without adapters, on weights of its own."""
    whole = copy.deepcopy(network)
    if not has_lora(network):
        return whole
    from peft.tuners.lora import LoraLayer

    for name, layer in list(whole.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()  # type: ignore[attr-defined]
            parent, _, own = name.rpartition(".")
            setattr(whole.get_submodule(parent), own, layer.get_base_layer())  # type: ignore[operator]
    vars(whole.base_model).pop("peft_config", None)
    return whole


def merged_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of the network that `merged` would make, one by one: no second network is in memory."""
    for name, weight in network.named_parameters(remove_duplicate=False):
        if _MARK in name:
            continue
        owner, base, own = name.rpartition("base_layer.")
        if base and own == "weight":
            weight = weight + network.get_submodule(owner.removesuffix(".")).get_delta_weight("default")  # type: ignore[operator]
        yield (owner + own).replace("_checkpoint_wrapped_module.", ""), weight.detach()


def _inject(backbone: nn.Module, config: LoRAConfig, rng: torch.Generator) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("LoRA needs PEFT; install it with: pip install 'rlhf-lab[large]'.") from error
    _check_targets(backbone, config.targets)
    asked = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        target_modules=list(config.targets) or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.initial_seed())
        inject_adapter_in_model(asked, backbone)


def _check_targets(backbone: nn.Module, targets: tuple[str, ...]) -> None:
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    ends = {name.rpartition(".")[2] for name in linear}
    if unknown := [target for target in targets if target.rpartition(".")[2] not in ends]:
        raise ValueError(
            f"{type(backbone).__name__} has no linear layer {unknown[0]!r} for an adapter; it has "
            f"{', '.join(sorted(ends))}."
        )


def _check_rank(network: nn.Module, config: LoRAConfig) -> None:
    ranks = {weight.shape[0] for name, weight in network.named_parameters() if "lora_A" in name}
    if ranks != {config.rank}:
        raise ValueError(
            f"the network has adapters of rank {', '.join(map(str, sorted(ranks)))} already, which go on; give that "
            f"rank instead of {config.rank}, or merge them first (rlhf_lab.adapters.merged)."
        )
