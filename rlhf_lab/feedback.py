"""Everything that judges text: the gold judge, learned rewards, any Python callable, and simulated people.

A reward is a function of texts, `(prompts, responses) -> one number each`. Simulated labelers read a summary as the
gold judge does, weigh its axes by their own tastes, and answer noisily: by comparing, rating or ranking.
"""

import functools
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from rlhf_lab.data.batching import encode_candidates
from rlhf_lab.data.judge import Judge
from rlhf_lab.data.labelers import VALUES, Labeler, values_of
from rlhf_lab.generation import SamplingConfig, distinct_pairs
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.scoring import candidate_scores

CONFIDENCE_STEPS = (0.4, 1.0, 1.8)
"""Felt differences (in units of a labeler's noise) at which confidence rises from 1 to 2, 3 and 4."""


@runtime_checkable
class Reward(Protocol):
    """Any function that scores responses."""

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> Sequence[float]:
        """One finite number for each response; more is better."""
        ...


@functools.cache
def gold_judge() -> Judge:
    """The judge of the world that ships, built once."""
    return Judge()


def _number(value: Any) -> float:
    """`value` as a number, NaN if it is not one."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several numbers
        return math.nan


def scores_of(reward: Reward, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, " batch"]:
    """What `reward` says, checked.

    Raises:
        ValueError: It raised, returned another number of scores than responses, or a score that is no finite number.
    """
    try:
        values = list(reward(list(prompts), list(responses)))
    except Exception as error:
        raise ValueError(f"the reward function raised {type(error).__name__}: {error}.") from error
    if len(values) != len(responses):
        raise ValueError(f"the reward function returned {len(values)} scores for {len(responses)} responses.")
    scores = torch.tensor([_number(value) for value in values])
    for score, value, response in zip(scores.tolist(), values, responses, strict=True):
        if not math.isfinite(score):
            raise ValueError(
                f"the reward function returned {value!r:.60} for the response {response!r:.80}: no finite number."
            )
    return scores


@dataclass(frozen=True)
class LearnedReward:
    """A reward model as a reward on texts."""

    model: RewardModel
    batch_size: int = 64
    max_prompt_tokens: int = 512
    max_response_tokens: int = 128

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The centred score at the EOS of each response; a prompt that repeats itself is read once."""
        groups = [
            (prompt, [response for _, response in pairs])
            for prompt, pairs in itertools.groupby(zip(prompts, responses, strict=True), key=lambda pair: pair[0])
        ]
        size = max(1, self.batch_size // max((len(texts) for _, texts in groups), default=1))
        scores: list[float] = []
        for start in range(0, len(groups), size):
            part = groups[start : start + size]
            batch = encode_candidates(
                self.model.tokenizer,
                [prompt for prompt, _ in part],
                [texts for _, texts in part],
                max_prompt_tokens=self.max_prompt_tokens,
                max_response_tokens=self.max_response_tokens,
            ).to(self.model.network.device)
            is_there = batch.response_mask.any(-1)
            scores += candidate_scores(self.model.network, batch)[is_there].tolist()
        return scores


@dataclass(frozen=True)
class Population:
    """Labelers who answer the same questions, with the noise that makes two of them agree as often as people do."""

    labelers: tuple[Labeler, ...]
    agreement: float = 0.73
    """Share of comparisons on which two labelers choose alike. Stiennon et al. 2020: 73 %."""
    judge: Judge = field(default_factory=gold_judge)

    def utilities(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """How much each labeler likes each response: (labelers responses)."""
        judgements = [self.judge.judge(*pair) for pair in zip(prompts, responses, strict=True)]
        return np.array([[labeler.utility(judgement) for judgement in judgements] for labeler in self.labelers])

    def temperature(self, differences: np.ndarray) -> float:
        """Noise at which two labelers, drawn at random, agree at the set rate on pairs with these differences.

        With p_i the population's mean probability of choosing the first of pair i, agreement is the mean of
        p_i^2 + (1 - p_i)^2.

        Args:
            differences: Utility of the first minus the second answer: (labelers pairs).

        Raises:
            ValueError: There are no pairs, or no temperature between exp(-6) and exp(6) gives that agreement.
        """
        if differences.size == 0:
            raise ValueError("there are no pairs of answers to ask people about; give at least one.")
        noise = np.array([labeler.noise for labeler in self.labelers])[:, None]

        def agreeing(log_temperature: float) -> float:
            prob = expit(differences / (noise * math.exp(log_temperature))).mean(0)
            return float((prob**2 + (1 - prob) ** 2).mean())

        least, most = agreeing(6.0), agreeing(-6.0)
        if not least <= self.agreement <= most:
            raise ValueError(
                f"two labelers agree on {least:.0%} to {most:.0%} of these pairs, whatever the temperature, never on "
                f"{self.agreement:.0%}; change the agreement, the labelers' noise, or the pairs."
            )
        solution: Any = brentq(lambda at: agreeing(at) - self.agreement, -6.0, 6.0)
        return math.exp(solution)

    def felt(self, differences: np.ndarray, rng: np.random.Generator, temperature: float | None = None) -> np.ndarray:
        """Difference that each labeler feels at one asking [noise]; its sign is the choice: (labelers pairs)."""
        temperature = temperature or self.temperature(differences)
        noise = np.array([labeler.noise for labeler in self.labelers])[:, None]
        return differences / (noise * temperature) + rng.logistic(size=differences.shape)

    def compare(
        self, prompts: Sequence[str], pairs: Sequence[tuple[str, str]], *, num_labels: int = 1, seed: int = 0
    ) -> Dataset:
        """Choices of one labeler for each pair, or of several, as comparisons with `labeler` and `confidence` (1 to 4).

        The choices about one pair follow each other, and are by different labelers.

        Raises:
            ValueError: There are no pairs, or not as many labelers as labels of a pair.
        """
        felt = self.felt(self._differences(prompts, pairs), np.random.default_rng(seed))
        rng = np.random.default_rng([seed, 1])
        if num_labels == 1:
            asked = rng.integers(len(self.labelers), size=(1, len(pairs)))
        else:
            asked = self._different(len(pairs), num_labels, rng)
        rows = []
        for place, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True)):
            for index in asked[:, place]:
                value = felt[index, place]
                chosen, rejected = pair if value > 0 else pair[::-1]
                confidence = 1 + sum(abs(value) > step for step in CONFIDENCE_STEPS)
                row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
                rows.append(row | {"labeler": self.labelers[index].id, "confidence": confidence})
        return Dataset.from_list(rows)

    def votes(
        self, prompts: Sequence[str], pairs: Sequence[tuple[str, str]], num_labelers: int, *, seed: int = 0
    ) -> np.ndarray:
        """True where a labeler chooses the first answer; labelers are drawn for each pair: (num_labelers pairs)."""
        felt = self.felt(self._differences(prompts, pairs), np.random.default_rng(seed))
        order = self._different(len(pairs), num_labelers, np.random.default_rng([seed, 1]))
        return np.take_along_axis(felt, order, axis=0) > 0

    def _different(self, num_pairs: int, num_labelers: int, rng: np.random.Generator) -> np.ndarray:
        """Different labelers for each pair: (num_labelers, pairs)."""
        if not 1 <= num_labelers <= len(self.labelers):
            raise ValueError(
                f"{num_labelers} different labelers were asked for, the population has {len(self.labelers)}."
            )
        return np.stack([rng.permutation(len(self.labelers))[:num_labelers] for _ in range(num_pairs)], axis=1)

    def rate(self, prompts: Sequence[str], responses: Sequence[str], *, seed: int = 0) -> np.ndarray:
        """1 to 7 by every labeler, each with an own use of the scale: (labelers responses)."""
        rng = np.random.default_rng(seed)
        utilities = self.utilities(prompts, responses)
        offset = np.array([labeler.rating_offset for labeler in self.labelers])[:, None]
        scale = np.array([labeler.rating_scale for labeler in self.labelers])[:, None]
        middle = utilities.mean()
        ratings = middle + offset + scale * (utilities - middle) + rng.normal(scale=0.8, size=utilities.shape)
        return np.clip(np.round(ratings), 1, 7).astype(int)

    def rank(self, prompts: Sequence[str], groups: Sequence[Sequence[str]], *, seed: int = 0) -> list[list[int]]:
        """One labeler's ranks (1 the best) for each prompt's K answers, as reliable as comparisons of their pairs."""
        liked = [self.utilities([prompt] * len(group), group) for prompt, group in zip(prompts, groups, strict=True)]
        differences = [one - two for utilities in liked for one, two in itertools.combinations(utilities.T, 2)]
        temperature = self.temperature(np.array(differences).T)
        ranks, rng = [], np.random.default_rng(seed)
        for utilities in liked:
            asked = rng.integers(len(self.labelers))
            # The difference of two Gumbel numbers is logistic, as the noise of a comparison is.
            felt = utilities[asked] / (self.labelers[asked].noise * temperature) + rng.gumbel(size=utilities.shape[1])
            ranks.append((len(felt) - felt.argsort().argsort()).tolist())
        return ranks

    def _differences(self, prompts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        first = self.utilities(prompts, [pair[0] for pair in pairs])
        return first - self.utilities(prompts, [pair[1] for pair in pairs])


def population(
    values: str | Mapping[str, float] = "general", *, num_labelers: int = 20, seed: int = 0, agreement: float = 0.73
) -> Population:
    """Simulated people who share values but not tastes.

    Args:
        values: A name of `VALUES`, or several joined by "+", in equal parts, or each with its share of the labelers, as
            in {"thorough": 0.8, "brief": 0.2}.
        num_labelers: How many, over all groups.
        seed: Draws their tastes.
        agreement: How often two of them choose alike.

    Raises:
        ValueError: Unknown values, shares that are negative, do not add up to 1 or give nobody, no labelers, or an
            agreement that is no rate above one half.
    """
    if not 0.5 < agreement < 1.0:
        raise ValueError(f"agreement must lie between 0.5 and 1, not {agreement}.")
    names = values_of(values, num_labelers)
    rng = random.Random(f"{values}/{seed}")
    labelers = []
    for index, name in enumerate(names):
        axes, tastes = VALUES[name]
        labelers.append(
            Labeler(
                id=f"{name}-{index:02d}",
                values=name,
                axes={axis: weight * math.exp(rng.gauss(0, 0.25)) for axis, weight in axes.items()},
                tastes={
                    kind: tastes.get(kind, 0.0) + rng.gauss(0, {"words": 0.02, "detail": 0.1}.get(kind, 0.2))
                    for kind in ("words", "hedge", "sure", "polite", "complaint", "feeling", "detail")
                },
                noise=math.exp(rng.gauss(0, 0.25)),
                rating_offset=rng.gauss(0, 0.7),
                rating_scale=math.exp(rng.gauss(0, 0.3)),
            )
        )
    return Population(tuple(labelers), agreement)


def simulated_labels(
    policy: Policy | Sequence[Policy],
    prompts: Dataset,
    *,
    num_pairs: int,
    people: Population | None = None,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
) -> Dataset:
    """Comparisons of two samples for each of `num_pairs` prompts, by simulated people.

    The prompts and samples are those of `distinct_pairs`: both of one policy, or of two drawn from several.

    Raises:
        ValueError: There are no prompts or no policies, or the policy writes the same text for every sample.
    """
    texts = [row["prompt"] for row in prompts.to_list()]
    asked, pairs = distinct_pairs(policy, texts, num_pairs, sampling, seed=seed)
    return (people or population(seed=seed)).compare(asked, pairs, seed=seed)
