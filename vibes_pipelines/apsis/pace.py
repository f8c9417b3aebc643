"""The limits of APSIS One: at most so many calls in any window, however late an answer is.

The documentation names rates and neither burst nor window. A turn is given back only a whole window
after its answer has come, so the other side cannot have counted two of its calls in one window.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vibes_pipelines.apsis.clock import Clock

_KEPT_KEYS = 4096


class Pace:
    """At most `limit` calls in any `window_s` seconds of the other side."""

    def __init__(self, limit: int, window_s: float, clock: Clock) -> None:
        self._window_s = window_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free_at: deque[float] = deque([float("-inf")] * limit)
        self._limit = limit

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One call: waits for its turn, and counts it as long as the other side may."""
        async with self._turns():
            free_at = self._free_at.popleft()
            try:
                await self._clock.sleep(free_at - self._clock.monotonic())
            except asyncio.CancelledError:
                self._free_at.appendleft(free_at)
                raise
            try:
                yield
            finally:
                self._free_at.append(self._clock.monotonic() + self._window_s)

    def _turns(self) -> asyncio.Semaphore:
        """Those of this event loop: a pace outlives loops, a semaphore does not."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # What a loop that was stopped did not give back may have been counted until now.
            lost = self._limit - len(self._free_at)
            self._free_at.extend([self._clock.monotonic() + self._window_s] * lost)
            self._loop, self._semaphore = loop, asyncio.Semaphore(self._limit)
        return self._semaphore

    @property
    def is_idle(self) -> bool:
        """True when no call is under way or still counted."""
        return len(self._free_at) == self._limit and self._free_at[-1] <= self._clock.monotonic()


class PacePerKey:
    """A pace for each profile key; forgets those that have come to rest."""

    def __init__(self, limit: int, window_s: float, clock: Clock) -> None:
        self._limit, self._window_s, self._clock = limit, window_s, clock
        self._paces: OrderedDict[tuple[str, str], Pace] = OrderedDict()

    def of(self, key: tuple[str, str]) -> Pace:
        """The pace of one profile, by keyspace and key."""
        pace = self._paces.get(key)
        if pace is None:
            self._forget()
            pace = self._paces[key] = Pace(self._limit, self._window_s, self._clock)
        self._paces.move_to_end(key)
        return pace

    def _forget(self) -> None:
        """Drop the oldest that are idle once there are many."""
        while len(self._paces) >= _KEPT_KEYS:
            oldest = next(iter(self._paces))
            if not self._paces[oldest].is_idle:
                return
            del self._paces[oldest]
