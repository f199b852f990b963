"""Learning to imitate: pretraining on raw text, and supervised fine-tuning on demonstrations.

Both are next-token prediction. Fine-tuning differs from pretraining in two things:
- it starts from a pretrained policy, not from random weights;
- only the completion's tokens (EOS included, so that the model learns to stop) count in the loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.batching import TokenBatch, encode_demonstrations, encode_texts
from rlhf_lab.data.datasets import column, demonstrations_of
from rlhf_lab.equations.sequence import next_token_loss
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, trainable
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import over_vocabulary, target_hidden
from rlhf_lab.seams import checked
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretraining on raw text."""

    num_steps: int = 6000
    batch_size: int = 32
    micro_batch_size: int | None = None
    max_tokens: int = 192
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, warmup_fraction=0.03, weight_decay=0.05)
    )

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process."""
        rows = self.micro_batch_size or self.batch_size // num_processes
        return Texts(rows=rows, prompt_tokens=1, response_tokens=self.max_tokens - 1)


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Supervised fine-tuning; the defaults are Huang et al. 2024's (arXiv:2403.17031, detail 9)."""

    num_epochs: float = 1.0
    batch_size: int = 128
    micro_batch_size: int | None = None
    max_prompt_tokens: int = 512
    max_response_tokens: int = 53
    count_prompt: bool = False
    """Count the query's tokens in the loss too."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, instead of all of them."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be meant."""
        if self.num_epochs <= 0 or self.batch_size < 1:
            raise ValueError(f"num_epochs ({self.num_epochs}) and batch_size ({self.batch_size}) must be above 0.")

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process; what is counted has logits."""
        rows, both = self.micro_batch_size or self.batch_size // num_processes, self.max_prompt_tokens
        both += self.max_response_tokens
        counted = both - 1 if self.count_prompt else self.max_response_tokens
        return Texts(rows=rows, prompt_tokens=both - counted, response_tokens=counted)


def sft_config(scale: str) -> SFTConfig:
    """The preset of a scale."""
    fast = OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.05)
    small = SFTConfig(batch_size=16, optimizer=fast, max_prompt_tokens=192, max_response_tokens=48)
    return {
        "tiny": small,
        "laptop": small,
        "gpu": SFTConfig(micro_batch_size=16),
    }[check_scale(scale)]


def target_losses(
    network: PreTrainedModel, batch: TokenBatch, token_loss: Callable[..., Tensor] = next_token_loss
) -> Float[Tensor, " counted"]:
    """Loss of every counted token, -log p(token | tokens before it), in the order of the batch.

    Only the counted positions reach the vocabulary, so no logits are made for prompts or padding.
    """
    targets = batch.tokens[:, 1:][batch.loss_mask[:, 1:]]
    return over_vocabulary(network, target_hidden(network, batch), targets, token_loss)


def pretrain(
    policy: Policy,
    texts: Sequence[str],
    config: PretrainConfig | None = None,
    *,
    run: Run | None = None,
    **overrides: Any,
) -> Policy:
    """A policy that continues text like `texts`.

    Args:
        policy: Where to start; not changed.
        texts: Raw documents, each ended by EOS.
        config: Settings; `overrides` replace single fields.
        run: Where to log and to keep checkpoints.

    Returns:
        The trained policy, with the loss of every step in its history.

    Raises:
        ValueError: No texts, or a config field that does not exist.
    """
    config = configured(PretrainConfig(), config, overrides)

    def encode(rows: list[int]) -> TokenBatch:
        return encode_texts(policy.tokenizer, [texts[row] for row in rows], max_tokens=config.max_tokens)

    return _imitate(policy, encode, len(texts), config.num_steps, config, run, "pretrain", next_token_loss)


def sft(
    policy: Policy,
    demonstrations: Dataset,
    config: SFTConfig | None = None,
    *,
    run: Run | None = None,
    token_loss: Callable[..., Tensor] = next_token_loss,
    **overrides: Any,
) -> Policy:
    """A policy that imitates the demonstrations.

    Args:
        policy: Where to start; not changed.
        demonstrations: Rows with `prompt` and `completion`, or a list of `Demonstration`.
        config: Settings; `overrides` replace single fields.
        run: Where to log and to keep checkpoints.
        token_loss: The loss of each counted token, called as `next_token_loss` is; an exercise's own goes here.

    Returns:
        The trained policy, with the loss of every step in its history.

    Raises:
        ValueError: No demonstrations, a missing column, a config field that does not exist, or a `token_loss` that does
            not give one finite number for each token.
    """
    config = configured(SFTConfig(), config, overrides)
    demonstrations = demonstrations_of(demonstrations)
    prompts, completions = column(demonstrations, "prompt"), column(demonstrations, "completion")

    def encode(rows: list[int]) -> TokenBatch:
        return encode_demonstrations(
            policy.tokenizer,
            [prompts[row] for row in rows],
            [completions[row] for row in rows],
            max_prompt_tokens=config.max_prompt_tokens,
            max_response_tokens=config.max_response_tokens,
            count_prompt=config.count_prompt,
        )

    num_steps = max(1, round(config.num_epochs * len(prompts) / config.batch_size))
    loss = checked("token_loss", token_loss, next_token_loss, lambda logits, tokens: tokens.shape, "counted token")
    return _imitate(policy, encode, len(prompts), num_steps, config, run, "sft", loss)


def _imitate(
    policy: Policy,
    encode: Callable[[list[int]], TokenBatch],
    num_rows: int,
    num_steps: int,
    config: PretrainConfig | SFTConfig,
    run: Run | None,
    name: str,
    token_loss: Callable[..., Tensor],
) -> Policy:
    run = run or Run()
    lora = config.lora if isinstance(config, SFTConfig) else None
    network = trainable(policy.network, lora, rng=run.rng("adapter"), device=run.device)
    recompute = check_memory(
        name, [(network, config.optimizer.kind)], [], config.largest(run.accelerator.num_processes), **run.place
    )
    fit = Fit(run, network, config.optimizer, num_updates=num_steps, recompute=recompute)
    for step in run.steps(num_steps, {"fit": fit}, name=name):
        rows = run.batch_rows(step, num_rows, config.batch_size)[run.share(config.batch_size)]
        batch = encode(rows).to(run.device)
        rate = fit.learning_rate
        loss = fit.step(
            batch,
            lambda part, count: fit(target_losses, part, token_loss).sum() / count,
            counted=batch.loss_mask[:, 1:],
            micro_batch_size=config.micro_batch_size,
        )
        run.log(step, {f"{name}/loss": loss, f"{name}/learning_rate": rate})
    return Policy(fit.trained(), policy.tokenizer, tuple(run.history))  # type: ignore[arg-type]


@torch.no_grad()
def text_loss(policy: Policy, texts: Sequence[str], *, max_tokens: int, batch_size: int = 32) -> float:
    """Mean loss of the tokens of `texts` [nats], without training."""
    total, count = 0.0, 0
    for start in range(0, len(texts), batch_size):
        batch = encode_texts(policy.tokenizer, texts[start : start + batch_size], max_tokens=max_tokens)
        losses = target_losses(policy.network, batch.to(policy.network.device))
        total, count = total + losses.sum().item(), count + losses.numel()
    return total / count
