"""Several answers to each post, and whether they beat the poster's own: sampled once, chosen from by any reward."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from rlhf_lab.data.datasets import column
from rlhf_lab.equations.overoptimization import best_of_n_values
from rlhf_lab.evaluation import wins
from rlhf_lab.feedback import Reward, gold_judge, scores_of
from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.models import Policy


@dataclass(frozen=True)
class Samples:
    """A policy's answers."""

    prompts: list[str]
    groups: list[list[str]]
    """As many answers to each prompt."""
    won: np.ndarray
    """1 where the gold judge likes an answer better than the poster's own summary, 0.5 at a tie: (posts, samples)."""

    @classmethod
    def of(cls, policy: Policy, posts: Dataset, number: int, sampling: SamplingConfig, *, seed: int) -> "Samples":
        """`number` answers of `policy` to each post."""
        prompts, judge = column(posts, "prompt"), gold_judge()
        rng = torch.Generator().manual_seed(seed)
        groups = generate(policy, prompts, sampling, num_candidates=number, rng=rng)
        truth = judge(prompts, column(posts, "completion"))
        won = [
            wins(judge([prompt] * number, group), [grade] * number)
            for prompt, group, grade in zip(prompts, groups, truth, strict=True)
        ]
        return cls(prompts, groups, np.array(won))

    @property
    def texts(self) -> list[str]:
        """All answers, post by post."""
        return list(itertools.chain(*self.groups))

    def scores(self, reward: Reward) -> np.ndarray:
        """(posts, samples)."""
        repeated = [prompt for prompt, group in zip(self.prompts, self.groups, strict=True) for _ in group]
        return scores_of(reward, repeated, self.texts).numpy().reshape(self.won.shape)

    def best_of(self, scores: np.ndarray, n: int) -> np.ndarray:
        """For each post, how often the best of n by score beats the poster's own, over all sets of n samples."""
        # Sums of many shares may miss 1 by a rounding.
        return best_of_n_values(scores, self.won, n).clip(0.0, 1.0)
