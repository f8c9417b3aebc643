"""The sandbox's clock: stamps never tie and time never goes back."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from vibes_pipelines.sandbox.clock import SandboxClock, midnight, morning

START = midnight(date(2026, 1, 1))


def test_stamps_strictly_increase_and_reading_does_not_move_the_clock() -> None:
    clock = SandboxClock(START)
    stamps = [clock() for _ in range(100)]
    assert stamps[0] == START
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert clock.now() == clock.now()


def test_the_clock_reaches_later_instants_and_ignores_earlier_ones() -> None:
    clock = SandboxClock(START)
    clock.reach(morning(date(2026, 1, 1)))
    clock.reach(START)
    assert clock.now() == datetime(2026, 1, 1, 6, tzinfo=UTC)


def test_instants_are_utc_wherever_they_come_from() -> None:
    clock = SandboxClock(START)
    clock.reach(datetime(2026, 1, 1, 6, tzinfo=timezone(timedelta(hours=-6))))
    assert clock.now().isoformat() == "2026-01-01T12:00:00+00:00"


def test_a_start_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        SandboxClock(START.replace(tzinfo=None))
