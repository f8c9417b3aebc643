"""How callbacks are sent: the documented manner, and the scripted ways in which it goes wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from vibes_pipelines.sandbox.faults import FaultScriptError

Order = Literal["as_happened", "reversed", "shuffled"]

RETRY_EVERY_S = 300.0
MAX_RETRIES = 5
TIMEOUT_S = 2.0
"""Vibes publishes no figures for these callbacks; those of its aggregation product are assumed."""

DOWNED_AFTER = 5
"""Failures in a row that put a URL into the downed state (an assumption)."""

DOWNED_FOR_S = 60.0
"""How long a downed URL is sent nothing (an assumption; the documentation says short periods)."""

MAX_CONNECTIONS = 8
_MAX_DUPLICATES = 100


@dataclass(frozen=True)
class CallbackManner:
    """The manner in force.

    Attributes:
        hold: Nothing is sent until another manner is set: late callbacks, or a burst.
        order: Which of the callbacks that are due goes next.
        duplicates: How many copies of each callback are sent beside it.
        delay_s: How long each callback waits after its event.
        connections: How many are sent at once; with one they come one after another.
        time_scale: Factor of the waits between attempts and of the downed state; 1 is real time.
        timeout_s: How long a receiver may be silent; not scaled.
    """

    hold: bool = False
    order: Order = "as_happened"
    duplicates: int = 0
    delay_s: float = 0
    connections: int = 1
    time_scale: float = 1
    timeout_s: float = TIMEOUT_S

    @property
    def retry_after_s(self) -> float:
        """How long a failed attempt is waited out."""
        return RETRY_EVERY_S * self.time_scale

    @property
    def downed_for_s(self) -> float:
        """How long a downed URL rests."""
        return DOWNED_FOR_S * self.time_scale

    @classmethod
    def from_mapping(cls, script: object) -> Self:
        """A manner from its JSON form, the rest as documented; raises FaultScriptError."""
        if script is None:
            return cls()
        if not isinstance(script, Mapping):
            raise FaultScriptError(f"the manner of callbacks is a mapping, not {script!r}")
        known = {field.name for field in fields(cls)}
        unknown = sorted(map(str, set(script) - known))
        if unknown:
            names = ", ".join(sorted(known))
            raise FaultScriptError(f"callbacks have no manner {unknown[0]}; known: {names}")
        _check(script)
        return cls(**script)


def _check(script: Mapping[str, Any]) -> None:
    for key, value in script.items():
        allowed, is_allowed = _RULES[key]
        if not is_allowed(value):
            raise FaultScriptError(f"{key} of callbacks is {allowed}, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_RULES: Mapping[str, tuple[str, Any]] = {
    "hold": ("true or false", lambda value: isinstance(value, bool)),
    "order": (f"one of {', '.join(get_args(Order))}", lambda value: value in get_args(Order)),
    "duplicates": (
        f"a whole number from 0 to {_MAX_DUPLICATES}",
        lambda value: _is_count(value) and 0 <= value <= _MAX_DUPLICATES,
    ),
    "delay_s": ("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "connections": (
        f"a whole number from 1 to {MAX_CONNECTIONS}",
        lambda value: _is_count(value) and 1 <= value <= MAX_CONNECTIONS,
    ),
    "time_scale": ("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "timeout_s": ("a number above 0", lambda value: _is_number(value) and value > 0),
}
"""What each key takes, in words and as a test."""
