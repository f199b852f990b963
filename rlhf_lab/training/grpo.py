"""GRPO: PPO with a prompt's other responses in the critic's place, and the KL in the loss.

Differences from PPO:
- all tokens of a response have one advantage, its score beside those of its prompt's other responses, in standard
  deviations of the group; there is no critic;
- the KL penalty is no part of the reward but a term of the loss, in its k3 estimate, so that it is not compared among
  responses either; its gradient is that of KL(reference || policy), the other direction;
- tokens are averaged within each response first, so that those of a long one count less.
Differences from RLOO: all three, and the clipped ratio, by which a rollout may be used for several updates.

Dr. GRPO leaves out the division by the standard deviation (`scale_by_std`) and that by the length (`scale_by_length`).

Reference: Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, eq. 3; Liu et al. 2025 (Dr. GRPO), arXiv:2503.20783.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import prompts_of
from rlhf_lab.equations.groups import group_normalized
from rlhf_lab.equations.policy_gradient import clipped_surrogate
from rlhf_lab.equations.sequence import kl_k3, masked_mean
from rlhf_lab.feedback import Reward
from rlhf_lab.generation import Backend, SamplingConfig, TransformersBackend
from rlhf_lab.memory import Texts
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.training.actor_critic import (
    Compared,
    answered_at_once,
    collecting,
    flat,
    for_each_response,
    keep_sample,
    new_actor,
)
from rlhf_lab.training.experience import collect, means_of
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """GRPO; group, batch, rate and penalty are those of DeepSeekMath, as many responses as PPO's."""

    num_steps: int = 977
    """Rollouts collected, each followed by updates."""
    prompts_per_step: int = 16
    """Prompts in a rollout, over all processes."""
    num_candidates: int = 64
    """K: responses sampled for each prompt, which are compared with each other; 2 or more."""
    num_epochs: int = 1
    minibatch_size: int = 16
    """Prompts in an update, over all processes."""
    micro_batch_size: int = 1
    """Prompts in memory at once, in each process."""
    evaluate_every: int = 25
    """Steps from one look at the held-out prompts to the next."""
    max_prompt_tokens: int = 512
    kl_coef: float = 0.04
    """beta: weight of a token's KL in the loss, where a score is worth one in its group's standard deviations."""
    missing_eos_score: float | None = -1.0
    clip_range: float = 0.2
    scale_by_std: bool = True
    """Advantages in standard deviations of their group; False in Dr. GRPO."""
    scale_by_length: bool = True
    """A response's tokens are averaged; False in Dr. GRPO divides by `sampling.max_response_tokens` instead."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-6, schedule="constant"))
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, which the reference shares."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.num_candidates < 2:
            raise ValueError(
                f"num_candidates must be 2 or more, not {self.num_candidates}: a response is compared with the others."
            )
        if self.prompts_per_step % self.minibatch_size:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) must be a multiple of minibatch_size "
                f"({self.minibatch_size})."
            )
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1, not {self.evaluate_every}.")
        if self.kl_coef < 0:
            raise ValueError(f"kl_coef must be 0 or more, not {self.kl_coef}: a negative one would pay for drift.")

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process."""
        return answered_at_once(self, num_processes)


def grpo_config(scale: str) -> GRPOConfig:
    """The preset of a scale: as many responses and updates as `ppo_config`'s."""
    laptop = GRPOConfig(
        num_steps=22,
        num_candidates=4,
        minibatch_size=4,
        micro_batch_size=64,
        evaluate_every=3,
        max_prompt_tokens=192,
        kl_coef=0.4,
        sampling=SamplingConfig(max_response_tokens=48, temperature=0.5),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="linear", warmup_fraction=0.05, final_fraction=0.1),
    )
    tiny = configured(laptop, None, {"num_steps": 4, "prompts_per_step": 4, "minibatch_size": 2})
    return {"tiny": tiny, "laptop": laptop, "gpu": GRPOConfig()}[check_scale(scale)]


def grpo(
    policy: Policy,
    reward: Reward | RewardModel,
    prompts: Dataset,
    config: GRPOConfig | None = None,
    *,
    watch: Mapping[str, Reward] | None = None,
    held_out: Dataset | None = None,
    run: Run | None = None,
    backend: Backend | None = None,
    advantages: Callable[..., Tensor] = group_normalized,
    **overrides: Any,
) -> Policy:
    """A policy that earns more `reward`, at a price for leaving where it started.

    Args:
        policy: The start, and the reference of the KL penalty; not changed.
        reward: A reward model, or any function `(prompts, responses) -> scores`.
        prompts: Rows with `prompt`, or a list of `Prompt` or of texts.
        config: Settings; `overrides` replace single fields.
        watch: Further rewards that are logged by their names and never trained on, such as the gold judge.
        held_out: Prompts that are never trained on, and answered every `config.evaluate_every` steps, as in `ppo`.
        run: Where to log and to keep checkpoints.
        backend: Who writes in the policy's place, such as `VLLMBackend()`; by default its network does.
        advantages: From the scores of a prompt's responses to their advantages, called as `group_normalized` is; an
            exercise's own goes here.

    Returns:
        The tuned policy, with the metrics of every step in its history.

    Raises:
        ValueError: What `ppo` refuses, or advantages that are not one finite number for each response.
    """
    config = configured(GRPOConfig(), config, overrides)
    run = run or Run()
    mine = run.share(config.minibatch_size)  # What does not divide is refused before anything is sampled.
    advantages = for_each_response("advantages", advantages, group_normalized)
    texts, held_out_texts = prompts_of(prompts), prompts_of(held_out) if held_out is not None else []
    tokenizer = policy.tokenizer
    updates = config.num_steps * config.num_epochs * (config.prompts_per_step // config.minibatch_size)
    size, writer = config.largest(run.accelerator.num_processes), backend or TransformersBackend()
    actor, models = new_actor("grpo", policy, reward, run, writer, config.optimizer, updates, size, lora=config.lora)

    for step in run.steps(config.num_steps, {"actor": actor}, name="grpo"):
        asked = [texts[row] for row in run.batch_rows(step, len(texts), config.prompts_per_step)]
        experience = collect(run, asked, models, tokenizer, rng=run.rng("sampling", step), **collecting(config))
        metrics = means_of(experience, "objective", asked, tokenizer, kl_coef=config.kl_coef, watch=watch)
        if held_out_texts and (step % config.evaluate_every == 0 or step + 1 == config.num_steps):
            answers = collect(run, held_out_texts, models, tokenizer, rng=run.rng("held_out"), **collecting(config))
            metrics |= means_of(answers, "held_out", held_out_texts, tokenizer, kl_coef=config.kl_coef, watch=watch)
        worth = advantages(experience.scores, scale_by_std=config.scale_by_std)
        batch, order = Compared(**vars(experience), advantages=worth), run.rng("minibatches", step)
        losses = [
            _update(actor, rows, config)
            for rows in batch.minibatches(config.num_epochs, config.minibatch_size, mine, order)
        ]
        run.log(step, metrics | {name: sum(row[name] for row in losses) / len(losses) for name in losses[0]})
        keep_sample(run, step, asked, batch, tokenizer)
    return Policy(actor.trained(), tokenizer, tuple(run.history))  # type: ignore[arg-type]


def _update(actor: Fit, rows: Compared, config: GRPOConfig) -> dict[str, float]:
    """One update of the policy on a minibatch."""
    every_response = torch.ones_like(rows.finished)

    def loss(part: Compared, count: float) -> Tensor:
        logprobs, old_logprobs, ref_logprobs, mask = flat(
            actor(candidate_logprobs, part, temperature=config.sampling.temperature),
            part.old_logprobs,
            part.ref_logprobs,
            part.response_mask,
        )
        advantages = part.advantages.flatten().unsqueeze(-1).expand_as(logprobs)
        terms = clipped_surrogate(logprobs, old_logprobs, advantages, clip_range=config.clip_range)
        terms = terms + config.kl_coef * kl_k3(logprobs, ref_logprobs)
        length = mask.sum(-1, keepdim=True) if config.scale_by_length else config.sampling.max_response_tokens
        return masked_mean(terms / length, mask, count)

    rate = actor.learning_rate
    value = actor.step(rows, loss, counted=every_response, micro_batch_size=config.micro_batch_size)
    return {"grpo/learning_rate": rate, "grpo/policy_loss": value}
