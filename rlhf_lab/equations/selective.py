"""Answering only when sure: what is gained on the questions that are answered, by how many are."""

import numpy as np
from jaxtyping import Float, Real


def selective_rate(
    scores: Real[np.ndarray, " questions"],
    outcomes: Real[np.ndarray, " questions"],
    coverage: Real[np.ndarray, " points"] | float,
) -> Float[np.ndarray, "*points"]:
    """Mean outcome of the questions that are answered, if those of the highest scores are.

        R(c) = 1 / (c N) sum_{i=1..cN} outcome_(i),   questions sorted by score, highest first

    One minus it is the selective risk, where outcomes are 0 or 1. Questions of equal score are answered as if drawn at
    random among them, and where c N is no whole number the last question counts in part. So scores that say nothing
    give the mean outcome at every coverage, in expectation.

    Args:
        scores: How sure one is of each answer.
        outcomes: What each answer is worth, such as 1 where it is right.
        coverage: c, the share of questions that are answered, above 0 and at most 1; one or several.

    Raises:
        ValueError: No questions, not as many scores as outcomes, a score that is NaN, or a coverage outside (0, 1].

    Reference:
        El-Yaniv and Wiener 2010, J. Mach. Learn. Res. 11:1605, section 2; Menick et al. 2022, arXiv:2203.11147, answer
        where a reward model's score is above a threshold.

    Example:
        >>> scores, outcomes = np.array([0.9, 0.1, 0.5, 0.5]), np.array([1.0, 0.0, 1.0, 0.0])
        >>> selective_rate(scores, outcomes, np.array([0.25, 0.5, 0.75, 1.0])).round(3)
        array([1.   , 0.75 , 0.667, 0.5  ])
    """
    scores, outcomes = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    coverage = np.asarray(coverage, dtype=np.float64)
    if not 0 < len(scores) == len(outcomes):
        raise ValueError(f"each answer needs a score and an outcome; there are {len(scores)} and {len(outcomes)}.")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN, so the answers have no order; drop that question.")
    outside = coverage[~((coverage > 0) & (coverage <= 1))]
    if outside.size:
        raise ValueError(f"coverage is a share of the questions, above 0 and at most 1, not {outside.flat[0]}.")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    answered = np.concatenate([[0.0], np.cumsum(sizes)])
    total = np.concatenate([[0.0], np.cumsum(np.bincount(group, weights=outcomes))])
    wanted = coverage * len(scores)
    return np.asarray(np.interp(wanted, answered, total) / wanted)
