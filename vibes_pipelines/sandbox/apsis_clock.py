"""The APSIS One stand-in's clock: it runs, faster than the machine's if asked, and can be set on.

The platform's own clock (`clock`) stands still between two days; imports, upload URLs and tokens of
APSIS One last minutes and hours and need one that runs.
"""

import threading
import time
from datetime import UTC, datetime, timedelta


class RunningClock:
    """Aware UTC instants; `speed` seconds pass for each of the machine's. Safe for threads."""

    def __init__(self, speed: float = 1.0, start: datetime | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"the speed of a clock is more than 0, not {speed}")
        self._speed = speed
        self._start = start or datetime.now(UTC)
        self._start_s = time.monotonic()
        self._lead = timedelta()
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Seconds since this clock was made."""
        with self._lock:
            lead_s = self._lead.total_seconds()
        return (time.monotonic() - self._start_s) * self._speed + lead_s

    def now(self) -> datetime:
        """The present instant."""
        return self._start + timedelta(seconds=self.seconds())

    def advance(self, by: timedelta) -> None:
        """Let so much time pass at once."""
        with self._lock:
            self._lead += by
