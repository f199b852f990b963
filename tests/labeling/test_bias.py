"""Biases: counted by hand, fitted again by other means, and unmoved by how a pair is written down."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from rlhf_lab.labeling.bias import (
    by_labeler,
    drift,
    length_bias,
    length_regression,
    position_bias,
    quick_answers,
    time_per_item,
)

EXACT = 1e-9
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TIE = {"choice": "tie"}


def label(item: str = "1", *, second: bool = False, shown: Sequence[int] = (0, 1), **fields: Any) -> dict[str, Any]:
    """A comparison in which the first answer, or the second, is better."""
    row = {"item": item, "kind": "compare", "labeler": "ana", "labeler_kind": "person", "prompt": f"post {item}"}
    row |= {"answers": ["one two three", "one"], "sides": list(shown), "gold": None, "info": {}, "seconds": 10.0}
    return row | {"value": {"scale": 8, "step": 7 if second else 2}, "created_at": START} | fields


def turned(row: dict[str, Any]) -> dict[str, Any]:
    """The same label of the same item, whose answers are kept in the other order."""
    value = row["value"] if "choice" in row["value"] else {"scale": 8, "step": 9 - row["value"]["step"]}
    sides = [1 - side for side in row["sides"]]
    return row | {"answers": row["answers"][::-1], "sides": sides, "value": value}


def simulated(
    num_items: int = 60, *, position: float = 0.5, length: float = 0.4, seed: int = 0
) -> list[dict[str, Any]]:
    """Three labels an item, whose log-odds are `position`, `length` for each ten words, and the item's own part."""
    rng, rows = np.random.default_rng(seed), []
    for item in range(num_items):
        words, own = rng.integers(1, 60, size=2), rng.normal(0, 0.7)
        for labeler in "abc":
            sides = rng.permutation(2).tolist()
            logit = (position if sides == [0, 1] else -position) + length * (words[0] - words[1]) / 10 + own
            answers = ["word " * int(num) for num in words]
            second = bool(rng.random() > expit(logit))
            rows.append(label(str(item), second=second, shown=sides, answers=answers, labeler=labeler))
    return rows


def test_position_bias_is_the_exact_test_on_what_was_shown_first() -> None:
    rows = [label(str(i), shown=(0, 1)) for i in range(6)] + [label(str(i), shown=(1, 0)) for i in range(6, 8)]
    rows += [
        label("8", second=True, shown=(1, 0)),
        label("9", value=TIE),
        label("9", value={"choice": "cannot_compare"}),
    ]
    found = position_bias(rows)
    assert (found.value, found.n) == (pytest.approx(7 / 9, abs=EXACT), 9)
    assert (found.low, found.high) == pytest.approx(proportion_confint(7, 9, method="wilson"), abs=EXACT)
    assert found.p_value == pytest.approx(binomtest(7, 9).pvalue, abs=EXACT)
    assert found.p_value == pytest.approx(2 * (36 + 9 + 1) / 2**9, abs=EXACT), "C(9,7) + C(9,8) + C(9,9), both sides"


def test_length_bias_counts_the_longer_answer_and_resamples_items() -> None:
    rows = [label("1"), label("1", labeler="ben"), label("2", second=True), label("3", answers=["one", "two"])]
    found = length_bias(rows)
    assert (found.value, found.n) == (pytest.approx(2 / 3, abs=EXACT), 2), "two items, the third has no longer answer"
    assert found.low == 0
    assert found.high == 1
    assert length_bias([label("1", answers=["a-b c!", "one two three"])]).value == 0, "words, not letters"


def test_rankings_count_for_length_but_not_for_position() -> None:
    ranking = label(kind="rank", value={"ranks": [1, 2, 3]}, answers=["a", "a b", "a b c"], sides=[0, 1, 2])
    assert not position_bias([ranking]).is_known
    assert (length_bias([ranking]).value, length_bias([ranking]).n) == (0.0, 1)


@pytest.mark.parametrize("measure", [position_bias, length_bias, length_regression])
def test_the_order_in_which_answers_are_kept_does_not_matter(measure: Any) -> None:
    rows = simulated()
    some = [turned(row) if int(row["item"]) % 3 == 0 else row for row in rows]
    assert repr(measure(some)) == repr(measure(rows))


def test_the_regression_is_the_one_with_position_as_a_covariate() -> None:
    """Fitted again by minimizing the likelihood in the items' own order; its sandwich is written out."""
    rows = simulated()
    side = np.array([1.0 if row["sides"] == [0, 1] else -1.0 for row in rows])
    longer = np.array([len(row["answers"][0].split()) - len(row["answers"][1].split()) for row in rows]) / 10
    first = np.array([row["value"]["step"] < 5 for row in rows], dtype=float)
    design = np.stack([side, longer], axis=1)

    def loss(weights: np.ndarray) -> float:
        return float(np.logaddexp(0, design @ weights).sum() - first @ design @ weights)

    weights = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-8}).x
    prob = expit(design @ weights)
    bread = np.linalg.inv((design * (prob * (1 - prob))[:, None]).T @ design)
    scores = ((first - prob)[:, None] * design).reshape(60, 3, 2).sum(1)
    correction = 60 / 59 * (180 - 1) / (180 - 2)
    errors = np.sqrt(np.diag(correction * bread @ scores.T @ scores @ bread))
    found = length_regression(rows)
    for name, weight, error in zip(("position", "length"), weights, errors, strict=True):
        assert found[name].value == pytest.approx(weight, abs=1e-6)
        assert found[name].high - found[name].low == pytest.approx(2 * 1.959964 * error, rel=1e-5)
        assert found[name].n == 180


def test_the_regression_tells_position_from_length() -> None:
    only_length = length_regression(simulated(400, position=0.0, length=0.4))
    assert only_length["position"].low < 0 < only_length["position"].high
    assert only_length["length"].low > 0.2
    only_position = length_regression(simulated(400, position=0.8, length=0.0))
    assert only_position["position"].low > 0.4
    assert only_position["length"].low < 0 < only_position["length"].high


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "there are 0"),
        ([label(str(i)) for i in range(9)], "there are 9"),
        ([label(str(i), answers=["one", "two"], second=i % 2 == 0) for i in range(20)], "same number of words"),
        ([label(str(i), shown=(0, 1) if i % 2 else (1, 0)) for i in range(20)], "infinite"),
    ],
)
def test_a_regression_that_has_no_answer_says_why(rows: list[dict[str, Any]], reason: str) -> None:
    found = length_regression(rows)
    assert set(found) == {"position", "length"}
    for estimate in found.values():
        assert not estimate.is_known
        assert reason in estimate.reason


def test_one_exception_makes_the_regression_finite() -> None:
    """The last case above, but for two labels of twenty: then the longer answer does not always win."""
    rows = [label(str(i), shown=(0, 1) if i % 2 else (1, 0), second=i < 2) for i in range(20)]
    assert length_regression(rows)["length"].is_known


@pytest.mark.parametrize("rows", [[], [label(value=TIE)], [label(value={"choice": "cannot_compare"})]])
def test_without_a_choice_no_bias_is_known(rows: list[dict[str, Any]]) -> None:
    for found in (position_bias(rows), length_bias(rows)):
        assert not found.is_known
        assert found.reason


def test_time_is_quartiles_of_what_was_measured() -> None:
    found = time_per_item([label(seconds=seconds) for seconds in (0.0, 1.0, 2.0, 3.0, 4.0, 100.0)])
    assert found == {"median": 3.0, "lower_quartile": 2.0, "upper_quartile": 4.0, "n": 5.0}
    nothing = time_per_item([label(seconds=0.0)])
    assert nothing["n"] == 0
    assert math.isnan(nothing["median"])


def test_quick_answers_are_those_that_nobody_can_have_read() -> None:
    """100 words of prompt and 20 of answers take 12 seconds at 600 words a minute; 2 if the prompt is known."""
    texts: dict[str, Any] = {"prompt": "word " * 100, "answers": ["word " * 15, "word " * 5]}
    later = START + datetime.timedelta(minutes=1)
    rows = [
        label("1", seconds=11.9, **texts),
        label("2", seconds=2.1, created_at=later, **texts),
        label("3", seconds=1.9, created_at=later, **texts),
        label("1", seconds=12.1, labeler="ben", **texts),
        label("4", seconds=0.0, labeler="cy", **texts),
        label("5", seconds=0.1, labeler="dee", kind="chat", prompt="word " * 100, answers=[]),
    ]
    assert [(row["labeler"], row["item"]) for row in quick_answers(rows)] == [("ana", "1"), ("ana", "3")]
    assert len(quick_answers(rows, words_per_minute=300)) == 4
    assert quick_answers([]) == []


def test_labelers_labels_are_in_the_order_of_answering() -> None:
    rows = [label(str(i), created_at=START + datetime.timedelta(seconds=-i), labeler="ab"[i % 2]) for i in range(4)]
    assert {name: [row["item"] for row in mine] for name, mine in by_labeler(rows).items()} == {
        "b": ["3", "1"],
        "a": ["2", "0"],
    }


def test_drift_by_hand() -> None:
    """Ana is right in her first two labels and wrong in her last; two others choose the first answer throughout."""
    rows = []
    for i, second in enumerate((False, False, True, True)):
        at = START + datetime.timedelta(seconds=i)
        rows.append(label(str(i), second=second, gold=0, seconds=20.0 - i, created_at=at, shown=(0, 1)))
        other: Any = {"created_at": at, "shown": (1, 0), "seconds": 0.0, "gold": 0}
        rows += [label(str(i), labeler=name, **other) for name in ("ben", "cy")]
    found = {(row["labeler"], row["block"]): row for row in drift(rows[::-1], num_blocks=2)}
    assert len(found) == 6
    first, last = found["ana", 1], found["ana", 2]
    assert (first["gold"], last["gold"]) == (1, 0)
    assert (first["majority"], last["majority"]) == (1, 0)
    assert (first["first"], last["first"]) == (1, 0)
    assert (first["seconds"], last["seconds"]) == (19.5, 17.5)
    assert (first["n"], first["labeler_kind"]) == (2, "person")
    assert found["ben", 1]["majority"] == 1
    assert math.isnan(found["ben", 2]["majority"]), "ana and cy are split"
    assert math.isnan(found["ben", 1]["seconds"])
    assert math.isnan(drift([row | {"gold": None} for row in rows], num_blocks=2)[0]["gold"])


def test_who_gave_too_few_labels_does_not_drift() -> None:
    rows = [label(str(i), labeler="ana") for i in range(5)] + [label(str(i), labeler="ben") for i in range(4)]
    assert {row["labeler"] for row in drift(rows)} == {"ana"}
    assert drift([]) == []


def test_of_a_ranking_the_places_count_at_which_answers_were_shown() -> None:
    """Shown as 2, 0, 1 and ranked 0, 2, 1: of 0 and 1, and of 2 and 1, the one shown first is preferred."""
    ranking = label(kind="rank", value={"ranks": [1, 3, 2]}, answers=["a", "b", "c"], sides=[2, 0, 1])
    assert drift([ranking], num_blocks=1)[0]["first"] == pytest.approx(2 / 3, abs=EXACT)
