"""Notebook 05, its second half: what a win rate has to do with length."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.evaluation import length_controlled


def _truth_at_equal_length() -> list[str]:
    return ["higher", "higher", "lower", "hardly at all"]


def _all_lower() -> list[str]:
    """Control does not only take.

    Whoever writes less than the reference was at a disadvantage that is now gone: look at the mean words again.
    """
    return ["lower", "lower", "lower", "hardly at all"]


def _nothing_changes_the_lead() -> list[str]:
    """Each moves as you say, so what happens to the distance between the two? One goes up, the other down."""
    return ["higher", "higher", "lower", "by 35 points, as before"]


def _half_the_lead() -> list[str]:
    """The direction is right. The lead shrinks more than that: half of what feedback changed, and more, is length."""
    return ["higher", "higher", "lower", "by about 20 points"]


def _only_the_long_one_moves() -> list[str]:
    """Human feedback loses what its length gave. But the others write less than the reference: what was that worth?"""
    return ["the same", "the same", "lower", "by about 20 points"]


EQUAL_LENGTH_PREDICTION = Exercise(
    id="equal-length-prediction",
    title="What will be left at equal length?",
    kind="predict",
    points=2,
    minutes=4,
    difficulty=2,
    reference=_truth_at_equal_length,
    cases=lambda rng: [Case(title="your four answers")],
    mistakes=(_all_lower, _nothing_changes_the_lead, _half_the_lead, _only_the_long_one_moves),
    variants=(lambda: ["higher", "higher", "lower", "hardly at all"], lambda: [*_truth_at_equal_length()]),
)


def _features(words: np.ndarray, reference_words: np.ndarray) -> np.ndarray:
    return np.log(words / reference_words)


def _fit(feature: np.ndarray, outcomes: np.ndarray, *, ridge: float = 1e-3) -> np.ndarray:
    """Slope and intercept of the logistic curve, by Newton's method."""
    design = np.stack([feature, np.ones_like(feature)], axis=1)
    weights = np.zeros(2)
    for _ in range(25):
        prob = expit(design @ weights)
        gradient = design.T @ (prob - outcomes) + ridge * weights
        hessian = (design * (prob * (1 - prob))[:, None]).T @ design + ridge * np.eye(2)
        weights = weights - np.linalg.solve(hessian, gradient)
    return weights


def _at_equal_length(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    texts = [[" word" * int(number) for number in counts] for counts in (words, reference_words)]
    return length_controlled(outcomes, *texts).mean


def _length_cases(rng: np.random.Generator) -> list[Case]:
    def posts(number: int, ratio: float, slope: float, title: str, *, ties: bool = False) -> Case:
        reference_words = rng.integers(10, 30, size=number).astype(float)
        words = np.maximum(3.0, np.round(reference_words * ratio * np.exp(rng.normal(0, 0.35, size=number))))
        prob = expit(slope * _features(words, reference_words) - 0.4)
        outcomes = (rng.uniform(size=number) < prob).astype(float)
        if ties:
            outcomes[rng.permutation(number)[: number // 4]] = 0.5
        # Both outcomes occur, so that the fit is never a matter of the ridge alone.
        outcomes[:2] = (0.0, 1.0)
        return Case(title=title, args=(outcomes, words, reference_words))

    alike = np.array([1.0, 0.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0]), np.full(8, 20.0), np.full(8, 20.0)
    return [
        posts(120, 1.4, 2.0, "a policy that writes more, and gains by it"),
        posts(120, 0.6, 2.0, "a policy that writes less, and loses by it"),
        posts(80, 1.5, -1.0, "a policy that loses by writing more"),
        posts(80, 1.3, 2.0, "with ties", ties=True),
        Case(title="all lengths alike", args=alike),
    ]


def _through_the_origin(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    """A curve without an intercept goes through one half at equal length, whatever the outcomes.

    The intercept is what you are looking for.
    """
    return 0.5


def _ratio_itself(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    """Where is equal length? The intercept is read where the feature is 0, and the ratio of equal lengths is 1."""
    return float(expit(_fit(words / reference_words, outcomes)[1]))


def _fitted_mean(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    """The mean of the curve over the posts is the win rate that you had: read the curve at equal length instead."""
    feature = _features(words, reference_words)
    weights = _fit(feature, outcomes)
    return float(expit(weights[0] * feature + weights[1]).mean())


def _log_odds(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    """The intercept is in log odds. A win rate is a probability: what turns one into the other?"""
    return float(_fit(_features(words, reference_words), outcomes)[1])


def _difference_of_words(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    """The feature is the log of the ratio, not the difference of words.

    Ten words more are much beside a short reference, and little beside a long one.
    """
    return float(expit(_fit(words - reference_words, outcomes)[1]))


def _by_minimizing(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    feature = np.log(words) - np.log(reference_words)

    def loss(weights: np.ndarray) -> float:
        logits = weights[0] * feature + weights[1]
        return float((np.logaddexp(0.0, logits) - outcomes * logits).sum() + 5e-4 * weights @ weights)

    return float(expit(minimize(loss, np.zeros(2), method="BFGS", tol=1e-9).x[1]))


def _reference_over_response(outcomes: np.ndarray, words: np.ndarray, reference_words: np.ndarray) -> float:
    # The slope changes its sign, and the intercept stays.
    return float(1 / (1 + np.exp(-_fit(np.log(reference_words / words), outcomes)[1])))


EQUAL_LENGTH = Exercise(
    id="equal-length",
    title="The win rate at equal length",
    kind="implement",
    points=3,
    minutes=20,
    difficulty=3,
    reference=_at_equal_length,
    cases=_length_cases,
    mistakes=(_through_the_origin, _ratio_itself, _fitted_mean, _log_odds, _difference_of_words),
    variants=(_by_minimizing, _reference_over_response),
    tolerance=1e-4,
    masked=("rlhf_lab.evaluation.length_controlled", "rlhf_lab.evaluation._intercept"),
)
