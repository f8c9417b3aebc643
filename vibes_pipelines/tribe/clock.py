"""The time by which Tribe's limits are kept: seconds that only grow, and waiting for them."""

import asyncio
from time import monotonic
from typing import Protocol


class Clock(Protocol):
    """Seconds of one timeline, and waiting on it."""

    def now(self) -> float:
        """Seconds since some moment; never less than before."""

    async def sleep(self, seconds: float) -> None:
        """Comes back when so many of these seconds have passed."""


class MachineClock:
    """The machine's own time, `speed` times as fast: a rehearsal need not wait for minutes."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed

    def now(self) -> float:
        """Seconds since the machine started, times the speed."""
        return monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        """Waits so many seconds of this clock."""
        await asyncio.sleep(seconds / self._speed)
