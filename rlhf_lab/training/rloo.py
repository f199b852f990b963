"""RLOO: REINFORCE, with a prompt's other responses in the critic's place.

Differences from A2C:
- the whole response is one action, whose reward is its score minus the price of its KL, so no token is told apart;
- what was to be expected is the mean reward of the prompt's other responses, and not what a critic says: there is no
  second network to train, and K responses to a prompt are needed;
- advantages keep the rewards' unit, they are not whitened.
Differences from PPO besides: a rollout is used for one update by the policy that wrote it, so there is no ratio.

Reference: Ahmadian et al. 2024, arXiv:2402.14740.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import prompts_of
from rlhf_lab.equations.groups import leave_one_out
from rlhf_lab.equations.policy_gradient import policy_gradient_loss
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
    for_each_response,
    keep_sample,
    new_actor,
)
from rlhf_lab.training.experience import collect, means_of
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class RLOOConfig:
    """RLOO; responses, rate and penalty of the defaults are those of `PPOConfig`, four responses to a prompt."""

    num_steps: int = 1953
    """Rollouts collected, each followed by one update."""
    prompts_per_step: int = 128
    """Prompts in a rollout, over all processes."""
    num_candidates: int = 4
    """K: responses sampled for each prompt, which are compared with each other; 2 or more."""
    micro_batch_size: int = 16
    """Prompts in memory at once, in each process."""
    evaluate_every: int = 50
    """Steps from one look at the held-out prompts to the next."""
    max_prompt_tokens: int = 512
    kl_coef: float = 0.05
    """beta: price of one nat of KL(policy || reference), in reward units."""
    missing_eos_score: float | None = -1.0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(schedule="linear"))
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, which the reference shares."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.num_candidates < 2:
            raise ValueError(
                f"num_candidates must be 2 or more, not {self.num_candidates}: a response is compared with the others."
            )
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1, not {self.evaluate_every}.")
        if self.kl_coef < 0:
            raise ValueError(f"kl_coef must be 0 or more, not {self.kl_coef}: a negative one would pay for drift.")

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process."""
        return answered_at_once(self, num_processes)


def rloo_config(scale: str) -> RLOOConfig:
    """The preset of a scale: as many responses and updates as `ppo_config`'s, at its penalty."""
    laptop = RLOOConfig(
        num_steps=88,
        prompts_per_step=4,
        evaluate_every=12,
        max_prompt_tokens=192,
        kl_coef=0.4,
        sampling=SamplingConfig(max_response_tokens=48, temperature=0.5),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="linear", warmup_fraction=0.05, final_fraction=0.1),
    )
    tiny = configured(laptop, None, {"num_steps": 4, "evaluate_every": 3})
    return {"tiny": tiny, "laptop": laptop, "gpu": RLOOConfig()}[check_scale(scale)]


def rloo(
    policy: Policy,
    reward: Reward | RewardModel,
    prompts: Dataset,
    config: RLOOConfig | None = None,
    *,
    watch: Mapping[str, Reward] | None = None,
    held_out: Dataset | None = None,
    run: Run | None = None,
    backend: Backend | None = None,
    advantages: Callable[..., Tensor] = leave_one_out,
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
        advantages: From the rewards of a prompt's responses to their advantages, called as `leave_one_out` is; an
            exercise's own goes here.

    Returns:
        The tuned policy, with the metrics of every step in its history.

    Raises:
        ValueError: What `ppo` refuses, or advantages that are not one finite number for each response.
    """
    config = configured(RLOOConfig(), config, overrides)
    run = run or Run()
    mine = run.share(config.prompts_per_step)
    advantages = for_each_response("advantages", advantages, leave_one_out)
    texts, held_out_texts = prompts_of(prompts), prompts_of(held_out) if held_out is not None else []
    tokenizer = policy.tokenizer
    size, writer = config.largest(run.accelerator.num_processes), backend or TransformersBackend()
    actor, models = new_actor(
        "rloo", policy, reward, run, writer, config.optimizer, config.num_steps, size, lora=config.lora
    )

    for step in run.steps(config.num_steps, {"actor": actor}, name="rloo"):
        asked = [texts[row] for row in run.batch_rows(step, len(texts), config.prompts_per_step)]
        experience = collect(run, asked, models, tokenizer, rng=run.rng("sampling", step), **collecting(config))
        metrics = means_of(experience, "objective", asked, tokenizer, kl_coef=config.kl_coef, watch=watch)
        if held_out_texts and (step % config.evaluate_every == 0 or step + 1 == config.num_steps):
            answers = collect(run, held_out_texts, models, tokenizer, rng=run.rng("held_out"), **collecting(config))
            metrics |= means_of(answers, "held_out", held_out_texts, tokenizer, kl_coef=config.kl_coef, watch=watch)
        rewards = experience.scores - config.kl_coef * experience.kl
        batch = Compared(**vars(experience), advantages=advantages(rewards))
        run.log(step, metrics | _update(actor, batch[mine], config))
        keep_sample(run, step, asked, batch, tokenizer)
    return Policy(actor.trained(), tokenizer, tuple(run.history))  # type: ignore[arg-type]


def _update(actor: Fit, rows: Compared, config: RLOOConfig) -> dict[str, float]:
    """One update of the policy on the whole rollout."""
    every_response = torch.ones_like(rows.finished)

    def loss(part: Compared, count: float) -> Tensor:
        logprobs = actor(candidate_logprobs, part, temperature=config.sampling.temperature).sum(-1)
        return policy_gradient_loss(logprobs, part.advantages).sum() / count

    rate = actor.learning_rate
    value = actor.step(rows, loss, counted=every_response, micro_batch_size=config.micro_batch_size)
    return {"rloo/learning_rate": rate, "rloo/policy_loss": value}
