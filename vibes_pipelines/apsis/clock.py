"""Time as the client sees it, so that a sped-up stand-in can be met at its own pace.

Everything in this room that waits or stamps takes it from here.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A running clock; seconds are those of the outside system."""

    def monotonic(self) -> float:
        """Seconds since some beginning; never runs back."""

    def now(self) -> datetime:
        """The present instant, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""


class SystemClock:
    """The machine's clock; `speed` lets a second of the outside system pass faster, for tests."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._start = datetime.now(UTC)
        self._start_s = time.monotonic()

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return (time.monotonic() - self._start_s) * self._speed

    def now(self) -> datetime:
        """The present instant, UTC."""
        return self._start + timedelta(seconds=self.monotonic())

    async def sleep(self, seconds: float) -> None:
        """Wait so long; never shorter."""
        end_s = self.monotonic() + seconds
        while (left_s := end_s - self.monotonic()) > 0:
            await asyncio.sleep(left_s / self._speed)
