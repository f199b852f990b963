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
from jaxtyping import Bool, Float
from torch import Tensor

from rlhf_lab.data.batching import Candidates, encode_candidates
from rlhf_lab.data.datasets import column, comparisons_of
from rlhf_lab.equations.preference import bradley_terry_loss, pairwise_loss
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel, new_reward_model
from rlhf_lab.records import check_scale
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_scores
from rlhf_lab.seams import checked
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


@dataclass(frozen=True)
class LabeledCandidates(Candidates):
    """Prompts with K answers each, and the label of each pair: `is_pair[0, 2, 1]` says that 2 was chosen over 1."""

    chosen_prob: Float[Tensor, "batch candidates candidates"]
    """How sure it is that the chosen answer (down) is better than the rejected one (across); read at pairs only."""
    is_pair: Bool[Tensor, "batch candidates candidates"]


@dataclass(frozen=True)
class _Ranking:
    """A batch element: a prompt, its distinct answers, and (chosen, rejected, chosen_prob) of each labeled pair."""

    prompt: str
    answers: list[str]
    pairs: list[tuple[int, int, float]]


def train_reward_model(
    policy: Policy,
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
        policy: Its backbone is the start (usually the supervised policy); not changed.
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
    rankings = _rankings(comparisons_of(comparisons))
    model = new_reward_model(policy, generator=run.rng("head"))
    num_steps = max(1, round(config.num_epochs * len(rankings) / config.batch_size))
    fit = Fit(run, model.network, config.optimizer, num_updates=num_steps)

    for step in run.steps(num_steps, {"fit": fit}, name="reward model"):
        rows = run.batch_rows(step, len(rankings), config.batch_size)[run.share(config.batch_size)]
        batch = _encode(model, [rankings[row] for row in rows], config).to(run.device)
        seen: list[Tensor] = []

        def loss(part: LabeledCandidates, count: float, seen: list[Tensor] = seen) -> Tensor:
            scores = fit(candidate_scores, part)
            seen.append(scores.detach())
            return _losses(pair_loss, scores, part).sum() / count

        rate = fit.learning_rate
        counted = torch.ones(len(batch), dtype=torch.bool)
        value = fit.step(batch, loss, counted=counted, micro_batch_size=config.micro_batch_size)
        agreement = _agreement(run, torch.cat(seen), batch)
        run.log(step, {"rm/loss": value, **agreement, "rm/learning_rate": rate})
    trained = RewardModel(fit.network, model.tokenizer, tuple(run.history))  # type: ignore[arg-type]
    return _centered(trained, rankings, references, config)


def _rankings(comparisons: Dataset) -> list[_Ranking]:
    """An element for each group and for each row without one, in the order in which they first appear."""
    texts = zip(*(column(comparisons, name) for name in ("prompt", "chosen", "rejected")), strict=True)
    probs, groups = column(comparisons, "chosen_prob"), column(comparisons, "group")
    elements: dict[str | int, _Ranking] = {}
    for index, ((prompt, chosen, rejected), prob, group) in enumerate(zip(texts, probs, groups, strict=True)):
        element = elements.setdefault(group or index, _Ranking(prompt, [], []))
        if prompt != element.prompt:
            raise ValueError(
                f"row {index} of the dataset: group {group!r} has rows of two prompts ({element.prompt!r:.60} and "
                f"{prompt!r:.60}); a group is a ranking of one prompt's answers: give each prompt a group of its own."
            )
        answers = element.answers
        answers += [text for text in (chosen, rejected) if text not in answers]
        pair = (answers.index(chosen), answers.index(rejected))
        if any(set(pair) == {*known[:2]} for known in element.pairs):
            raise ValueError(
                f"row {index} of the dataset: group {group!r} compares the same two answers twice ({chosen!r:.60} and "
                f"{rejected!r:.60}); a ranking has each pair once: drop one of the rows, or give each labeler a group."
            )
        element.pairs.append((*pair, prob))
    return list(elements.values())


def _encode(model: RewardModel, rankings: Sequence[_Ranking], config: RewardModelConfig) -> LabeledCandidates:
    candidates = encode_candidates(
        model.tokenizer,
        [ranking.prompt for ranking in rankings],
        [ranking.answers for ranking in rankings],
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
    )
    count = candidates.responses.shape[1]
    chosen_prob = torch.ones(len(rankings), count, count)
    is_pair = torch.zeros(len(rankings), count, count, dtype=torch.bool)
    for row, ranking in enumerate(rankings):
        for chosen, rejected, prob in ranking.pairs:
            chosen_prob[row, chosen, rejected] = prob
            is_pair[row, chosen, rejected] = True
    return LabeledCandidates(**vars(candidates), chosen_prob=chosen_prob, is_pair=is_pair)


def _losses(
    pair_loss: Callable[..., Tensor], scores: Float[Tensor, "batch candidates"], part: LabeledCandidates
) -> Float[Tensor, " batch"]:
    """Loss of each element, the mean over its pairs."""
    if pair_loss is bradley_terry_loss:
        return pairwise_loss(scores, part.chosen_prob, part.is_pair)
    # Only what was compared: a plain label may be read without the loss of the choice that nobody made.
    row, chosen, rejected = part.is_pair.nonzero(as_tuple=True)
    better, worse, prob = scores[row, chosen], scores[row, rejected], part.chosen_prob[part.is_pair]
    losses = prob * pair_loss(better, worse)
    is_soft = prob < 1
    if bool(is_soft.any()):
        reversed_losses = pair_loss(worse[is_soft], better[is_soft])
        losses = losses.index_add(0, is_soft.nonzero()[:, 0], (1 - prob[is_soft]) * reversed_losses)
    return losses.new_zeros(len(scores)).index_add(0, row, losses) / part.is_pair.sum((1, 2)).clamp(min=1)


def _agreement(run: Run, scores: Float[Tensor, "batch candidates"], batch: LabeledCandidates) -> dict[str, float]:
    """Accuracy and mean margin over the pairs of all processes that are no ties; NaN if there are none."""
    is_decided = batch.is_pair & (batch.chosen_prob > 0.5)
    margins = (scores.unsqueeze(2) - scores.unsqueeze(1))[is_decided]
    # Sums, because processes whose largest groups differ have scores of different shapes.
    sums = torch.stack([(margins > 0).float().sum(), margins.sum(), is_decided.float().sum()])
    right, total, count = run.accelerator.reduce(sums, reduction="sum")  # type: ignore[misc]
    return {"rm/accuracy": (right / count).item(), "rm/margin": (total / count).item()}


def _centered(
    model: RewardModel, rankings: Sequence[_Ranking], references: Dataset | None, config: RewardModelConfig
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
