"""PPO with a KL penalty: a policy that earns reward without forgetting how to write.

Differences from REINFORCE with a baseline:
- the reward of a token is the price of its drift from the reference, plus the score on the last one;
- a critic, started from the reward model, predicts what is still to come; GAE makes advantages of it;
- each rollout is used for several updates, so the ratio to the policy that sampled is clipped;
- policy and critic are two networks with an optimizer each.

Reference: Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022, arXiv:2203.02155, eq. 2; details of
Huang et al. 2024, arXiv:2403.17031.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import prompts_of
from rlhf_lab.equations.policy_gradient import (
    adaptive_kl_coef,
    clipped_surrogate,
    clipped_value_error,
    gae,
    kl_shaped_rewards,
)
from rlhf_lab.feedback import Reward
from rlhf_lab.generation import Backend, SamplingConfig, TransformersBackend
from rlhf_lab.memory import Texts
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.training.actor_critic import answered_at_once, collecting, for_each_token, keep_sample, new_models
from rlhf_lab.training.experience import collect, means_of, with_advantages
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ppo_update import PretrainingText, update


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """PPO; the defaults are Huang et al. 2024's (arXiv:2403.17031, details 20 to 25)."""

    num_steps: int = 1953
    """Rollouts collected, each followed by updates."""
    prompts_per_step: int = 512
    """Prompts in a rollout, over all processes."""
    num_candidates: int = 1
    """Responses sampled for each prompt."""
    num_epochs: int = 4
    minibatch_size: int = 512
    """Prompts in an update, over all processes."""
    micro_batch_size: int = 64
    """Prompts in memory at once, in each process."""
    evaluate_every: int = 50
    """Steps from one look at the held-out prompts to the next."""
    max_prompt_tokens: int = 512
    kl_coef: float = 0.05
    """beta: price of one nat of KL(policy || reference), in reward units. Ouyang et al. 2022, eq. 2."""
    kl_target: float | None = None
    """Nats to which the coefficient is steered; None keeps it fixed. Ziegler et al. 2019."""
    missing_eos_score: float | None = -1.0
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    gae_lambda: float = 0.95
    pretraining_coef: float = 0.0
    """gamma_ptx: weight of the pretraining text's loss. Ouyang et al. 2022, eq. 2. Ours is the mean over the update's
    text tokens, beside the surrogate's mean over response tokens; their 27.8 weighs an expectation over whole texts."""
    pretraining_rows: int = 16
    """Pretraining texts in an update, over all processes."""
    max_pretraining_tokens: int = 192
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(schedule="linear"))
    critic_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(schedule="linear"))
    lora: LoRAConfig | None = None
    """Train adapters on the frozen weights of policy and reward model, which reference and reward share."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.prompts_per_step % self.minibatch_size:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) must be a multiple of minibatch_size "
                f"({self.minibatch_size})."
            )
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1, not {self.evaluate_every}.")
        if self.kl_coef < 0:
            raise ValueError(f"kl_coef must be 0 or more, not {self.kl_coef}: a negative one would pay for drift.")
        if self.pretraining_coef < 0 or self.pretraining_rows < 1:
            raise ValueError(
                f"pretraining_coef ({self.pretraining_coef}) must be 0 or more and pretraining_rows "
                f"({self.pretraining_rows}) at least 1."
            )

    @property
    def how_to_update(self) -> dict[str, Any]:
        """How to `update` on a minibatch."""
        return {
            "clip_range": self.clip_range,
            "value_clip_range": self.value_clip_range,
            "temperature": self.sampling.temperature,
            "micro_batch_size": self.micro_batch_size,
        }

    @property
    def mix(self) -> dict[str, Any]:
        """How to mix pretraining text in."""
        return {
            "weight": self.pretraining_coef,
            "rows": self.pretraining_rows,
            "max_tokens": self.max_pretraining_tokens,
        }

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process."""
        answered = answered_at_once(self, num_processes)
        read = min(self.micro_batch_size, self.pretraining_rows // num_processes) if self.pretraining_coef else 0
        mixed_in = Texts(rows=read, prompt_tokens=1, response_tokens=self.max_pretraining_tokens - 1)
        return max(answered, mixed_in, key=lambda texts: texts.rows * texts.tokens)


def ppo_config(scale: str) -> PPOConfig:
    """The preset of a scale."""
    rate = OptimizerConfig(learning_rate=1e-4, schedule="linear", warmup_fraction=0.05, final_fraction=0.1)
    # The reward model knows nothing of unfinished texts: the critic has much to learn, and few steps for it.
    critic_rate = OptimizerConfig(learning_rate=1e-3, schedule="linear", final_fraction=0.1)
    laptop = PPOConfig(
        num_steps=22,
        prompts_per_step=16,
        num_candidates=4,
        num_epochs=1,
        minibatch_size=4,
        evaluate_every=3,
        max_prompt_tokens=192,
        kl_coef=0.4,
        gae_lambda=1.0,  # until the critic is good, what it expects is no better than what came
        sampling=SamplingConfig(max_response_tokens=48, temperature=0.5),
        optimizer=rate,
        critic_optimizer=critic_rate,
    )
    tiny = configured(laptop, None, {"num_steps": 4, "prompts_per_step": 4, "minibatch_size": 2})
    return {"tiny": tiny, "laptop": laptop, "gpu": PPOConfig(micro_batch_size=16)}[check_scale(scale)]


@dataclass
class _KLPrice:
    """The KL coefficient; moves only if there is a target."""

    value: float
    target: float | None

    def follow(self, kl: float, num_responses: int) -> None:
        if self.target is not None:
            self.value = adaptive_kl_coef(self.value, kl, target=self.target, num_steps=num_responses)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def ppo(  # noqa: PLR0913 - four are equations
    policy: Policy,
    reward: Reward | RewardModel,
    prompts: Dataset,
    config: PPOConfig | None = None,
    *,
    critic_from: RewardModel | None = None,
    watch: Mapping[str, Reward] | None = None,
    held_out: Dataset | None = None,
    pretraining: Sequence[str] = (),
    run: Run | None = None,
    backend: Backend | None = None,
    surrogate: Callable[..., Tensor] = clipped_surrogate,
    advantages: Callable[..., Tensor] = gae,
    shaped_rewards: Callable[..., Tensor] = kl_shaped_rewards,
    value_error: Callable[..., Tensor] = clipped_value_error,
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
        held_out: Prompts like `prompts`, never trained on. Every `config.evaluate_every` steps and at the last one the
            policy answers them, and what is logged of a rollout is logged of these answers too (as `held_out/NAME`).
            The prompts and the random numbers are the same each time: what changes is the policy.
        pretraining: Texts that are read beside the responses, so that the policy does not forget them (PPO-ptx), at the
            weight `config.pretraining_coef`.
        run: Where to log and to keep checkpoints.
        backend: Who writes in the policy's place, such as `VLLMBackend()`; by default its network does.
        surrogate: The policy's loss of each token, called as `clipped_surrogate` is; an exercise's own goes here.
        advantages: The advantage estimator, called as `gae` is.
        shaped_rewards: From the scores of responses to the rewards of tokens, called as `kl_shaped_rewards` is.
        value_error: The critic's loss of each token, called as `clipped_value_error` is.

    Returns:
        The tuned policy, with the metrics of every step in its history.

    Raises:
        ValueError: No prompts, a reward that raises or is not finite, a config field that does not exist, or an
            equation that does not give one finite number for each token.
    """
    config = configured(PPOConfig(), config, overrides)
    run = run or Run()
    run.share(config.minibatch_size)  # What does not divide is refused before anything is sampled.
    mixed_in = PretrainingText(run=run, tokenizer=policy.tokenizer, texts=pretraining, **config.mix)
    shaped_rewards = for_each_token("shaped_rewards", shaped_rewards, kl_shaped_rewards)
    advantages = for_each_token("advantages", advantages, gae)
    surrogate = for_each_token("surrogate", surrogate, clipped_surrogate)
    value_error = for_each_token("value_error", value_error, clipped_value_error)
    texts, held_out_texts = prompts_of(prompts), prompts_of(held_out) if held_out is not None else []
    tokenizer = policy.tokenizer
    updates = config.num_steps * config.num_epochs * (config.prompts_per_step // config.minibatch_size)
    optimizers = (config.optimizer, config.critic_optimizer)
    size, writer = config.largest(run.accelerator.num_processes), backend or TransformersBackend()
    actor, critic, models = new_models(
        "ppo", policy, reward, critic_from or reward, run, writer, optimizers, updates, size, lora=config.lora
    )
    lookers = replace(models, critic=None)
    price = _KLPrice(config.kl_coef, config.kl_target)

    for step in run.steps(config.num_steps, {"actor": actor, "critic": critic, "price": price}, name="ppo"):
        asked = [texts[row] for row in run.batch_rows(step, len(texts), config.prompts_per_step)]
        experience = collect(run, asked, models, tokenizer, rng=run.rng("sampling", step), **collecting(config))
        metrics = means_of(experience, "objective", asked, tokenizer, kl_coef=price.value, watch=watch)
        if held_out_texts and (step % config.evaluate_every == 0 or step + 1 == config.num_steps):
            # Before the updates: both means are of the same policy.
            answers = collect(run, held_out_texts, lookers, tokenizer, rng=run.rng("held_out"), **collecting(config))
            metrics |= means_of(answers, "held_out", held_out_texts, tokenizer, kl_coef=price.value, watch=watch)
        batch = with_advantages(
            experience,
            kl_coef=price.value,
            discount=1.0,
            gae_lambda=config.gae_lambda,
            shaped_rewards=shaped_rewards,
            estimator=advantages,
        )
        losses = [
            update(actor, critic, rows, mixed_in, surrogate, value_error, **config.how_to_update)
            for rows in batch.minibatches(
                config.num_epochs, config.minibatch_size, run.share(config.minibatch_size), run.rng("minibatches", step)
            )
        ]
        run.log(step, metrics | _means(losses) | {"ppo/explained_variance": batch.explained_variance})
        keep_sample(run, step, asked, batch, tokenizer)
        price.follow(batch.kl.mean().item(), config.prompts_per_step * config.num_candidates)
    return Policy(actor.trained(), tokenizer, tuple(run.history))  # type: ignore[arg-type]


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
