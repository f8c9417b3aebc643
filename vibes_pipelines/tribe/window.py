"""Tribe's limit: at most 1000 calls of an application in any sixty seconds.

Kept by all callers of this process together. Rules: Tribe documentation, Rate limits.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vibes_pipelines.tribe.clock import Clock

WINDOW_S = 60.0
"""A sliding window."""

MARGIN_S = 0.05
"""Added to it: two clocks need not run alike to the last digit."""

_LOOK_AGAIN_S = 1.0
"""With every call of a window under way, all that is known is that one has to be answered."""


class CallWindow:
    """Lets a caller pass while fewer than `calls` were made in the window.

    A call counts from its sending until one window after its answer: Tribe saw it in between, so
    that however long calls travel, Tribe never counts more than `calls`. Safe for threads and for
    several event loops.
    """

    def __init__(self, calls: int, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way = 0
        self._answered: deque[float] = deque()
        self._closed_until = float("-inf")

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Waits for a place in the window; the call is made inside."""
        while (wait_s := self._take()) > 0:
            await self._clock.sleep(wait_s)
        try:
            yield
        finally:
            self._answer()

    def close_for(self, seconds: float) -> None:
        """Lets nobody pass for so many seconds: Tribe turned a call away."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock.now() + seconds)

    def _take(self) -> float:
        """Zero when the caller has its place, else the seconds until it may ask again."""
        with self._lock:
            now = self._clock.now()
            if now < self._closed_until:
                return self._closed_until - now
            while self._answered and self._answered[0] <= now:
                self._answered.popleft()
            if self._under_way + len(self._answered) < self._calls:
                self._under_way += 1
                return 0.0
            return max(self._answered[0] - now, MARGIN_S) if self._answered else _LOOK_AGAIN_S

    def _answer(self) -> None:
        with self._lock:
            self._under_way -= 1
            self._answered.append(self._clock.now() + WINDOW_S + MARGIN_S)


_windows: dict[tuple[str, str], CallWindow] = {}
_windows_lock = threading.Lock()


def shared_window(api_url: str, client_id: str, calls: int, clock: Clock) -> CallWindow:
    """The window of one application, the same for every caller of this process."""
    with _windows_lock:
        return _windows.setdefault((api_url, client_id), CallWindow(calls, clock))
