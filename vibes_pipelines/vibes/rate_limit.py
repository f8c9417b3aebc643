"""A smooth rate limit for the platform's requests-per-second rule.

The documentation names a rate and neither burst nor window, so requests are spread evenly: never
more than the rate in any second, however the seconds are cut.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

# Kept below the rate, so that the catch-up after a late wake-up stays inside it.
_USED_SHARE = 0.985
# Event loops wake up late by about this much.
_LATENESS_S = 0.005


class RateLimiter:
    """Lets `rate_per_s` callers pass in a second, one interval apart (generic cell rate)."""

    def __init__(self, rate_per_s: float, now: Callable[[], float] = monotonic) -> None:
        self._interval_s = 1 / (rate_per_s * _USED_SHARE)
        self._catch_up_s = max(self._interval_s, _LATENESS_S)
        self._now = now
        self._next = 0.0
        self._gate = asyncio.Lock()

    async def acquire(self) -> None:
        """Waits for this caller's turn; callers pass in the order in which they came."""
        async with self._gate:
            now = self._now()
            turn = max(self._next, now - self._catch_up_s)
            if turn > now:
                await asyncio.sleep(turn - now)
            self._next = turn + self._interval_s
