"""Feedback from a model in place of people (RLAIF): a language model that nobody asked for an opinion gives one.

Lee et al. 2023, arXiv:2309.00267, ask a large model in words which of two summaries is better. Ours are too small to be
asked in words, and need not be: what they know of a post and its summary is in their probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from scipy.special import expit

from rlhf_lab.data.batching import encode_candidates
from rlhf_lab.feedback import Reward, scores_of
from rlhf_lab.models import Policy
from rlhf_lab.records import QUERY_TEMPLATE
from rlhf_lab.scoring import candidate_logprobs

NO_POST = QUERY_TEMPLATE.format(subreddit="", title="", post="")


@dataclass(frozen=True)
class InformationReward:
    """How much more a language model expects a response once it has read the prompt: their mutual information [nats].

        r(x, y) = log p(y | x) - log p(y)

    Each fact of the post that is told raises it, a fact of no post lowers it, and what fits any post counts nothing.

    InformationReward(load_base("large"))(["SUBREDDIT: r/pets ... TL;DR:"], [" My cat left."])

    Reference:
        van der Poel et al. 2022, arXiv:2210.13210, eq. 5 there for a token, to decode with.
    """

    model: Policy
    without: str = NO_POST
    """Prompt that says nothing: p(y) is what the model expects after it."""
    batch_size: int = 64
    max_prompt_tokens: int = 512
    max_response_tokens: int = 128

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Of each response, EOS included."""
        informed = self._logprobs(prompts, responses)
        alone = self._logprobs([self.without] * len(responses), responses)
        return [one - other for one, other in zip(informed, alone, strict=True)]

    @torch.no_grad()
    def _logprobs(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        limits = {"max_prompt_tokens": self.max_prompt_tokens, "max_response_tokens": self.max_response_tokens}
        found: list[float] = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            texts = [[response] for response in responses[rows]]
            batch = encode_candidates(self.model.tokenizer, list(prompts[rows]), texts, **limits)
            found += candidate_logprobs(self.model.network, batch.to(self.model.network.device)).sum((1, 2)).tolist()
        return found


def model_labels(
    judge: Reward,
    prompts: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    *,
    temperature: float | None = None,
    labeler: str = "model",
) -> Dataset:
    """A model's choice for each pair, as comparisons like those of people.

    A model that judges one answer at a time has no position bias; one that is shown both has, and must be asked twice.

    Args:
        judge: What the model says of an answer, such as `InformationReward(model)` or `LearnedReward(model)`.
        prompts: One for each pair.
        pairs: Two different answers to it.
        temperature: Difference of two judgements at which the odds are e to 1: labels are then soft, with
            `chosen_prob` sigma(difference / temperature), as in Lee et al. 2023, section 3.1. None: plain choices.
        labeler: Whose labels they are called.

    Raises:
        ValueError: As many prompts as pairs there are not, a temperature of 0 or below, or what `scores_of` refuses.
    """
    if len(prompts) != len(pairs):
        raise ValueError(f"there are {len(prompts)} prompts for {len(pairs)} pairs; give one for each.")
    if temperature is not None and temperature <= 0:
        raise ValueError(f"temperature must be above 0, or None for plain choices, not {temperature}.")
    first, second = (scores_of(judge, prompts, [pair[place] for pair in pairs]).tolist() for place in (0, 1))
    rows = []
    for prompt, pair, one, other in zip(prompts, pairs, first, second, strict=True):
        chosen, rejected = pair if one >= other else pair[::-1]
        prob = 1.0 if temperature is None else float(expit(abs(one - other) / temperature))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "chosen_prob": prob})
    return Dataset.from_list([row | {"labeler": labeler} for row in rows])
