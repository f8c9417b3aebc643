"""The sandbox's clock: simulated time that moves only forward, by jumps and by tiny steps.

Everything in the sandbox that stamps an instant takes it from here; nothing reads the machine's
clock.
"""

import threading
from datetime import UTC, date, datetime, time, timedelta

MORNING = time(6, 0)
"""When share and extracts appear (an assumption: the Vibes documentation is silent)."""

STEP = timedelta(milliseconds=1)
"""How far one stamp moves the clock: two never tie, and a day never runs out."""


class SandboxClock:
    """Aware UTC instants, strictly increasing for those who call it; safe for several threads."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError(
                "the sandbox's clock needs an instant with a time zone, e.g. tzinfo=UTC"
            )
        self._now = start.astimezone(UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """The present instant for a stamp; the next stamp is one millisecond later."""
        with self._lock:
            stamp = self._now
            self._now += STEP
            return stamp

    def now(self) -> datetime:
        """The present instant, without moving the clock."""
        with self._lock:
            return self._now

    def reach(self, instant: datetime) -> None:
        """Move on to an instant; a clock that is beyond it stays where it is."""
        with self._lock:
            self._now = max(self._now, instant.astimezone(UTC))


def midnight(day: date) -> datetime:
    """The first instant of a day, UTC."""
    return datetime.combine(day, time(), tzinfo=UTC)


def morning(day: date) -> datetime:
    """The instant of a day's refresh, UTC."""
    return datetime.combine(day, MORNING, tzinfo=UTC)
