"""Selective answering: by hand, by simulation of ties, and what is refused."""

import numpy as np
import pytest

from rlhf_lab.equations.selective import selective_rate

OUTCOMES = np.array([1.0, 0.0, 1.0, 1.0])


def test_the_surest_are_answered_first() -> None:
    scores = np.array([3.0, 1.0, 4.0, 2.0])
    assert selective_rate(scores, OUTCOMES, np.array([0.25, 0.75, 1.0])).tolist() == [1.0, 1.0, 0.75]
    assert selective_rate(-scores, OUTCOMES, np.array([0.25, 0.5, 1.0])).tolist() == [0.0, 0.5, 0.75]


def test_a_part_of_a_question_counts_in_part() -> None:
    # 1.5 questions: the wrong one, and half of a right one.
    assert selective_rate(np.array([3.0, 4.0, 1.0, 2.0]), OUTCOMES, 0.375) == pytest.approx(0.5 / 1.5)


def test_ties_are_broken_as_if_at_random() -> None:
    scores, rng = np.array([1.0, 1.0, 1.0, 0.0]), np.random.default_rng(0)
    drawn = [selective_rate(scores + 0.5 * rng.random(4), OUTCOMES, 0.5) for _ in range(1000)]
    assert selective_rate(scores, OUTCOMES, 0.5) == pytest.approx(2 / 3)
    assert np.mean(drawn) == pytest.approx(2 / 3, abs=0.04)


def test_scores_that_say_nothing_gain_nothing() -> None:
    coverage = np.linspace(0.1, 1.0, 10)
    assert selective_rate(np.zeros(4), OUTCOMES, coverage) == pytest.approx(np.full(10, 0.75))


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"coverage is a share .* not 0\.0"):
        selective_rate(np.zeros(4), OUTCOMES, np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="there are 0 and 0"):
        selective_rate(np.zeros(0), np.zeros(0), 1.0)
    with pytest.raises(ValueError, match="a score is NaN"):
        selective_rate(np.array([np.nan, 0, 0, 0]), OUTCOMES, 1.0)
