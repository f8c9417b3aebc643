"""A smooth rate limit for the platform's requests-per-second rule.

The documentation names a rate and neither burst nor window, so requests are spread evenly: never
more than the rate in any second, however the seconds are cut.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

# How much of a late wake-up may be made up for; event loops wake up late by less.
_CATCH_UP_S = 0.005


def interval_s(rate_per_s: float) -> float:
    """The seconds between two turns, a little longer than 1 / rate.

    After one late caller, turns of the next second may begin `_CATCH_UP_S` in the past: at most
    1 + 1 + (1 + _CATCH_UP_S) / interval callers pass in any second, which must not exceed the rate.
    """
    return 1.000_001 * (1 + _CATCH_UP_S) / max(rate_per_s - 1, rate_per_s / 2)


class RateLimiter:
    """Lets at most `rate_per_s` callers pass in any second, spread evenly (generic cell rate)."""

    def __init__(self, rate_per_s: float, now: Callable[[], float] = monotonic) -> None:
        self._interval_s = interval_s(rate_per_s)
        self._now = now
        self._next = 0.0
        self._gate = asyncio.Lock()

    async def acquire(self) -> None:
        """Waits for this caller's turn; callers pass in the order in which they came."""
        async with self._gate:
            now = self._now()
            turn = max(self._next, now - _CATCH_UP_S)
            if turn > now:
                await asyncio.sleep(turn - now)
            self._next = turn + self._interval_s
