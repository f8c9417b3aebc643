"""How far a push is: told while it runs, and shown afterwards in a few lines."""

import time
from collections.abc import Callable
from dataclasses import dataclass

STEP_ROWS = 500
MAX_STEPS = 20
"""Lines shown of one delivery; of more, evenly many are left out."""


@dataclass(frozen=True, slots=True)
class Step:
    """So many operations were answered after so many seconds; the rate is since the last step."""

    rows: int
    seconds: float
    rows_per_s: float


class Progress:
    """Counts answers; `tell` is given a line at every step."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._started = time.monotonic()
        self._steps: list[Step] = []
        self._last = Step(0, 0.0, 0.0)

    def answered(self, rows: int) -> None:
        """To be called after each answer with how many there are so far."""
        seconds = self.seconds_now
        passed = seconds - self._steps[-1].seconds if self._steps else seconds
        since = rows - (self._steps[-1].rows if self._steps else 0)
        self._last = Step(rows, seconds, since / passed if passed > 0 else 0.0)
        if rows % STEP_ROWS == 0:
            self._steps.append(self._last)
            if self._tell is not None:
                self._tell(f"{rows} answered after {seconds:.0f} s, {self._last.rows_per_s:.0f}/s")

    @property
    def seconds_now(self) -> float:
        """Seconds since the push began."""
        return time.monotonic() - self._started

    @property
    def seconds(self) -> float:
        """Seconds until the last answer; 0 without any."""
        return self._last.seconds

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, thinned out, and the last one."""
        last = [] if self._last in (*self._steps, Step(0, 0.0, 0.0)) else [self._last]
        every = -(-len(self._steps) // MAX_STEPS) or 1
        return (*self._steps[every - 1 :: every], *last)
