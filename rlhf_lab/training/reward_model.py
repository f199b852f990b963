"""Learning what people prefer: a scalar reward from comparisons.

Differences from supervised fine-tuning:
- the network's head gives one number, read at EOS, instead of a distribution over tokens;
- a batch element is a prompt with its two (or K) answers, each read once; the loss is the mean over the pairs of them
  that a labeler compared, and depends on differences of scores only;
- a label may be soft: a probability that the chosen answer is the better one;
- the free constant is fixed afterwards: the references' mean score becomes 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import comparisons_of
from rlhf_lab.equations.preference import bradley_terry_loss
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, RewardModel, new_reward_model, trainable
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_scores
from rlhf_lab.seams import checked
from rlhf_lab.training.fit import Fit, OptimizerConfig
from rlhf_lab.training.rankings import (
    LabeledCandidates,
    Ranking,
    agreement,
    element_losses,
    encode_rankings,
    rankings_of,
)


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
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, and the head, instead of all of them."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be meant."""
        if self.num_epochs <= 0 or self.batch_size < 1:
            raise ValueError(f"num_epochs ({self.num_epochs}) and batch_size ({self.batch_size}) must be above 0.")

    def largest(self, num_processes: int, num_candidates: int = 2) -> Texts:
        """The largest micro-batch of a process, with so many answers to a prompt."""
        rows = self.micro_batch_size or self.batch_size // num_processes
        return Texts(
            rows=rows,
            prompt_tokens=self.max_prompt_tokens,
            response_tokens=self.max_response_tokens,
            num_candidates=num_candidates,
        )


def reward_model_config(scale: str) -> RewardModelConfig:
    """The preset of a scale."""
    fast = OptimizerConfig(learning_rate=3e-4, warmup_fraction=0.05)
    laptop = RewardModelConfig(optimizer=fast, max_prompt_tokens=192, max_response_tokens=48)
    tiny = replace(laptop, batch_size=8)
    return {"tiny": tiny, "laptop": laptop, "gpu": RewardModelConfig(micro_batch_size=8)}[check_scale(scale)]


def train_reward_model(
    policy: Policy | RewardModel,
    comparisons: Dataset | Sequence[Any],
    config: RewardModelConfig | None = None,
    *,
    references: Dataset | None = None,
    run: Run | None = None,
    pair_loss: Callable[..., Tensor] = bradley_terry_loss,
    **overrides: Any,
) -> RewardModel:
    """A reward model that agrees with the comparisons.

    Rows of one `group` are one batch element, whose loss is the mean over its pairs (Ouyang et al. 2022,
    arXiv:2203.02155, section 3.5), as is each row without a group. An update is the mean over its elements.

    Args:
        policy: Its backbone is the start (usually the supervised policy); not changed. A reward model goes on with its
            head too: what it has learnt from other comparisons is preference-model pretraining (Askell et al. 2021,
            arXiv:2112.00861, section 4).
        comparisons: Rows with `prompt`, `chosen`, `rejected`, and as one likes `chosen_prob` and `group`; or a list of
            `Comparison`.
        config: Settings; `overrides` replace single fields.
        references: Demonstrations whose mean score becomes 0; without them, that of the comparisons' answers.
        run: Where to log and to keep checkpoints.
        pair_loss: The loss of each pair, from `(chosen_scores, rejected_scores)`; an exercise's own goes here. A soft
            label weighs the losses of both choices.

    Raises:
        ValueError: No comparisons, a missing column, identical answers, a chosen_prob outside [0.5, 1], a group with
            two prompts or with a pair that comes twice, a config field that does not exist, or a `pair_loss` that does
            not give one finite number for each pair.
    """
    config = configured(RewardModelConfig(), config, overrides)
    run = run or Run()
    pair_loss = checked("pair_loss", pair_loss, bradley_terry_loss, lambda chosen, rejected: chosen.shape, "pair")
    rankings = rankings_of(comparisons_of(comparisons))
    model = _start(policy, config.lora, run)
    limits = {"max_prompt_tokens": config.max_prompt_tokens, "max_response_tokens": config.max_response_tokens}
    num_steps = max(1, round(config.num_epochs * len(rankings) / config.batch_size))
    most = max((len(ranking.answers) for ranking in rankings), default=1)
    texts = config.largest(run.accelerator.num_processes, most)
    recompute = check_memory("reward model", [(model.network, config.optimizer.kind)], [], texts, **run.place)
    fit = Fit(run, model.network, config.optimizer, num_updates=num_steps, recompute=recompute)

    for step in run.steps(num_steps, {"fit": fit}, name="reward model"):
        rows = run.batch_rows(step, len(rankings), config.batch_size)[run.share(config.batch_size)]
        batch = encode_rankings(model.tokenizer, [rankings[row] for row in rows], **limits).to(run.device)
        seen: list[Tensor] = []

        def loss(part: LabeledCandidates, count: float, seen: list[Tensor] = seen) -> Tensor:
            scores = fit(candidate_scores, part)
            seen.append(scores.detach())
            return element_losses(pair_loss, scores, part).sum() / count

        rate = fit.learning_rate
        counted = torch.ones(len(batch), dtype=torch.bool)
        value = fit.step(batch, loss, counted=counted, micro_batch_size=config.micro_batch_size)
        agreed = agreement(run, torch.cat(seen), batch, "rm")
        run.log(step, {"rm/loss": value, **agreed, "rm/learning_rate": rate})
    trained = RewardModel(fit.trained(), model.tokenizer, tuple(run.history))  # type: ignore[arg-type]
    return _centered(trained, rankings, references, config)


def _start(policy: Policy | RewardModel, lora: LoRAConfig | None, run: Run) -> RewardModel:
    generator = run.rng("head")
    if isinstance(policy, RewardModel):
        return RewardModel(trainable(policy.network, lora, rng=generator, device=run.device), policy.tokenizer)
    return new_reward_model(policy, generator=generator, lora=lora, device=run.device)


def _centered(
    model: RewardModel, rankings: Sequence[Ranking], references: Dataset | None, config: RewardModelConfig
) -> RewardModel:
    """Shift the scores so that references, or else the answers, are worth 0. Huang et al. 2024, detail 15."""
    reward = LearnedReward(
        model, max_prompt_tokens=config.max_prompt_tokens, max_response_tokens=config.max_response_tokens
    )
    if references is not None:
        rows = references[:512]
        scores = reward(rows["prompt"], rows["completion"])
    else:
        scores = []
        for index in range(max(len(ranking.answers) for ranking in rankings[:512])):
            present = [ranking for ranking in rankings[:512] if index < len(ranking.answers)]
            scores += reward([ranking.prompt for ranking in present], [ranking.answers[index] for ranking in present])
    model.network.config.score_offset = model.network.config.score_offset + sum(scores) / len(scores)
    return model
