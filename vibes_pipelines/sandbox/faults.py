"""Scripted faults of the API, the SFTP and the import reports: what goes wrong, and how often.

A fault of the API happens before the call is processed (the default) or after it, when the effect
is done but its answer is lost: the case on which exactly-once stands or falls.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, Literal, Self, get_args

import yaml

Action = Literal[
    "status",
    "delay",
    "reset",
    "hang",
    "partial",
    "stall",
    "refuse",
    "slow",
    "half",
    "duplicate",
    "late",
]
Place = Literal["api", "sftp", "reports"]
When = Literal["before", "after"]

_ACTIONS: Mapping[Place, tuple[Action, ...]] = {
    "api": ("status", "delay", "reset", "hang", "partial", "stall"),
    "sftp": ("refuse", "slow", "half", "reset"),
    "reports": ("duplicate", "late", "half"),
}
_AFTER_ONLY: frozenset[Action] = frozenset({"partial", "stall"})
_KEYS = {"match", "on", "action", "when", "status", "delay_s", "times", "chance"}
_MATCH_KEYS = {"method", "path_regex"}
_DEFAULT_DELAYS_S: Mapping[Action, float] = {
    "delay": 1,
    "hang": 600,
    "stall": 2,
    "slow": 0.05,
    "duplicate": 1,
    "late": 1,
}


class FaultScriptError(ValueError):
    """A fault script cannot be read; the message names the entry and the cure."""


class _ScriptLoader(yaml.SafeLoader):
    """YAML in which the key `on` is text; YAML 1.1 takes it for true."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's form
        first: forms
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
        if first not in {"o", "O"}
    }


@dataclass(frozen=True)
class Fault:
    """One scripted fault.

    API: `status` answers with that status, `delay` answers late, `reset` breaks the connection,
    `hang` stays silent until the client leaves or `delay_s` has passed, `partial` ends the answer
    in its middle and `stall` pauses there. SFTP: `refuse` refuses a session, `slow` waits at every
    read and write of a file, `half` ends a file in its middle, `reset` breaks the connection at a
    file's first read or write. Reports of imports: `duplicate` delivers them twice, `late` after a
    while, `half` cuts the report and leaves the summary out. `times` None means always; of the
    requests, sessions, files or imports that match, the share `chance` is struck.
    """

    action: Action
    path: re.Pattern[str] = field(default_factory=lambda: re.compile(""))
    method: str | None = None
    when: When = "before"
    status: int = 503
    delay_s: float = 0
    times: int | None = None
    on: Place = "api"
    chance: float = 1

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant; the pattern is searched for in the encoded path.

        At the SFTP that is the path of a file, `/` for a session; at the reports the import's name.
        """
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
        on: Place = _one_of(entry.get("on", "api"), "on", get_args(Place))
        action: Action = _one_of(entry.get("action"), "action", _ACTIONS[on])
        is_after = action in _AFTER_ONLY
        moments = ("after",) if is_after else get_args(When)
        when: When = _one_of(entry.get("when", moments[0]), "when", moments)
        chance = _number(entry, "chance", 1)
        if chance > 1:
            raise FaultScriptError(f"chance of a fault is at most 1, not {chance!r}")
        return cls(
            action=action,
            path=_pattern(match.get("path_regex", "")),
            method=str(match["method"]).upper() if match.get("method") else None,
            when=when,
            status=int(_number(entry, "status", 503)),
            delay_s=_number(entry, "delay_s", _DEFAULT_DELAYS_S.get(action, 0)),
            times=None if entry.get("times") is None else int(_number(entry, "times", 1)),
            on=on,
            chance=chance,
        )


class Faults:
    """The faults in force, in order: the first that matches happens. Safe for several threads."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._lock = Lock()
        self._random = Random("faults")  # noqa: S311 - repeatable, not secret
        self._faults: list[tuple[Fault, int | None]] = []
        self.replace(faults)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Faults from a YAML file that holds a list of them; raises FaultScriptError."""
        try:
            script = yaml.load(path.read_bytes(), _ScriptLoader)  # noqa: S506 - a safe one
        except yaml.YAMLError as error:
            raise FaultScriptError(f"{path} is not YAML: {error}") from error
        return cls(parse_faults(script))

    def replace(self, faults: tuple[Fault, ...]) -> None:
        """Put these faults in force instead of all others."""
        with self._lock:
            self._faults = [(fault, fault.times) for fault in faults]

    def take(
        self,
        method: str,
        path: str,
        on: Place = "api",
        actions: Collection[Action] | None = None,
    ) -> Fault | None:
        """The fault that happens to this request, which uses up one of its times.

        Only faults of this place count, and of `actions` if these are given.
        """
        if not self._faults:
            return None
        with self._lock:
            for place, (fault, left) in enumerate(self._faults):
                if fault.on != on or (actions is not None and fault.action not in actions):
                    continue
                if left != 0 and fault.matches(method, path):
                    if fault.chance < 1 and self._random.random() >= fault.chance:
                        continue
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
