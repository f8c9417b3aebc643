"""A rate limit that the platform's requests-per-second rule holds for as the platform counts.

The documentation names a rate and neither burst nor window, so requests are spread evenly, and no
second, however the seconds are cut, holds more of them than the rate. What is counted is when a
request arrives, and that is nobody's to choose: a busy network or server bunches what left evenly.
But it arrives before its answer leaves. So a request takes one of as many places as the rate has,
and gives it back a second after its answer, less the shortest time that an answer ever took.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

# How much of a late wake-up those who wait may make up for: a busy machine has many of them.
_CATCH_UP_S = 0.05
# A second, and what clocks of two machines may disagree on within it.
_SECOND_S = 1.001


class RateLimiter:
    """Lets at most `rate_per_s` requests arrive in any second, spread evenly."""

    def __init__(self, rate_per_s: float, now: Callable[[], float] = monotonic) -> None:
        self._interval_s = 1 / rate_per_s
        self._now = now
        self._next = 0.0
        self._gate = asyncio.Lock()
        self._free = max(1, int(rate_per_s))
        self._answered: deque[float] = deque()
        self._shortest_s = float("inf")
        self._any_answer = asyncio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for this caller's turn; inside, one request is sent and its answer awaited.

        Callers pass in the order in which they came.
        """
        await self.acquire()
        sent = self._now()
        try:
            yield
        finally:
            self._note_answer(sent)

    async def acquire(self) -> None:
        """Waits for a turn and a place; whoever asks in another way than by `turn` keeps it."""
        longest_s = _CATCH_UP_S if self._gate.locked() else 0.0
        async with self._gate:
            await self._wait_for_place()
            now = self._now()
            turn = max(self._next, now - longest_s)
            if turn > now:
                await asyncio.sleep(turn - now)
            self._next = turn + self._interval_s
            self._free -= 1

    async def _wait_for_place(self) -> None:
        while not self._free:
            if self._answered:
                rest_s = self._answered[0] + _SECOND_S - self._shortest_s - self._now()
                if rest_s <= 0:
                    self._answered.popleft()
                    self._free += 1
                else:
                    await asyncio.sleep(rest_s)
            else:
                self._any_answer.clear()
                await self._any_answer.wait()

    def _note_answer(self, sent: float) -> None:
        answered = self._now()
        self._shortest_s = min(self._shortest_s, answered - sent)
        self._answered.append(answered)
        self._any_answer.set()
