"""Many jobs on several processes: every job once, whatever becomes of the workers."""

import time

import pytest

from rlhf_lab.fan_out import each

KEPT: list[bytes] = []


def grows(job: int) -> int:
    """Memory that is never given back; loky looks at it once a second, and replaces a worker that has much."""
    KEPT.append(b"x" * 400_000_000)
    time.sleep(0.7)
    return job


def test_every_job_once_in_one_process() -> None:
    assert list(each(abs, [-1, 2, -3], name="jobs")) == [1, 2, 3]
    assert list(each(abs, [], name="jobs")) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_has_grown_is_replaced_though_warnings_are_errors() -> None:
    assert sorted(each(grows, range(10), num_jobs=2, name="jobs")) == list(range(10))
