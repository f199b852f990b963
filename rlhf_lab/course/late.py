"""What being late costs, and the line that says so."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rlhf_lab.course.texts import counted, number


class LateError(ValueError):
    """A late policy that cannot be meant; the message says what to mend."""


@dataclass(frozen=True, kw_only=True)
class LatePolicy:
    """What being late costs, such as LatePolicy(due=datetime(2026, 11, 30), percent_per_day=10, max_days=5)."""

    due: datetime
    """Without a time zone it is this computer's."""
    percent_per_day: float | int
    """Of the points, for each day after `due` that has begun."""
    max_days: int
    """Whoever is later than this gets nothing."""
    grace_minutes: float | int = 0
    """After `due`, at no cost. Beyond them, days count from `due`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 <= self.percent_per_day <= 100:
            raise LateError(f"a late day costs 0 to 100 percent of the points, not {self.percent_per_day}.")
        if self.max_days < 0 or not 0 <= self.grace_minutes < math.inf:
            raise LateError(
                f"late days and minutes of grace are 0 or more, not {self.max_days} and {self.grace_minutes}."
            )

    def judge(self, submitted: datetime | None, *, late_marked: bool = False) -> tuple[float, str]:
        """Percent of the points to take off, and why; the reason alone if there is only something to say.

        Args:
            submitted: When it was handed in; without a time zone it is UTC.
            late_marked: Canvas' mark; it counts as one day where the time is not known.

        Example:
            >>> policy = LatePolicy(due=datetime(2026, 11, 30, 23, 59, tzinfo=UTC), percent_per_day=10, max_days=5)
            >>> policy.judge(datetime(2026, 12, 1, 9, 0, tzinfo=UTC))
            (10.0, 'handed in 2026-12-01 09:00, due 2026-11-30 23:59 UTC, 1 day late: 10% off')
        """
        if submitted is None and late_marked:
            percent, cost = self._cost(1)
            return percent, f"marked late by Canvas, which does not say when: counted as 1 day, {cost}"
        if submitted is None:
            return 0.0, "it is not known when it was handed in: taken as in time"
        due = self.due if self.due.tzinfo else self.due.astimezone()
        at = (submitted if submitted.tzinfo else submitted.replace(tzinfo=UTC)).astimezone(due.tzinfo)
        if at - due <= timedelta(minutes=self.grace_minutes):
            return 0.0, ""
        days = math.ceil((at - due) / timedelta(days=1))
        percent, cost = self._cost(days)
        times = f"handed in {at:%Y-%m-%d %H:%M}, due {due:%Y-%m-%d %H:%M %Z}"
        return percent, f"{times}, {counted(days, 'day')} late: {cost}"

    def _cost(self, days: int) -> tuple[float, str]:
        if days > self.max_days:
            return 100.0, f"more than the {counted(self.max_days, 'day')} that are accepted, so it earns nothing"
        percent = float(min(100, days * self.percent_per_day))
        return percent, f"{number(percent)}% off"


Late = LatePolicy | Mapping[str, LatePolicy] | None
"""One policy, one for each notebook, or none."""


def lateness(result: Mapping[str, Any], late: Late) -> tuple[float, str]:
    """What is taken off a submission, in percent, and why."""
    policy = late.get(result["notebook"]) if isinstance(late, Mapping) else late
    if result["status"] == "refused":
        return 0.0, ""
    if policy is None:
        return 0.0, "marked late by Canvas; there is no late policy" if result["late_marked"] else ""
    submitted = datetime.fromisoformat(result["submitted"]) if result["submitted"] else None
    return policy.judge(submitted, late_marked=result["late_marked"])
