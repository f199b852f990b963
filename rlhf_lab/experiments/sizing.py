"""What the main job will need of memory, before it loads or downloads weights: its networks as shapes."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.generation import Backend, TransformersBackend
from rlhf_lab.memory import MemoryEstimate, estimate_memory
from rlhf_lab.models import (
    BASE_OF_SCALE,
    Policy,
    RewardModel,
    checkpoint_folder,
    load_tokenizer,
    new_critic,
    new_reward_model,
    trainable,
)
from rlhf_lab.runs import Run
from rlhf_lab.training.ppo import PPOConfig, ppo_config
from rlhf_lab.training.reward_model import RewardModelConfig, reward_model_config
from rlhf_lab.training.supervised import SFTConfig, sft_config


def memory_of_job(
    model: str | PretrainedConfig = "",
    scale: str = "gpu",
    *,
    lora: LoRAConfig | None = None,
    dtype: torch.dtype = torch.float32,
    mixed_precision: str | None = None,
    run: Run | None = None,
    backend: Backend | None = None,
    sft: SFTConfig | None = None,
    reward_model: RewardModelConfig | None = None,
    ppo: PPOConfig | None = None,
) -> list[MemoryEstimate]:
    """The estimates of supervised fine-tuning, the reward model and PPO.

    Args:
        model: Folder or id of a causal language model, of which the config and the tokenizer are read, or a config; by
            default the base that ships for this scale.
        scale: Whose presets; single stages' settings may be given.
        lora: Train adapters.
        dtype: In which the model will be loaded.
        mixed_precision: "no" or "bf16"; by default the run's.
        run: The device, the precision and the processes; by default this one's.
        backend: Who writes in PPO.
        sft: Settings of supervised fine-tuning.
        reward_model: Settings of the reward model.
        ppo: Settings of PPO.

    Raises:
        ValueError: There is no such model, or PEFT is needed and not installed.
    """
    run = run or Run()
    policy = _shapes(model or str(checkpoint_folder() / BASE_OF_SCALE.get(scale, "large")), dtype)
    supervised, comparing, tuning = (
        sft or sft_config(scale),
        reward_model or reward_model_config(scale),
        ppo or ppo_config(scale),
    )
    count, rng = run.accelerator.num_processes, run.rng("shapes")
    place: dict[str, Any] = {**run.place, **({"mixed_precision": mixed_precision} if mixed_precision else {})}
    scorer = new_reward_model(policy, generator=rng, lora=lora)
    learners = (
        ("supervised", trainable(policy.network, lora, rng=rng), supervised.optimizer, supervised.largest(count)),
        ("reward model", scorer.network, comparing.optimizer, comparing.largest(count)),
    )
    estimates = [
        estimate_memory(name, [(network, optimizer.kind)], [policy.network] if lora else [], texts, **place)
        for name, network, optimizer, texts in learners
    ]
    engine = (backend or TransformersBackend()).memory(policy.network, place["mixed_precision"])
    place |= {"samples": not engine, "engine": engine}
    return [*estimates, _of_ppo(policy, scorer, lora, tuning, count, place)]


def _of_ppo(
    policy: Policy,
    scorer: RewardModel,
    lora: LoRAConfig | None,
    config: PPOConfig,
    num_processes: int,
    place: Mapping[str, Any],
) -> MemoryEstimate:
    rng = torch.Generator()
    learning = [
        (trainable(policy.network, lora, rng=rng), config.optimizer.kind),
        (new_critic(scorer, generator=rng, lora=lora), config.critic_optimizer.kind),
    ]
    read, texts = [policy.network, scorer.network], config.largest(num_processes)
    return estimate_memory("ppo", learning, read, texts, **place)


def _shapes(model: str | PretrainedConfig, dtype: torch.dtype) -> Policy:
    config = _config(model) if isinstance(model, str) else model
    # Of a config's tokenizer nothing is asked but that its PAD is within the vocabulary.
    tokenizer = load_tokenizer(model if isinstance(model, str) else checkpoint_folder() / "small")
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config).to(dtype)
    return Policy(network, tokenizer)


def _config(model: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(model)
    except Exception as error:  # The Hub's client has a dozen errors for "not reached".
        raise ValueError(
            f"the model {model!r} could not be read ({type(error).__name__}): it is no folder with a model, and the "
            f"Hub has it not or was not reached; check the name and the network."
        ) from error
