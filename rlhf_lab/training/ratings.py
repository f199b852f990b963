"""Learning a reward from single answers: ratings and thumbs, instead of comparisons.

Differences from the reward model of comparisons:
- a row is one answer with a number; the loss compares the score with that number, not with another answer's score;
- so the number's zero and unit, which are each person's own, are learnt too, unless they are taken off (`centered`);
- an answer needs no second one to the same prompt.

Both losses give a scale without a unit: scores of ratings are in standard deviations of all ratings, scores of thumbs
are log-odds. As with comparisons, references or else the answers are worth 0 on average in the end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.batching import Candidates, completion_text, encode_candidates
from rlhf_lab.data.datasets import column
from rlhf_lab.equations.preference import rating_loss, thumb_loss
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, RewardModel, new_reward_model
from rlhf_lab.records import check_scale, require_text
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import candidate_scores
from rlhf_lab.training.fit import Fit, OptimizerConfig

LOSSES: dict[str, Callable[..., Tensor]] = {"squared_error": rating_loss, "cross_entropy": thumb_loss}
"""What a score is held against a number by."""
NUM_CENTERING = 512
"""Texts whose mean score becomes 0."""


@dataclass(frozen=True, kw_only=True)
class RatingModelConfig:
    """A reward model of single answers; the defaults are the reward model's."""

    loss: str = "squared_error"
    """squared_error, for ratings on any scale; or cross_entropy, for thumbs: 1 is up, 0 is down."""
    num_epochs: float = 1.0
    batch_size: int = 64
    """Answers in an update, over all processes."""
    micro_batch_size: int | None = None
    max_prompt_tokens: int = 512
    max_response_tokens: int = 169
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, and the head, instead of all of them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)}, not {self.loss!r}.")
        if self.num_epochs <= 0 or self.batch_size < 1:
            raise ValueError(f"num_epochs ({self.num_epochs}) and batch_size ({self.batch_size}) must be above 0.")

    @property
    def limits(self) -> dict[str, int]:
        """Tokens of a prompt and of an answer that are read."""
        return {"max_prompt_tokens": self.max_prompt_tokens, "max_response_tokens": self.max_response_tokens}

    def largest(self, num_processes: int) -> Texts:
        """The largest micro-batch of a process."""
        rows = self.micro_batch_size or self.batch_size // num_processes
        return Texts(rows=rows, prompt_tokens=self.max_prompt_tokens, response_tokens=self.max_response_tokens)


def rating_model_config(scale: str) -> RatingModelConfig:
    """The preset of a scale."""
    fast = OptimizerConfig(learning_rate=3e-4, warmup_fraction=0.05)
    laptop = RatingModelConfig(optimizer=fast, batch_size=16, max_prompt_tokens=192, max_response_tokens=48)
    tiny = replace(laptop, batch_size=8)
    return {"tiny": tiny, "laptop": laptop, "gpu": RatingModelConfig(micro_batch_size=16)}[check_scale(scale)]


@dataclass(frozen=True)
class RatedAnswers(Candidates):
    """Prompts with one answer each, and its number."""

    rating: Float[Tensor, "batch candidates"]


def train_rating_model(
    policy: Policy,
    ratings: Dataset | Sequence[Any],
    config: RatingModelConfig | None = None,
    *,
    references: Dataset | None = None,
    run: Run | None = None,
    **overrides: Any,
) -> RewardModel:
    """A reward model whose score of an answer is what people would rate it.

    Args:
        policy: Its backbone is the start; not changed.
        ratings: Rows with `prompt`, `response` and `rating`, and as one likes `labeler`; `rating_rows` and `thumb_rows`
            make them of labels.
        config: Settings; `overrides` replace single fields.
        references: Demonstrations whose mean score becomes 0; without them, that of the rated answers.
        run: Where to log and to keep checkpoints.

    Raises:
        ValueError: No ratings, all alike, a missing column, an empty text, a rating that is no finite number, two
            ratings of one answer by one labeler that differ, with `cross_entropy` a rating outside [0, 1], or a config
            field that does not exist.
    """
    config = configured(RatingModelConfig(), config, overrides)
    run = run or Run()
    rows = ratings_of(ratings)
    targets = _targets(rows, config.loss)
    model = new_reward_model(policy, generator=run.rng("head"), lora=config.lora, device=run.device)
    num_steps = max(1, round(config.num_epochs * len(rows) / config.batch_size))
    texts = config.largest(run.accelerator.num_processes)
    recompute = check_memory("rating model", [(model.network, config.optimizer.kind)], [], texts, **run.place)
    fit = Fit(run, model.network, config.optimizer, num_updates=num_steps, recompute=recompute)
    answer_loss = LOSSES[config.loss]

    for step in run.steps(num_steps, {"fit": fit}, name="rating model"):
        chosen = run.batch_rows(step, len(rows), config.batch_size)[run.share(config.batch_size)]
        batch = _encoded(model, [rows[row] for row in chosen], targets[chosen], config).to(run.device)
        rate = fit.learning_rate
        value = fit.step(
            batch,
            lambda part, count: answer_loss(fit(candidate_scores, part), part.rating).sum() / count,
            counted=torch.ones(len(batch), dtype=torch.bool),
            micro_batch_size=config.micro_batch_size,
        )
        run.log(step, {"rating/loss": value, "rating/learning_rate": rate})
    trained = RewardModel(fit.trained(), model.tokenizer, tuple(run.history))  # type: ignore[arg-type]
    return _centered_scores(trained, rows, references, config)


def ratings_of(rows: Dataset | Sequence[Any]) -> list[dict[str, Any]]:
    """Rows as `prompt`, `response`, `rating` and `labeler` ("" if nobody says), checked.

    Raises:
        ValueError: No rows, a missing column, an empty text, a rating that is no finite number, or two ratings of one
            answer by one labeler that differ (the row is named).
    """
    rows = rows if isinstance(rows, Dataset) else Dataset.from_list(list(rows))
    columns = [column(rows, name, "the ratings") for name in ("prompt", "response", "rating")]
    labelers = rows["labeler"] if "labeler" in rows.column_names else [""] * len(rows)
    checked: list[dict[str, Any]] = []
    said: dict[tuple[str, str, str], float] = {}
    for index, (prompt, response, rating, labeler) in enumerate(zip(*columns, labelers, strict=True)):
        try:
            texts = require_text(prompt, "prompt"), completion_text(require_text(response, "response"))
            value = _finite(rating)
            known = said.setdefault((labeler or f"nobody {index}", *texts), value)
            if known != value:
                raise ValueError(
                    f"{labeler} rated the answer {response!r:.60} both {known:g} and {value:g}; keep one of the two."
                )
        except ValueError as error:
            raise ValueError(f"row {index} of the ratings: {error}") from error
        checked.append({"prompt": texts[0], "response": texts[1], "rating": value, "labeler": labeler or ""})
    return checked


def _finite(rating: Any) -> float:
    if isinstance(rating, bool | int | float) and math.isfinite(rating):
        return float(rating)
    raise ValueError(f"a rating is a finite number, not {rating!r:.40}; mend it, or remove the row.")


def centered(rows: Dataset | Sequence[Any], *, scaled: bool = False) -> Dataset:
    """Ratings on a scale that all people share: each person's mean taken off, and perhaps their spread too.

        y_ij - m_i,   or scaled (z-scores)   (y_ij - m_i) / s_i

    with the mean m_i and the standard deviation s_i (ddof 0) of person i's ratings. It takes off what is different in
    the answers that people happened to get, too; so it costs something where people share a scale, and the more the
    fewer ratings each gave. Somebody who gave one rating, or always the same, has said 0.

    Args:
        rows: As `train_rating_model` takes them, with `labeler`.

    Raises:
        ValueError: As `train_rating_model`; or a row does not say whose it is.

    Example:
        >>> rows = [{"prompt": "P", "response": f" {i}", "rating": i, "labeler": "ab"[i > 2]} for i in (1, 2, 5, 9)]
        >>> list(centered(rows)["rating"])
        [-0.5, 0.5, -2.0, 2.0]
        >>> list(centered(rows, scaled=True)["rating"])
        [-1.0, 1.0, -1.0, 1.0]
    """
    checked = ratings_of(rows)
    if anonymous := [index for index, row in enumerate(checked) if not row["labeler"]]:
        raise ValueError(
            f"row {anonymous[0]} of the ratings does not say whose it is; a person's mean can only be taken off their "
            f"own ratings: fill in labeler."
        )
    mine: dict[str, list[float]] = {}
    for row in checked:
        mine.setdefault(row["labeler"], []).append(row["rating"])
    means = {name: float(np.mean(values)) for name, values in mine.items()}
    spreads = {name: (float(np.std(values)) if scaled else 1.0) or 1.0 for name, values in mine.items()}
    return Dataset.from_list(
        [row | {"rating": (row["rating"] - means[row["labeler"]]) / spreads[row["labeler"]]} for row in checked]
    )


def _targets(rows: Sequence[dict[str, Any]], loss: str) -> Tensor:
    """What scores are held against: thumbs as they are, ratings in their own standard deviations from their mean."""
    values = torch.tensor([row["rating"] for row in rows])
    if loss == "cross_entropy":
        if outside := [value for value in values.tolist() if not 0 <= value <= 1]:
            raise ValueError(f"with cross_entropy a rating is 1 (thumb up) or 0 (down), not {outside[0]:g}.")
        return values
    spread = values.std(correction=0)
    if not spread > 0:
        raise ValueError(f"all {len(rows)} ratings are {values[0]:g}, so they say nothing; give some that differ.")
    return (values - values.mean()) / spread


def _encoded(
    model: RewardModel, rows: Sequence[dict[str, Any]], targets: Tensor, config: RatingModelConfig
) -> RatedAnswers:
    prompts, responses = [row["prompt"] for row in rows], [[row["response"]] for row in rows]
    candidates = encode_candidates(model.tokenizer, prompts, responses, **config.limits)
    return RatedAnswers(**vars(candidates), rating=targets[:, None])


def _centered_scores(
    model: RewardModel, rows: Sequence[dict[str, Any]], references: Dataset | None, config: RatingModelConfig
) -> RewardModel:
    """Shift the scores so that references, or else the answers, are worth 0."""
    reward = LearnedReward(model, **config.limits)
    if references is not None:
        some = references[:NUM_CENTERING]
        scores = reward(some["prompt"], some["completion"])
    else:
        some = rows[:NUM_CENTERING]
        scores = reward([row["prompt"] for row in some], [row["response"] for row in some])
    model.network.config.score_offset = model.network.config.score_offset + sum(scores) / len(scores)
    return model
