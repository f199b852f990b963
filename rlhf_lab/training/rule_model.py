"""Learning whether a rule is broken: one classifier for all rules, which reads the rule's text.

Differences from the reward model:
- a row is one answer and one rule, with a label of its own: broken or not; nothing is compared;
- the score is the log-odds of a violation, so its zero means something, and it is not centred;
- an answer's rules are the candidates of its post: each is read behind the answer, the post once for all.

Reference: Glaese et al. 2022 (Sparrow), arXiv:2209.14375.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from rlhf_lab.data.batching import Candidates, encode_candidates
from rlhf_lab.data.datasets import column
from rlhf_lab.equations.preference import rule_violation_loss
from rlhf_lab.equations.sequence import masked_mean
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, RewardModel, new_reward_model
from rlhf_lab.probing import with_rule
from rlhf_lab.records import check_scale, require_text
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_scores
from rlhf_lab.seams import checked
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class RuleModelConfig:
    """Rule model; the defaults are the reward model's."""

    num_epochs: float = 1.0
    batch_size: int = 64
    """Answers in an update, each with all the rules that it was rated by, over all processes."""
    micro_batch_size: int | None = None
    max_prompt_tokens: int = 512
    max_response_tokens: int = 169
    """Of an answer with a rule behind it."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be meant."""
        if self.num_epochs <= 0 or self.batch_size < 1:
            raise ValueError(f"num_epochs ({self.num_epochs}) and batch_size ({self.batch_size}) must be above 0.")

    def largest(self, num_processes: int, num_candidates: int) -> Texts:
        """The largest micro-batch of a process, with so many rules an answer."""
        rows = self.micro_batch_size or self.batch_size // num_processes
        lengths = {"prompt_tokens": self.max_prompt_tokens, "response_tokens": self.max_response_tokens}
        return Texts(rows=rows, num_candidates=num_candidates, **lengths)


def rule_model_config(scale: str) -> RuleModelConfig:
    """The preset of a scale."""
    fast = OptimizerConfig(learning_rate=3e-3, warmup_fraction=0.05)
    laptop = RuleModelConfig(num_epochs=2.0, batch_size=8, optimizer=fast, max_prompt_tokens=240)
    laptop = replace(laptop, max_response_tokens=96)
    return {"tiny": laptop, "laptop": laptop, "gpu": RuleModelConfig(micro_batch_size=8)}[check_scale(scale)]


@dataclass(frozen=True)
class Rated:
    """An answer with the rules that it was rated by, and what was said."""

    prompt: str
    texts: list[str]
    violated: list[bool]


@dataclass(frozen=True)
class RatedCandidates(Candidates):
    """Answers by rules, with labels; those of an absent rule are not read."""

    violated: Float[Tensor, "batch candidates"]


def train_rule_model(
    policy: Policy,
    labels: Dataset | Sequence[Any],
    config: RuleModelConfig | None = None,
    *,
    run: Run | None = None,
    rule_loss: Callable[..., Tensor] = rule_violation_loss,
    **overrides: Any,
) -> RewardModel:
    """A model whose score is the log-odds that an answer breaks a rule, both in one text (`with_rule`).

    Args:
        policy: Its backbone is the start; not changed.
        labels: Rows with `prompt`, `response`, `rule` (its text) and `violated`, such as `rule_labels` gives; rows that
            follow each other with the same prompt and response are one element.
        config: Settings; `overrides` replace single fields.
        run: Where to log and to keep checkpoints.
        rule_loss: The loss of each label, from `(scores, violated)`; an exercise's own goes here.

    Raises:
        ValueError: No labels, a missing column, a rule without text, a config field that does not exist, or a
            `rule_loss` that does not give one finite number for each label.
    """
    config = configured(RuleModelConfig(), config, overrides)
    run = run or Run()
    rule_loss = checked("rule_loss", rule_loss, rule_violation_loss, lambda scores, _: scores.shape, "label")
    rated = _rated(labels if isinstance(labels, Dataset) else Dataset.from_list(list(labels)))
    model = new_reward_model(policy, generator=run.rng("head"), device=run.device)
    num_steps = max(1, round(config.num_epochs * len(rated) / config.batch_size))
    texts = config.largest(run.accelerator.num_processes, max((len(one.texts) for one in rated), default=1))
    recompute = check_memory("rule model", [(model.network, config.optimizer.kind)], [], texts, **run.place)
    fit = Fit(run, model.network, config.optimizer, num_updates=num_steps, recompute=recompute)

    for step in run.steps(num_steps, {"fit": fit}, name="rule model"):
        rows = run.batch_rows(step, len(rated), config.batch_size)[run.share(config.batch_size)]
        batch = _encoded(model, [rated[row] for row in rows], config).to(run.device)

        def loss(part: RatedCandidates, count: float) -> Tensor:
            terms = rule_loss(fit(candidate_scores, part), part.violated)
            return masked_mean(terms, part.response_mask.any(-1), count)

        rate = fit.learning_rate
        counted = batch.response_mask.any(-1)
        value = fit.step(batch, loss, counted=counted, micro_batch_size=config.micro_batch_size)
        run.log(step, {"rule/loss": value, "rule/learning_rate": rate})
    return RewardModel(fit.trained(), model.tokenizer, tuple(run.history))  # type: ignore[arg-type]


def _rated(labels: Dataset) -> list[Rated]:
    rows = zip(*(column(labels, name) for name in ("prompt", "response", "rule", "violated")), strict=True)
    elements = []
    for (prompt, response), group in itertools.groupby(rows, key=lambda row: row[:2]):
        members = list(group)
        texts = [with_rule(response, require_text(rule, "rule")) for _, _, rule, _ in members]
        elements.append(Rated(prompt, texts, [bool(violated) for *_, violated in members]))
    return elements


def _encoded(model: RewardModel, rated: Sequence[Rated], config: RuleModelConfig) -> RatedCandidates:
    candidates = encode_candidates(
        model.tokenizer,
        [one.prompt for one in rated],
        [one.texts for one in rated],
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=config.max_response_tokens,
    )
    violated = torch.zeros(candidates.responses.shape[:2])
    for row, one in enumerate(rated):
        violated[row, : len(one.violated)] = torch.tensor(one.violated, dtype=violated.dtype)
    return RatedCandidates(**vars(candidates), violated=violated)
