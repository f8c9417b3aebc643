"""What the clients of one API key share: limits and clock, the token, and when calls may follow.

The account counts its calls whichever client made them, so that a sync that opens several clients
one after the other keeps one of these.
"""

from dataclasses import dataclass, field

from vibes_pipelines.apsis.calls import Limits
from vibes_pipelines.apsis.clock import Clock, SystemClock
from vibes_pipelines.apsis.pace import Pace, PacePerKey


@dataclass(slots=True)
class KeptToken:
    """A token that outlives its client. `usable_until`: seconds since 1970, by the clock.

    `doubted_s`: when it was last renewed after a 403, by the clock's `monotonic`.
    """

    value: str = field(default="", repr=False)
    usable_until: float = 0.0
    doubted_s: float = float("-inf")


class KeptAccount:
    """Give the same one to all clients of an API key; they may be in one event loop at a time."""

    def __init__(self, limits: Limits | None = None, clock: Clock | None = None) -> None:
        self.limits = limits or Limits()
        self.clock = clock or SystemClock()
        self.token = KeptToken()
        self.calls = Pace(self.limits.calls_per_s, 1, self.clock)
        self.profiles = PacePerKey(self.limits.calls_per_key_per_s, 1, self.clock)
        self.tokens = Pace(self.limits.tokens_per_min, 60, self.clock)
        self.imports = Pace(self.limits.imports_per_min, 60, self.clock)
