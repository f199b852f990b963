"""What PPO, A2C, RLOO and GRPO share besides their experience: networks to start with, and small parts of a loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lab.adapters import LoRAConfig, shared_copy
from rlhf_lab.data.batching import decode_responses
from rlhf_lab.feedback import Reward
from rlhf_lab.generation import Backend
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, RewardModel, new_critic, trainable
from rlhf_lab.runs import Run
from rlhf_lab.seams import checked
from rlhf_lab.training.experience import Experience, Models
from rlhf_lab.training.fit import Fit, Frozen, OptimizerConfig


@dataclass(frozen=True)
class Compared(Experience):
    """Experience with what each response is worth beside the others of its prompt."""

    advantages: Float[Tensor, "batch candidates"]


def new_models(
    stage: str,
    policy: Policy,
    reward: Reward | RewardModel,
    critic_from: object,
    run: Run,
    backend: Backend,
    optimizers: tuple[OptimizerConfig, OptimizerConfig],
    num_updates: int,
    largest: Texts,
    *,
    lora: LoRAConfig | None,
) -> tuple[Fit, Fit, Models]:
    """Policy and critic, which learn, and both among all who take part, on the run's device.

    Args:
        stage: Its name, for what is said of memory.
        policy: The start, and the reference; not changed.
        reward: A reward model, which is only read, or a function of texts.
        critic_from: The reward model that the critic starts from; anything else gives the policy a new head.
        run: Whose processes.
        backend: Who writes.
        optimizers: Of the policy and of the critic.
        num_updates: Length of their schedules.
        largest: Texts in memory at once.
        lora: Train adapters.
    """
    kind = {"lora": lora, "device": run.device}
    actor = trainable(policy.network, rng=run.rng("adapter"), **kind)
    start = critic_from if isinstance(critic_from, RewardModel) else policy
    critic = new_critic(start, generator=run.rng("critic"), **kind)
    learning = list(zip((actor, critic), optimizers, strict=True))
    (acting, valuing), models = _taking_part(stage, policy, reward, learning, run, backend, num_updates, largest)
    return acting, valuing, replace(models, critic=valuing)


def new_actor(
    stage: str,
    policy: Policy,
    reward: Reward | RewardModel,
    run: Run,
    backend: Backend,
    optimizer: OptimizerConfig,
    num_updates: int,
    largest: Texts,
    *,
    lora: LoRAConfig | None,
) -> tuple[Fit, Models]:
    """`new_models` of a stage without a critic: the policy, which learns, and all who take part."""
    actor = trainable(policy.network, lora, rng=run.rng("adapter"), device=run.device)
    learning = [(actor, optimizer)]
    (acting,), models = _taking_part(stage, policy, reward, learning, run, backend, num_updates, largest)
    return acting, models


def _taking_part(
    stage: str,
    policy: Policy,
    reward: Reward | RewardModel,
    learning: Sequence[tuple[PreTrainedModel, OptimizerConfig]],
    run: Run,
    backend: Backend,
    num_updates: int,
    largest: Texts,
) -> tuple[list[Fit], Models]:
    """The networks that learn, if they fit into memory, the actor first; and all who take part but for a critic."""
    if isinstance(reward, RewardModel):
        reward = RewardModel(shared_copy(reward.network).to(run.device), reward.tokenizer)  # type: ignore[arg-type]
    read = [policy.network] + ([reward.network] if isinstance(reward, RewardModel) else [])
    engine = backend.memory(policy.network, run.accelerator.mixed_precision)
    kinds = [(network, optimizer.kind) for network, optimizer in learning]
    recompute = check_memory(stage, kinds, read, largest, samples=not engine, engine=engine, **run.place)
    settings: dict[str, Any] = {"num_updates": num_updates, "recompute": recompute}
    fits = [Fit(run, network, optimizer, **settings) for network, optimizer in learning]
    reference = Frozen(shared_copy(policy.network).to(run.device))  # type: ignore[arg-type]
    return fits, Models(fits[0], reference, None, reward, backend)


def collecting(config: Any) -> dict[str, Any]:
    """What `collect` asks of the config of a stage that writes."""
    same = ("num_candidates", "sampling", "missing_eos_score", "max_prompt_tokens")
    return {name: getattr(config, name) for name in same} | {"batch_size": config.micro_batch_size}


def answered_at_once(config: Any, num_processes: int) -> Texts:
    """The largest micro-batch of prompts and responses in a process, by the config of a stage."""
    return Texts(
        rows=min(config.micro_batch_size, config.prompts_per_step // num_processes),
        prompt_tokens=config.max_prompt_tokens,
        response_tokens=config.sampling.max_response_tokens,
        num_candidates=config.num_candidates,
    )


def for_each_token(seam: str, equation: Callable[..., Tensor], own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`equation`, checked to give a number for each token."""
    # Not the first argument's shape: of `shaped_rewards` these are scores, one for each response.
    return checked(seam, equation, own, lambda _, second, *more: second.shape, "token")


def for_each_response(seam: str, equation: Callable[..., Tensor], own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`equation`, checked to give a number for each response."""
    return checked(seam, equation, own, lambda rewards: rewards.shape, "response")


def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
    """(batch candidates response) as (batch response), each candidate a row."""
    return tuple(tensor.flatten(0, 1) for tensor in tensors)


def keep_sample(run: Run, step: int, asked: list[str], batch: Experience, tokenizer: Any) -> None:
    """One answer of a step, so that a reader sees the policy change."""
    text = decode_responses(tokenizer, batch[:1])[0][0]
    run.keep_sample(step, {"prompt": asked[0], "response": text, "score": batch.scores[0, 0].item()})
