"""Who simulated people are: whose values they have, and in which parts they are mixed."""

from collections import Counter

import pytest

from rlhf_lab.data.labelers import VALUES, values_of
from rlhf_lab.feedback import population


def test_shares_are_met_by_the_whole_and_nearly_by_the_first_few() -> None:
    names = values_of({"thorough": 0.8, "brief": 0.2}, 20)
    assert Counter(names) == {"thorough": 16, "brief": 4}
    for number in (5, 10, 15):
        assert Counter(names[:number])["brief"] == number / 5


def test_shares_that_make_no_whole_people_are_rounded() -> None:
    assert Counter(values_of({"thorough": 0.8, "brief": 0.2}, 7)) == {"thorough": 6, "brief": 1}
    thirds = dict.fromkeys(("thorough", "brief", "warm"), 1 / 3)
    assert sorted(Counter(values_of(thirds, 10)).values()) == [3, 3, 4]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"thorough": 0.8, "brief": 0.3}, r"add up to 1\.1; they must add up to 1"),
        ({"thorough": 1.2, "brief": -0.2}, r"a share of labelers must be 0 or more, not \{'brief': -0\.2\}"),
        ({"thorough": 0.99, "brief": 0.01}, r"the share 0\.01 of brief gives none of 20 labelers; raise it"),
        ({"thorough": 1.0, "brief": 0.0}, r"the share 0 of brief gives none of 20 labelers"),
        ({"thorough": 0.8, "breif": 0.2}, "values breif are unknown; choose among general, brief"),
        ({"thorough": float("nan")}, "add up to nan; they must add up to 1"),
        ({}, "add up to 0; they must add up to 1"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        population(shares)


def test_each_labeler_knows_whose_values_they_have() -> None:
    for values in ({"warm": 0.75, "brief": 0.25}, "warm+brief"):
        labelers = population(values, num_labelers=8).labelers
        assert [one.values for one in labelers] == [one.id.split("-")[0] for one in labelers]
        assert {one.values for one in labelers} == {"warm", "brief"}


def test_the_people_of_before_are_the_same() -> None:
    """The comparisons that ship are by `population(seed=0)`; this is its first labeler, as it was without shares."""
    first = population(seed=0).labelers[0]
    assert (first.id, first.values) == ("general-00", "general")
    assert first.noise == 1.34053651327442
    assert first.axes["overall"] == 0.6638549336863041


def test_the_careful_mind_what_the_impressed_do_not() -> None:
    """A fact more that is wrong: the judge takes a point of accuracy off, and the grade falls with it."""
    wrong = {"accuracy": -1.0, "overall": -0.5}
    for name, is_minded in (("careful", True), ("impressed", False)):
        axes, tastes = VALUES[name]
        change = sum(weight * wrong.get(axis, 0.0) for axis, weight in axes.items()) + tastes.get("detail", 0.0)
        assert (change < -1.0) == is_minded and (change > 0.4) != is_minded
