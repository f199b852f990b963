"""A2C with a KL penalty: PPO without the ratio.

Differences from PPO:
- each rollout is used for one update, by the policy that wrote it, so there is no ratio and nothing to clip;
- the critic's error is not clipped either;
- an entropy bonus may keep the policy from settling too early; the KL penalty mostly does;
- an update costs a rollout, so for as many updates the rollouts are smaller.
Experience, reward and networks are the same (`experience`, `actor_critic`).

Reference: Mnih et al. 2016, arXiv:1602.01783; for language models Glaese et al. 2022 (Sparrow), arXiv:2209.14375.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import prompts_of
from rlhf_lab.equations.policy_gradient import policy_gradient_loss, value_error
from rlhf_lab.equations.sequence import masked_mean
from rlhf_lab.feedback import Reward
from rlhf_lab.generation import Backend, SamplingConfig, TransformersBackend
from rlhf_lab.memory import Texts
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_logprobs, candidate_logprobs_and_entropies, candidate_values
from rlhf_lab.training.actor_critic import (
    answered_at_once,
    collecting,
    flat,
    for_each_token,
    keep_sample,
    new_models,
)
from rlhf_lab.training.experience import Training, collect, means_of, with_advantages
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class A2CConfig:
    """A2C; batch and rate are those of Menick et al. 2022 (GopherCite, arXiv:2203.11147), the rest is PPO's."""

    num_steps: int = 62_500
    """Rollouts collected, each followed by one update: as many responses as PPO's."""
    prompts_per_step: int = 16
    """Prompts in a rollout, over all processes."""
    num_candidates: int = 1
    """Responses sampled for each prompt."""
    micro_batch_size: int = 64
    """Prompts in memory at once, in each process."""
    evaluate_every: int = 1600
    """Steps from one look at the held-out prompts to the next."""
    max_prompt_tokens: int = 512
    kl_coef: float = 0.05
    """beta: price of one nat of KL(policy || reference), in reward units."""
    entropy_coef: float = 0.0
    """Worth of one nat of entropy of a token, in whitened advantages. Mnih et al. 2016 take 0.01, without a penalty."""
    missing_eos_score: float | None = -1.0
    gae_lambda: float = 0.95
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-6, schedule="linear"))
    critic_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-6, schedule="linear")
    )
    lora: LoRAConfig | None = None
    """Train adapters on the frozen weights of policy and reward model, which reference and reward share."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1, not {self.evaluate_every}.")
        if self.kl_coef < 0 or self.entropy_coef < 0:
            raise ValueError(
                f"kl_coef ({self.kl_coef}) and entropy_coef ({self.entropy_coef}) must be 0 or more: a negative one "
                f"would pay for drift, or for certainty."
            )

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process."""
        return answered_at_once(self, num_processes)


def a2c_config(scale: str) -> A2CConfig:
    """The preset of a scale: as many responses and updates as `ppo_config`'s, at its rates."""
    rate = OptimizerConfig(learning_rate=1e-4, schedule="linear", warmup_fraction=0.05, final_fraction=0.1)
    critic_rate = OptimizerConfig(learning_rate=1e-3, schedule="linear", final_fraction=0.1)
    laptop = A2CConfig(
        num_steps=88,
        prompts_per_step=4,
        num_candidates=4,
        evaluate_every=12,
        max_prompt_tokens=192,
        kl_coef=0.4,
        gae_lambda=1.0,
        sampling=SamplingConfig(max_response_tokens=48, temperature=0.5),
        optimizer=rate,
        critic_optimizer=critic_rate,
    )
    tiny = configured(laptop, None, {"num_steps": 4, "prompts_per_step": 4, "evaluate_every": 3})
    return {"tiny": tiny, "laptop": laptop, "gpu": A2CConfig()}[check_scale(scale)]


def a2c(  # noqa: PLR0913 - two are equations
    policy: Policy,
    reward: Reward | RewardModel,
    prompts: Dataset,
    config: A2CConfig | None = None,
    *,
    critic_from: RewardModel | None = None,
    watch: Mapping[str, Reward] | None = None,
    held_out: Dataset | None = None,
    run: Run | None = None,
    backend: Backend | None = None,
    policy_loss: Callable[..., Tensor] = policy_gradient_loss,
    critic_loss: Callable[..., Tensor] = value_error,
    **overrides: Any,
) -> Policy:
    """A policy that earns more `reward`, at a price for leaving where it started.

    Args:
        policy: The start, and the reference of the KL penalty; not changed.
        reward: A reward model, or any function `(prompts, responses) -> scores`.
        prompts: Rows with `prompt`, or a list of `Prompt` or of texts.
        config: Settings; `overrides` replace single fields.
        critic_from: Reward model that the critic starts from; by default `reward`, if it is one.
        watch: Further rewards that are logged by their names and never trained on, such as the gold judge.
        held_out: Prompts that are never trained on, and answered every `config.evaluate_every` steps, as in `ppo`.
        run: Where to log and to keep checkpoints.
        backend: Who writes in the policy's place, such as `VLLMBackend()`; by default its network does.
        policy_loss: The policy's loss of each token, called as `policy_gradient_loss` is; an exercise's own goes here.
        critic_loss: The critic's loss of each token, called as `value_error` is.

    Returns:
        The tuned policy, with the metrics of every step in its history.

    Raises:
        ValueError: What `ppo` refuses.
    """
    config = configured(A2CConfig(), config, overrides)
    run = run or Run()
    mine = run.share(config.prompts_per_step)
    policy_loss = for_each_token("policy_loss", policy_loss, policy_gradient_loss)
    critic_loss = for_each_token("critic_loss", critic_loss, value_error)
    texts, held_out_texts = prompts_of(prompts), prompts_of(held_out) if held_out is not None else []
    tokenizer = policy.tokenizer
    optimizers = (config.optimizer, config.critic_optimizer)
    size, writer = config.largest(run.accelerator.num_processes), backend or TransformersBackend()
    actor, critic, models = new_models(
        "a2c", policy, reward, critic_from or reward, run, writer, optimizers, config.num_steps, size, lora=config.lora
    )
    lookers = replace(models, critic=None)

    for step in run.steps(config.num_steps, {"actor": actor, "critic": critic}, name="a2c"):
        asked = [texts[row] for row in run.batch_rows(step, len(texts), config.prompts_per_step)]
        experience = collect(run, asked, models, tokenizer, rng=run.rng("sampling", step), **collecting(config))
        metrics = means_of(experience, "objective", asked, tokenizer, kl_coef=config.kl_coef, watch=watch)
        if held_out_texts and (step % config.evaluate_every == 0 or step + 1 == config.num_steps):
            answers = collect(run, held_out_texts, lookers, tokenizer, rng=run.rng("held_out"), **collecting(config))
            metrics |= means_of(answers, "held_out", held_out_texts, tokenizer, kl_coef=config.kl_coef, watch=watch)
        batch = with_advantages(experience, kl_coef=config.kl_coef, discount=1.0, gae_lambda=config.gae_lambda)
        losses = _update(actor, critic, batch[mine], policy_loss, critic_loss, config)
        run.log(step, metrics | losses | {"a2c/explained_variance": batch.explained_variance})
        keep_sample(run, step, asked, batch, tokenizer)
    return Policy(actor.trained(), tokenizer, tuple(run.history))  # type: ignore[arg-type]


def _update(
    actor: Fit,
    critic: Fit,
    rows: Training,
    policy_loss: Callable[..., Tensor],
    critic_loss: Callable[..., Tensor],
    config: A2CConfig,
) -> dict[str, float]:
    """One update of the policy and one of the critic, on the whole rollout."""

    def actor_loss(part: Training, count: float) -> Tensor:
        if config.entropy_coef:
            logprobs, entropies = actor(candidate_logprobs_and_entropies, part, temperature=config.sampling.temperature)
        else:
            logprobs = actor(candidate_logprobs, part, temperature=config.sampling.temperature)
            entropies = logprobs.new_zeros(logprobs.shape)
        terms = policy_loss(*flat(logprobs, part.advantages)) - config.entropy_coef * flat(entropies)[0]
        return masked_mean(terms, flat(part.response_mask)[0], count)

    def value_loss(part: Training, count: float) -> Tensor:
        terms = critic_loss(*flat(critic(candidate_values, part), part.returns))
        return masked_mean(terms, flat(part.response_mask)[0], count)

    shared = {"counted": rows.response_mask, "micro_batch_size": config.micro_batch_size}
    return {
        "a2c/learning_rate": actor.learning_rate,
        "a2c/policy_loss": actor.step(rows, actor_loss, **shared),  # type: ignore[arg-type]
        "a2c/value_loss": critic.step(rows, value_loss, **shared),  # type: ignore[arg-type]
    }
