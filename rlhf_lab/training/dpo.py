"""DPO: the policy that a reward model and PPO would be aiming for, straight from the comparisons.

Differences from training a reward model:
- the score of an answer is how much likelier the policy makes it than the reference does, so the policy itself is
  trained, and there is no head and no constant to fix afterwards;
- `kl_coef` is the price of drift of the objective whose optimum is fitted, as in PPO; here it scales the score.
Differences from PPO: nothing is sampled, there is no critic, and the answers are those that were compared.

Of its variants are here IPO, whose loss wants a margin that is not too large either, and labels that are taken to be
wrong now and then (label smoothing, conservative DPO).

Reference: Rafailov et al. 2023, arXiv:2305.18290; Azar et al. 2023, arXiv:2310.12036.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig, shared_copy
from rlhf_lab.data.datasets import comparisons_of
from rlhf_lab.equations.preference import bradley_terry_loss, implicit_reward, ipo_loss
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, trainable
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.seams import checked
from rlhf_lab.training.fit import Fit, OptimizerConfig
from rlhf_lab.training.rankings import (
    LabeledCandidates,
    agreement,
    element_losses,
    encode_rankings,
    rankings_of,
)


@dataclass(frozen=True, kw_only=True)
class DPOConfig:
    """DPO; the defaults are the baseline of Huang et al. 2024 (arXiv:2403.17031, appendix)."""

    num_epochs: float = 1.0
    batch_size: int = 64
    """Prompts in an update, over all processes."""
    micro_batch_size: int | None = None
    max_prompt_tokens: int = 512
    max_response_tokens: int = 169
    kl_coef: float = 0.05
    """beta: price of one nat of KL(policy || reference), in units of the reward that explains the choices."""
    loss: str = "sigmoid"
    """sigmoid: DPO's own, the Bradley-Terry loss of implicit rewards. ipo: a squared error, whose best margin is
    1 / (2 kl_coef) nats at most (Azar et al. 2023)."""
    label_smoothing: float = 0.0
    """epsilon: share of the labels that are taken to be wrong, in [0, 0.5); above 0 it is conservative DPO."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, instead of all of them."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be meant."""
        if self.num_epochs <= 0 or self.batch_size < 1:
            raise ValueError(f"num_epochs ({self.num_epochs}) and batch_size ({self.batch_size}) must be above 0.")
        if self.kl_coef <= 0:
            raise ValueError(
                f"kl_coef must be above 0, not {self.kl_coef}: without a price of drift no policy is best."
            )
        if self.loss not in ("sigmoid", "ipo"):
            raise ValueError(f"the loss {self.loss!r} is unknown; choose sigmoid or ipo.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing must lie in [0, 0.5), not {self.label_smoothing}: where half of the labels are wrong "
                f"they say nothing."
            )

    @property
    def pair_loss(self) -> Callable[..., Tensor]:
        """The loss of a pair that `loss` names, from both implicit rewards."""
        return partial(ipo_loss, kl_coef=self.kl_coef) if self.loss == "ipo" else bradley_terry_loss

    def largest(self, num_processes: int, num_candidates: int = 2) -> Texts:
        """The largest micro-batch of a process, with so many answers to a prompt."""
        rows = self.micro_batch_size or self.batch_size // num_processes
        return Texts(
            rows=rows,
            prompt_tokens=self.max_prompt_tokens,
            response_tokens=self.max_response_tokens,
            num_candidates=num_candidates,
        )


def dpo_config(scale: str) -> DPOConfig:
    """The preset of a scale."""
    fast = OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.05)
    laptop = DPOConfig(optimizer=fast, max_prompt_tokens=192, max_response_tokens=48, kl_coef=0.1)
    tiny = replace(laptop, batch_size=8)
    return {"tiny": tiny, "laptop": laptop, "gpu": DPOConfig(micro_batch_size=8)}[check_scale(scale)]


def dpo(
    policy: Policy,
    comparisons: Dataset | Sequence[Any],
    config: DPOConfig | None = None,
    *,
    run: Run | None = None,
    pair_loss: Callable[..., Tensor] | None = None,
    **overrides: Any,
) -> Policy:
    """A policy that makes the chosen answers likelier than the rejected ones, at a price for leaving where it started.

    Rows of one `group` are one batch element, as in `train_reward_model`.

    Args:
        policy: The start, and the reference; not changed. Usually it is the supervised policy that wrote the answers.
        comparisons: Rows with `prompt`, `chosen`, `rejected`, and as one likes `chosen_prob` and `group`; or a list of
            `Comparison`.
        config: Settings; `overrides` replace single fields.
        run: Where to log and to keep checkpoints.
        pair_loss: The loss of each pair, from `(chosen_rewards, rejected_rewards)`, both implicit; an exercise's own
            goes here, in place of the one that `config.loss` names. A soft label weighs the losses of both choices.

    Returns:
        The tuned policy, with the metrics of every step in its history.

    Raises:
        ValueError: What `train_reward_model` refuses.
    """
    config = configured(DPOConfig(), config, overrides)
    run = run or Run()
    of_pair = config.pair_loss
    if pair_loss is not None:
        of_pair = checked("pair_loss", pair_loss, bradley_terry_loss, lambda chosen, rejected: chosen.shape, "pair")
    rankings = rankings_of(comparisons_of(comparisons))
    limits = {"max_prompt_tokens": config.max_prompt_tokens, "max_response_tokens": config.max_response_tokens}
    num_steps = max(1, round(config.num_epochs * len(rankings) / config.batch_size))
    network = trainable(policy.network, config.lora, rng=run.rng("adapter"), device=run.device)
    most = max((len(ranking.answers) for ranking in rankings), default=1)
    texts = config.largest(run.accelerator.num_processes, most)
    recompute = check_memory("dpo", [(network, config.optimizer.kind)], [policy.network], texts, **run.place)
    fit = Fit(run, network, config.optimizer, num_updates=num_steps, recompute=recompute)
    reference = shared_copy(policy.network).to(run.device)  # type: ignore[arg-type]

    for step in run.steps(num_steps, {"fit": fit}, name="dpo"):
        rows = run.batch_rows(step, len(rankings), config.batch_size)[run.share(config.batch_size)]
        labeled = encode_rankings(policy.tokenizer, [rankings[row] for row in rows], **limits)
        batch = labeled.smoothed(config.label_smoothing).to(run.device)
        seen: list[Tensor] = []

        def loss(part: LabeledCandidates, count: float, seen: list[Tensor] = seen) -> Tensor:
            with torch.no_grad(), run.accelerator.autocast():
                ref_logprobs = candidate_logprobs(reference, part)
            rewards = implicit_reward(fit(candidate_logprobs, part), ref_logprobs, kl_coef=config.kl_coef)
            seen.append(rewards.detach())
            return element_losses(of_pair, rewards, part).sum() / count

        rate = fit.learning_rate
        counted = torch.ones(len(batch), dtype=torch.bool)
        value = fit.step(batch, loss, counted=counted, micro_batch_size=config.micro_batch_size)
        agreed = agreement(run, torch.cat(seen), batch, "dpo")
        run.log(step, {"dpo/loss": value, **agreed, "dpo/learning_rate": rate})
    return Policy(fit.trained(), policy.tokenizer, tuple(run.history))  # type: ignore[arg-type]
