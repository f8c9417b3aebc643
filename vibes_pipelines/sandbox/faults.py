"""Scripted faults of the HTTP API: what goes wrong, where, and how many times.

A fault happens before the call is processed (the default) or after it, when the effect is done but
its answer is lost: the case on which exactly-once stands or falls.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self, get_args

import yaml

Action = Literal["status", "delay", "reset", "hang"]
When = Literal["before", "after"]

_KEYS = {"match", "action", "when", "status", "delay_s", "times"}
_MATCH_KEYS = {"method", "path_regex"}
_DEFAULT_DELAYS_S: Mapping[Action, float] = {"status": 0, "delay": 1, "reset": 0, "hang": 600}


class FaultScriptError(ValueError):
    """A fault script cannot be read; the message names the entry and the cure."""


@dataclass(frozen=True)
class Fault:
    """One scripted fault.

    `status` answers with that status, `delay` answers late, `reset` breaks the connection, `hang`
    stays silent until the client leaves or `delay_s` has passed. `times` None means always.
    """

    action: Action
    path: re.Pattern[str] = field(default_factory=lambda: re.compile(""))
    method: str | None = None
    when: When = "before"
    status: int = 503
    delay_s: float = 0
    times: int | None = None

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant; the pattern is searched for in the encoded path."""
        return self.method in {None, method} and self.path.search(path) is not None

    @classmethod
    def from_mapping(cls, entry: object) -> Self:
        """A fault from its YAML or JSON form; raises FaultScriptError."""
        if not isinstance(entry, Mapping):
            raise FaultScriptError(f"a fault is a mapping with an action, not {entry!r}")
        match = entry.get("match") or {}
        unknown = (set(entry) - _KEYS) | (set(match) - _MATCH_KEYS)
        if unknown:
            names = ", ".join(sorted(map(str, unknown)))
            raise FaultScriptError(f"a fault has no key {names}; remove it")
        action: Action = _one_of(entry.get("action"), "action", get_args(Action))
        when: When = _one_of(entry.get("when", "before"), "when", get_args(When))
        return cls(
            action=action,
            path=_pattern(match.get("path_regex", "")),
            method=str(match["method"]).upper() if match.get("method") else None,
            when=when,
            status=int(_number(entry, "status", 503)),
            delay_s=_number(entry, "delay_s", _DEFAULT_DELAYS_S[action]),
            times=None if entry.get("times") is None else int(_number(entry, "times", 1)),
        )


class Faults:
    """The faults in force, in order: the first that matches happens. Safe for several threads."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._lock = Lock()
        self._faults: list[tuple[Fault, int | None]] = []
        self.replace(faults)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Faults from a YAML file that holds a list of them; raises FaultScriptError."""
        try:
            script = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise FaultScriptError(f"{path} is not YAML: {error}") from error
        return cls(parse_faults(script))

    def replace(self, faults: tuple[Fault, ...]) -> None:
        """Put these faults in force instead of all others."""
        with self._lock:
            self._faults = [(fault, fault.times) for fault in faults]

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that happens to this request, which uses up one of its times."""
        if not self._faults:
            return None
        with self._lock:
            for place, (fault, left) in enumerate(self._faults):
                if left != 0 and fault.matches(method, path):
                    self._faults[place] = (fault, None if left is None else left - 1)
                    return fault
        return None


def parse_faults(script: object) -> tuple[Fault, ...]:
    """Faults from a list in YAML or JSON form; nothing means none. Raises FaultScriptError."""
    if script is None:
        return ()
    if not isinstance(script, list):
        raise FaultScriptError("a fault script is a list of faults; write each as a list item")
    return tuple(Fault.from_mapping(entry) for entry in script)


def _one_of(value: Any, key: str, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise FaultScriptError(f"{key} of a fault is one of {', '.join(allowed)}, not {value!r}")
    return value


def _pattern(text: object) -> re.Pattern[str]:
    try:
        return re.compile(str(text))
    except re.error as error:
        raise FaultScriptError(
            f"path_regex {text!r} is not a regular expression: {error}"
        ) from error


def _number(entry: Mapping[object, object], key: str, default: float) -> float:
    value = entry.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise FaultScriptError(f"{key} of a fault is a number of at least 0, not {value!r}")
    return value
