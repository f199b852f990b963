"""Learning what people prefer: a scalar reward from comparisons.

Differences from supervised fine-tuning:
- the network's head gives one number, read at EOS, instead of a distribution over tokens;
- a batch element is a prompt with its two (or K) responses; the loss depends on their difference only;
- the free constant is fixed afterwards: the references' mean score becomes 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rlhf_lab.data.batching import Candidates, encode_candidates
from rlhf_lab.data.datasets import column, comparisons_of
from rlhf_lab.equations.preference import bradley_terry_loss
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel, new_reward_model
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_scores
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """Reward model; the defaults are Huang et al. 2024's (arXiv:2403.17031, details 11 to 15)."""

    num_epochs: float = 1.0
    batch_size: int = 64
    """Prompts in an update, over all processes."""
    micro_batch_size: int | None = None
    max_prompt_tokens: int = 512
    max_response_tokens: int = 169
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be meant."""
        if self.num_epochs <= 0 or self.batch_size < 1:
            raise ValueError(f"num_epochs ({self.num_epochs}) and batch_size ({self.batch_size}) must be above 0.")


def reward_model_config(scale: str) -> RewardModelConfig:
    """The preset of a scale."""
    fast = OptimizerConfig(learning_rate=3e-4, warmup_fraction=0.05)
    laptop = RewardModelConfig(optimizer=fast, max_prompt_tokens=192, max_response_tokens=48)
    tiny = replace(laptop, batch_size=8)
    return {"tiny": tiny, "laptop": laptop, "gpu": RewardModelConfig(micro_batch_size=8)}[check_scale(scale)]


def train_reward_model(
    policy: Policy,
    comparisons: Dataset,
    config: RewardModelConfig | None = None,
    *,
    references: Dataset | None = None,
    run: Run | None = None,
    **overrides: Any,
) -> RewardModel:
    """A reward model that agrees with the comparisons.

    Args:
        policy: Its backbone is the start (usually the supervised policy); not changed.
        comparisons: Rows with `prompt`, `chosen` and `rejected`, or a list of `Comparison`.
        config: Settings; `overrides` replace single fields.
        references: Demonstrations whose mean score becomes 0; without them, that of the comparisons' answers.
        run: Where to log and to keep checkpoints.

    Raises:
        ValueError: No comparisons, a missing column, identical answers, or a config field that does not exist.
    """
    config = configured(RewardModelConfig(), config, overrides)
    run = run or Run()
    comparisons = comparisons_of(comparisons)
    prompts = column(comparisons, "prompt")
    answers = list(zip(column(comparisons, "chosen"), column(comparisons, "rejected"), strict=True))
    model = new_reward_model(policy, generator=run.rng("head"))
    num_steps = max(1, round(config.num_epochs * len(prompts) / config.batch_size))
    fit = Fit(run, model.network, config.optimizer, num_updates=num_steps)

    for step in run.steps(num_steps, {"fit": fit}, name="reward model"):
        rows = run.batch_rows(step, len(prompts), config.batch_size)[run.share(config.batch_size)]
        batch = _encode(model, [prompts[row] for row in rows], [answers[row] for row in rows], config).to(run.device)
        seen: list[Tensor] = []

        def loss(part: Candidates, count: float, seen: list[Tensor] = seen) -> Tensor:
            scores = fit(candidate_scores, part)
            seen.append(scores.detach())
            return bradley_terry_loss(scores[:, 0], scores[:, 1]).sum() / count

        rate = fit.learning_rate
        counted = torch.ones(len(batch), dtype=torch.bool)
        value = fit.step(batch, loss, counted=counted, micro_batch_size=config.micro_batch_size)
        scores = run.accelerator.gather(torch.cat(seen))
        margin = scores[:, 0] - scores[:, 1]
        run.log(
            step,
            {
                "rm/loss": value,
                "rm/accuracy": (margin > 0).float().mean().item(),
                "rm/margin": margin.mean().item(),
                "rm/learning_rate": rate,
            },
        )
    trained = RewardModel(fit.network, model.tokenizer, tuple(run.history))  # type: ignore[arg-type]
    return _centered(trained, comparisons, references, config)


def _encode(
    model: RewardModel, prompts: Sequence[str], answers: Sequence[Sequence[str]], config: RewardModelConfig
) -> Candidates:
    return encode_candidates(
        model.tokenizer,
        list(prompts),
        [list(texts) for texts in answers],
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
    )


def _centered(
    model: RewardModel, comparisons: Dataset, references: Dataset | None, config: RewardModelConfig
) -> RewardModel:
    """Shift the scores so that references are worth 0. Huang et al. 2024, detail 15."""
    reward = LearnedReward(
        model, max_prompt_tokens=config.max_prompt_tokens, max_response_tokens=config.max_response_tokens
    )
    rows = references[:512] if references is not None else comparisons[:512]
    texts = [rows["completion"]] if references is not None else [rows["chosen"], rows["rejected"]]
    scores = [score for responses in texts for score in reward(rows["prompt"], responses)]
    model.network.config.score_offset = model.network.config.score_offset + sum(scores) / len(scores)
    return model
