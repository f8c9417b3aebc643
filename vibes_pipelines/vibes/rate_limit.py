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

SECOND_S = 1.001
"""A second, and what clocks of two machines may disagree on within it."""


class RateLimiter:
    """Lets at most `rate_per_s` requests arrive in any second, spread evenly.

    A rate that changes is asked for with every request. One that falls holds for all that were sent
    before: no further request leaves until no more than the new rate are within the last second.
    What asking raises, the request raises, and is not sent.

    The first request leaves no sooner than `wait_s` from now. A limiter may be used by several
    clients, and in one event loop after another.
    """

    def __init__(
        self,
        rate_per_s: float | Callable[[], float],
        now: Callable[[], float] = monotonic,
        *,
        wait_s: float = 0.0,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._now = now
        self._next = now() + wait_s
        self._taken = 0
        self._answered: deque[float] = deque()
        self._shortest_s = float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None

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
        self._enter_loop()
        longest_s = _CATCH_UP_S if self._gate.locked() else 0.0
        async with self._gate:
            await self._wait_for_place()
            now = self._now()
            turn = max(self._next, now - longest_s)
            if turn > now:
                await asyncio.sleep(turn - now)
            self._next = turn + 1 / self._rate()
            self._taken += 1

    def _rate(self) -> float:
        return self._rate_per_s() if callable(self._rate_per_s) else self._rate_per_s

    def _enter_loop(self) -> None:
        """What callers wait at belongs to one event loop; those of an earlier one are gone."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._gate = asyncio.Lock()
            self._any_answer = asyncio.Event()

    async def _wait_for_place(self) -> None:
        while self._taken >= max(1, int(self._rate())):
            if self._answered:
                rest_s = self._answered[0] + SECOND_S - self._shortest_s - self._now()
                if rest_s <= 0:
                    self._answered.popleft()
                    self._taken -= 1
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
