"""The clock of every opt-out that has not reached the other side yet, whichever way it goes.

Law: revocations of consent are to be honoured within ten business days at most (47 CFR
64.1200(a)(10)); the project warns after a day and calls half of that time a fault.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from vibes_pipelines.stages.opt_outs_under_way import OpenOptOut, Way, open_opt_outs
from vibes_pipelines.stages.project import Project

__all__ = ["OpenOptOut", "OptOutClock", "open_opt_outs", "opt_out_clock", "read_clock"]

WARN_AFTER = timedelta(hours=24)
LATE_AFTER_BUSINESS_DAYS = 5

_SATURDAY = 5


@dataclass(frozen=True)
class OptOutClock:
    """How many opt-outs are under way, how long the oldest has been, and how many are too late."""

    open: Mapping[Way, int] = field(default_factory=dict)
    oldest: timedelta = timedelta()
    over_a_day: int = 0
    late: int = 0

    @property
    def sentence(self) -> str:
        """One line for a check or a log."""
        if not self.open:
            return "no opt-out is under way"
        counts = ", ".join(f"{way} {rows}" for way, rows in self.open.items())
        hours = self.oldest.total_seconds() / 3600
        return (
            f"under way: {counts}; the oldest for {hours:.1f} h; {self.over_a_day} for more than"
            f" {WARN_AFTER.total_seconds() / 3600:.0f} h, {self.late} for more than"
            f" {LATE_AFTER_BUSINESS_DAYS} business days"
        )


def opt_out_clock(project: Project, now: datetime | None = None) -> OptOutClock:
    """Looks at the inbox, at what is sent in real time, and at the newest diff set."""
    return read_clock(open_opt_outs(project), now or datetime.now(UTC))


def read_clock(opt_outs: Iterable[OpenOptOut], now: datetime) -> OptOutClock:
    """What the clock shows at an instant."""
    found = list(opt_outs)
    ages = [max(now - one.since, timedelta()) for one in found]
    return OptOutClock(
        dict(sorted(Counter(one.way for one in found).items())),
        max(ages, default=timedelta()),
        sum(age > WARN_AFTER for age in ages),
        sum(now > after_business_days(one.since, LATE_AFTER_BUSINESS_DAYS) for one in found),
    )


def after_business_days(instant: datetime, days: int) -> datetime:
    """The same time of day, so many Mondays to Fridays later (UTC; no holidays are known)."""
    end = instant
    while days:
        end += timedelta(days=1)
        days -= end.weekday() < _SATURDAY
    return end
