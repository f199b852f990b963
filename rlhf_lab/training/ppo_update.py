"""One update of PPO: losses of policy and critic on a minibatch, and beside them PPO-ptx's loss of pretraining text.

Reference: Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022, arXiv:2203.02155, eq. 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_lab.data.batching import TokenBatch, encode_texts
from rlhf_lab.equations.sequence import masked_mean
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs, candidate_values
from rlhf_lab.training.actor_critic import flat
from rlhf_lab.training.experience import Training
from rlhf_lab.training.fit import Fit, Term
from rlhf_lab.training.supervised import target_losses


@dataclass(frozen=True, kw_only=True)
class PretrainingText:
    """What is read beside the responses, so that the policy does not forget it."""

    run: Run
    tokenizer: PreTrainedTokenizerBase
    texts: Sequence[str]
    weight: float
    """gamma_ptx."""
    rows: int
    """Texts in an update, over all processes."""
    max_tokens: int

    def __post_init__(self) -> None:
        """Refuse texts without a weight, and a weight without texts."""
        self.run.share(self.rows)  # What does not divide is refused before anything is sampled.
        if bool(len(self.texts)) != (self.weight > 0):
            raise ValueError(
                f"there are {len(self.texts)} pretraining texts at a pretraining_coef of {self.weight:g}; give texts "
                f"(pretraining=) and a weight above 0, or neither."
            )

    def of_update(self, number: int) -> TokenBatch | None:
        """This process's part of an update's texts, the same after a resume; None if there are none."""
        if not self.texts:
            return None
        rows = self.run.batch_rows(number, len(self.texts), self.rows)[self.run.share(self.rows)]
        texts = [self.texts[row] for row in rows]
        return encode_texts(self.tokenizer, texts, max_tokens=self.max_tokens).to(self.run.device)


def update(
    actor: Fit,
    critic: Fit,
    rows: Training,
    pretraining: PretrainingText,
    surrogate: Callable[..., Tensor],
    value_error: Callable[..., Tensor],
    *,
    clip_range: float,
    value_clip_range: float,
    temperature: float,
    micro_batch_size: int,
) -> dict[str, float]:
    """One update of the policy and one of the critic, on the same minibatch.

    Args:
        actor: The policy.
        critic: The critic.
        rows: This process's part of the minibatch.
        pretraining: What is mixed in.
        surrogate: The policy's loss of each token.
        value_error: The critic's loss of each token.
        clip_range: epsilon of the policy.
        value_clip_range: That of the critic.
        temperature: Of the policy's distribution, as sampled.
        micro_batch_size: Rows in memory at once.

    Returns:
        What to log of it.
    """
    ratios: list[Tensor] = []

    def policy_loss(part: Training, count: float) -> Tensor:
        logprobs = actor(candidate_logprobs, part, temperature=temperature)
        ratios.append((logprobs.detach() - part.old_logprobs)[part.response_mask])
        terms = surrogate(*flat(logprobs, part.old_logprobs, part.advantages), clip_range=clip_range)
        return masked_mean(terms, flat(part.response_mask)[0], count)

    def pretraining_loss(part: TokenBatch, count: float) -> Tensor:
        return pretraining.weight * actor(target_losses, part).sum() / count

    def value_loss(part: Training, count: float) -> Tensor:
        values = critic(candidate_values, part)
        terms = value_error(*flat(values, part.values, part.returns), clip_range=value_clip_range)
        return masked_mean(terms, flat(part.response_mask)[0], count)

    rate, text = actor.learning_rate, pretraining.of_update(actor.updates)
    terms: list[Term[Any]] = [Term(rows, policy_loss, rows.response_mask)]
    if text is not None:
        terms.append(Term(text, pretraining_loss, text.loss_mask[:, 1:]))
    policy, *mixed_in = actor.step_on(terms, micro_batch_size=micro_batch_size)
    value = critic.step(rows, value_loss, counted=rows.response_mask, micro_batch_size=micro_batch_size)
    losses = {"ppo/policy_loss": policy, "ppo/value_loss": value}
    losses |= {"ppo/pretraining_loss": mixed_in[0] / pretraining.weight} if mixed_in else {}
    log_ratio = torch.cat(ratios)
    clipped = ((log_ratio.exp() - 1).abs() > clip_range).float()
    return losses | {
        "ppo/learning_rate": rate,
        "ppo/clip_fraction": clipped.mean().item(),
        "ppo/approx_kl": (log_ratio.exp() - 1 - log_ratio).mean().item(),
    }
