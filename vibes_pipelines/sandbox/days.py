"""How days pass in the sandbox: a night of edits, then a morning with fresh share and extracts.

No servers belong here; where the share's tables go is told by the caller.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from threading import RLock

from vibes_pipelines.sandbox.clock import SandboxClock, midnight, morning
from vibes_pipelines.sandbox.crm import Crm
from vibes_pipelines.sandbox.drift import drift
from vibes_pipelines.sandbox.extracts import ExtractDrop
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.share_tables import ShareHistory, Tables, share_tables


class Days:
    """The calendar of one sandbox; one change of day at a time.

    Args:
        start: The first day.
        lag: By how much the share is behind the platform.
        publish: Replaces the share's tables.
        seed: Of the nights' edits.
    """

    def __init__(
        self,
        platform: Platform,
        crm: Crm,
        clock: SandboxClock,
        extracts: ExtractDrop,
        *,
        start: date,
        lag: timedelta,
        publish: Callable[[Tables], None],
        seed: int,
    ) -> None:
        self.today = start
        self._platform = platform
        self._crm = crm
        self._clock = clock
        self._extracts = extracts
        self._history = ShareHistory(lag)
        self._publish = publish
        self._seed = seed
        self._cut_next: tuple[str, ...] = ()
        self._lock = RLock()

    def begin(self) -> None:
        """The first morning. A lagging share shows the world as it was, which nobody has edited."""
        with self._lock:
            if self._history.lag:
                self._record(morning(self.today) - self._history.lag)
            self._have_morning()

    def next_day(self, *, edits: bool = True) -> date:
        """The next morning, after a night of edits on both sides unless told otherwise."""
        with self._lock:
            if self._history.lag:
                self._record(self._clock.now())
            self.today += timedelta(days=1)
            self._clock.reach(midnight(self.today))
            if edits:
                drift(self._platform, self._crm, self._clock, self.today, self._seed)
            self._have_morning()
            return self.today

    def resume(self, today: date) -> None:
        """Go on with a day that has had its morning: share and extracts are there already.

        States that a lagging share has still to show are not kept: until the lag has passed it
        shows the present one.
        """
        with self._lock:
            self.today = today
            self._record(self._clock.now())

    def cut_next_extracts(self, kinds: Sequence[str]) -> None:
        """Let the next morning's extracts of these kinds end in the middle."""
        with self._lock:
            self._cut_next = tuple(kinds)

    def complete_extracts(self) -> list[str]:
        """Deliver every cut extract once more, whole; returns the files' names."""
        with self._lock:
            return self._extracts.complete()

    def _have_morning(self) -> None:
        self._clock.reach(morning(self.today))
        now = self._clock.now()
        self._record(now)
        self._publish(self._history.shown(now))
        self._extracts.drop(self._platform, self.today, morning(self.today), self._cut_next)
        self._cut_next = ()

    def _record(self, instant: datetime) -> None:
        self._history.record(instant, share_tables(self._platform, instant))
