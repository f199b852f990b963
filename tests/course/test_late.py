from datetime import UTC, datetime, timedelta, timezone

import pytest

from rlhf_lab.course.late import LateError, LatePolicy, lateness
from tests.course.sample_results import result

DUE = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
POLICY = LatePolicy(due=DUE, percent_per_day=10, max_days=5, grace_minutes=15)


@pytest.mark.parametrize(
    ("after", "percent"),
    [
        (timedelta(days=-3), 0),
        (timedelta(0), 0),
        (timedelta(minutes=15), 0),
        (timedelta(minutes=16), 10),
        (timedelta(days=1), 10),
        (timedelta(days=1, seconds=1), 20),
        (timedelta(days=5), 50),
        (timedelta(days=5, seconds=1), 100),
        (timedelta(days=400), 100),
    ],
)
def test_each_day_that_has_begun_costs(after: timedelta, percent: float) -> None:
    assert POLICY.judge(DUE + after)[0] == percent


def test_the_line_says_what_was_taken_off_and_why() -> None:
    there = timezone(timedelta(hours=-5))
    assert POLICY.judge(datetime(2026, 12, 2, 3, 30, tzinfo=there))[1] == (
        "handed in 2026-12-02 08:30, due 2026-11-30 23:59 UTC, 2 days late: 20% off"
    )
    assert (
        "6 days late: more than the 5 days that are accepted, so it earns" in POLICY.judge(DUE + timedelta(days=6))[1]
    )
    assert POLICY.judge(DUE) == (0.0, "")


def test_a_mark_of_canvas_without_a_time_counts_as_one_day_and_is_said() -> None:
    line = "marked late by Canvas, which does not say when: counted as 1 day, 10% off"
    assert POLICY.judge(None, late_marked=True) == (10.0, line)
    assert POLICY.judge(DUE, late_marked=True) == (0.0, "")
    assert POLICY.judge(None) == (0.0, "it is not known when it was handed in: taken as in time")


def test_a_day_may_cost_more_than_all() -> None:
    policy = LatePolicy(due=DUE, percent_per_day=60, max_days=9)
    assert policy.judge(DUE + timedelta(days=2))[0] == 100


def test_times_without_a_zone() -> None:
    local = LatePolicy(due=datetime(2026, 11, 30, 23, 59), percent_per_day=10, max_days=5)
    exact = datetime(2026, 11, 30, 23, 59).astimezone()
    assert [local.judge(exact + timedelta(seconds=more))[0] for more in (0, 1)] == [0, 10]
    assert POLICY.judge(datetime(2026, 12, 1, 0, 30))[0] == 10


@pytest.mark.parametrize(
    "wrong", [{"percent_per_day": -1}, {"percent_per_day": 101}, {"max_days": -1}, {"grace_minutes": -1}]
)
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(LateError, match=r"not -?\d"):
        LatePolicy(**{"due": DUE, "percent_per_day": 10, "max_days": 5, **wrong})  # type: ignore[arg-type]


def test_each_notebook_may_have_its_own_policy() -> None:
    late = result(submitted=(DUE + timedelta(days=1)).isoformat())
    assert lateness(late, POLICY)[0] == lateness(late, {"04_ppo": POLICY})[0] == 10
    assert lateness(late, {"05_tldr": POLICY}) == lateness(late, None) == (0.0, "")
    assert lateness(result(late_marked=True), None) == (0.0, "marked late by Canvas; there is no late policy")
    assert lateness(result(status="refused", late_marked=True), POLICY) == (0.0, "")
