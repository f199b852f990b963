"""Minutes of people's time: what a label takes is stated and may be another, and the figure follows."""

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from rlhf_lab.experiments.systems import other_feedback, rating_scales
from rlhf_lab.experiments.systems.people_time import (
    DECISION,
    POST_WORDS,
    SECONDS,
    SUMMARY_WORDS,
    WORDS_READ,
    WORDS_TYPED,
    WORK,
    asked,
    labels_in,
    minutes_of,
    words_written,
)
from rlhf_lab.feedback import Labeler, Population, population


def test_seconds_are_reading_deciding_and_typing() -> None:
    assert SECONDS["rate"] == (POST_WORDS + SUMMARY_WORDS) / WORDS_READ + DECISION == 25.25
    assert SECONDS["rank"] == (65 + 4 * 20) / 4 + 5 * 4
    assert SECONDS["edit"] == pytest.approx((2 * 65 + 20) / 4 + 5 * 4 + WORK["edit"][3] / WORDS_TYPED)
    assert SECONDS["compare"] < SECONDS["rank"] < SECONDS["edit"]


def test_minutes_buy_labels_at_any_pace() -> None:
    assert [labels_in(kind, 60.0) for kind in ("rate", "compare")] == [142, 119]
    assert labels_in("compare", 60.0, {"compare": 10.0}) == 360
    assert minutes_of("compare", labels_in("compare", 60.0)) == pytest.approx(60, abs=0.6)


@pytest.mark.parametrize(
    ("kind", "seconds", "message"),
    [
        (
            "telepathy",
            SECONDS,
            "a kind of feedback is one of rate, thumbs, compare, rank, edit, comment, not 'telepathy'",
        ),
        ("rate", {"rate": 0.0}, "a label of the kind rate takes a time above 0, not 0.0 seconds"),
        ("rate", {"rate": float("nan")}, "takes a time above 0, not nan"),
    ],
)
def test_what_takes_no_time_is_refused(kind: str, seconds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minutes_of(kind, 3, seconds)
    with pytest.raises(ValueError, match=message):
        labels_in(kind, 3.0, seconds)


def table() -> list[dict[str, Any]]:
    """Two seeds, two budgets: written feedback is halves of a kind and of comparisons."""
    rows = [{"way": "supervised", "kind": "", "num_labels": 0, "num_comparisons": 0, "gold": 4.0}]
    for way in other_feedback.NAMES:
        kind = way.partition(",")[0]
        rows += [
            {
                "way": way,
                "kind": kind,
                "num_labels": 10 * place,
                "num_comparisons": 6 * (way == "comment"),
                "gold": 4.0 + place + seed,
            }
            for place in (1, 2)
            for seed in (0, 1)
        ]
    return [row | {"win_rate": 0.5, "length": 20.0, "words": 12.0, "seed": index % 2} for index, row in enumerate(rows)]


def test_the_figure_follows_another_pace() -> None:
    slow = dict.fromkeys(SECONDS, 60.0) | {"compare": 120.0}
    (compared,) = [point for point in other_feedback.points_of(table(), "compare", slow) if point["num_labels"] == 10]
    assert (compared["minutes"], compared["gold"], compared["lowest"], compared["highest"]) == (20.0, 5.5, 5.0, 6.0)
    first = other_feedback.points_of(table(), "comment", slow)[0]
    assert first["minutes"] == 10 + 6 * 2
    axes = other_feedback.figures(table(), slow)["other_feedback"]
    lines = {line.get_label(): line.get_xdata() for line in axes.lines}
    np.testing.assert_allclose(np.asarray(lines["comparisons"], dtype=float), [20.0, 40.0])
    plt.close("all")
    with pytest.raises(ValueError, match=r"a way of asking is one of rate; thumbs; .*, not 'edits'"):
        other_feedback.points_of(table(), "edits")


def test_everybody_is_asked_in_turn_and_careful_people_write() -> None:
    people = population(num_labelers=3)
    prompts, answers = [f"P{index}" for index in range(6)], [[" My cat left."]] * 6
    labels = asked("comment", people, prompts, answers, temperature=1.0, careful=True)
    assert [label["labeler"] for label in labels] == 2 * [one.id for one in people.labelers]
    assert all(label["kind"] == "rate" and set(label["value"]["axes"]) >= {"overall"} for label in labels)
    assert (
        words_written(
            [{"value": {"spans": [{"text": "two words"}]}, "comment": ""}, {"value": {}, "comment": "a b c d"}]
        )
        == 3
    )


def test_uses_of_the_scale_are_spread_as_told() -> None:
    one = Labeler(id="a", axes={"overall": 1.0}, tastes={}, rating_offset=0.5, rating_scale=2.0)
    people = Population((one,))
    found = [rating_scales._spread(people, scale).labelers[0] for scale in (0.0, 1.0, 2.0)]
    assert [(labeler.rating_offset, labeler.rating_scale) for labeler in found] == [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)]


def test_agreement_counts_pairs_that_are_no_ties() -> None:
    assert rating_scales._agreeing(np.array([1.0, -1.0, 3.0, 0.0]), np.array([2.0, 1.0, 0.0, -1.0])) == 0.5
