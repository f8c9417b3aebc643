"""Alerts: what failed is told once, counted while it lasts, and told again when it is over.

Kept in `<home>/alerts/state.json`: it must work when the ledger does not. What a channel did not
take waits there and is tried again; nothing is lost when a process ends between the two. Where
nothing can be kept, as on a full disk, what failed is told all the same.

No text of an exception and no value is ever part of an alert: only names of ours, days and counts.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from vibes_pipelines.stages.alert_channels import AlertError, Document, channels
from vibes_pipelines.stages.alert_settings import AlertSettings
from vibes_pipelines.stages.alert_texts import advice_for

STATE = "alerts/state.json"
MOST_WAITING = 200
"""Alerts kept for each channel that is out of reach; of more, the oldest are given up."""

Event = Literal["failed", "repeated", "resolved"]


@dataclass(frozen=True)
class Cause:
    """What failed. The same `key` is the same cause, whichever day and run it shows in.

    `names` are steps or checks, for the advice. `severity`: of a check.
    """

    key: str
    what: str
    names: tuple[str, ...]
    job: str | None = None
    day: str | None = None
    run_id: str | None = None
    failed_steps: tuple[str, ...] = ()
    severity: Literal["error", "warn"] = "error"


@dataclass(frozen=True)
class Firing:
    """A cause that lasts: when it began, when it was last told, how often it was seen.

    `cause` is its newest occurrence, `last_day` the latest day that it was seen for: only what
    goes well on that day, or on a later one, ends it.
    """

    cause: Cause
    since: datetime
    told: datetime
    count: int
    last_day: str | None


class AlertBook:
    """The state of all alerts below one home; every method holds its lock."""

    def __init__(self, home: Path, settings: AlertSettings) -> None:
        self._path = home / STATE
        self._settings = settings

    def report(self, causes: list[Cause], now: datetime) -> None:
        """Tells of causes that are new, or that last longer than the window; counts the others.

        Where that cannot be written down, each cause is told each time: rather twice than never.

        Raises:
            AlertError: a channel did not take it; it is kept for the next call, if it can be.
        """
        try:
            self.note(causes, now)
        except OSError:
            self._tell_unkept(causes, now)
        else:
            self.carry()

    def resolve(self, keys: list[str], now: datetime) -> None:
        """Tells that causes are over; one that was not told of is none.

        Raises:
            AlertError: as `report`.
        """
        self.end(keys, now)
        self.carry()

    def note(self, causes: list[Cause], now: datetime) -> None:
        """As `report`, and leaves what is to be told for `carry`."""
        with self._state() as state:
            for cause in causes:
                self._note(state, cause, now)
            self._write(state)

    def end(self, keys: list[str], now: datetime) -> None:
        """As `resolve`, and leaves what is to be told for `carry`."""
        with self._state() as state:
            for key in keys:
                row = state["firing"].pop(key, None)
                if row is not None:
                    self._queue(state, _document("resolved", _firing(row), self._settings, now))
            self._write(state)

    def carry(self) -> None:
        """Sends what waits, in order; after its first refusal a channel is left in peace.

        Raises:
            AlertError: a channel did not take it; it is kept for the next call.
        """
        with self._state() as state:
            faults = self._flush(state)
        if faults:
            raise AlertError("; ".join(faults))

    def firing(self) -> list[Firing]:
        """The causes that last."""
        with self._state() as state:
            return [_firing(row) for row in state["firing"].values()]

    def _tell_unkept(self, causes: list[Cause], now: datetime) -> None:
        faults = []
        for cause in causes:
            alert = _document("failed", Firing(cause, now, now, 1, cause.day), self._settings, now)
            for name, carry in channels(self._settings).items():
                faults.append(_fault(name, carry, alert))
        if told := "; ".join(filter(None, faults)):
            raise AlertError(told)

    def _note(self, state: dict[str, Any], cause: Cause, now: datetime) -> None:
        row = state["firing"].get(cause.key)
        known = _firing(row) if row else None
        if known and cause.run_id and known.cause.run_id == cause.run_id:
            return  # the same failure, seen by the other sensor
        window = timedelta(seconds=self._settings.window_s)
        is_told = known is not None and now - known.told < window
        count = known.count + 1 if known else 1
        since = known.since if known else now
        told = known.told if known and is_told else now
        days = [day for day in (cause.day, known.last_day if known else None) if day]
        firing = Firing(cause, since, told, count, max(days, default=None))
        state["firing"][cause.key] = _row(firing)
        if not is_told:
            event: Event = "repeated" if known else "failed"
            self._queue(state, _document(event, firing, self._settings, now))

    def _queue(self, state: dict[str, Any], alert: dict[str, Any]) -> None:
        for name in channels(self._settings):
            state["waiting"].append({"channel": name, "alert": alert})
            own = [entry for entry in state["waiting"] if entry["channel"] == name]
            if len(own) > MOST_WAITING:
                state["waiting"].remove(own[0])

    def _flush(self, state: dict[str, Any]) -> list[str]:
        """Sends what waits and says which channels refused; what left is struck off at once."""
        known, faults = channels(self._settings), dict[str, str]()
        waiting, left = state["waiting"], []
        for position, entry in enumerate(waiting, start=1):
            name = entry["channel"]
            if name in known and name not in faults:
                fault = _fault(name, known[name], entry["alert"])
                faults |= {name: fault} if fault else {}
            if name in faults:
                left.append(entry)
            else:
                state["waiting"] = [*left, *waiting[position:]]
                self._write(state)
        return list(faults.values())

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with (self._path.parent / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()

    def _read(self) -> dict[str, Any]:
        """What is kept; a file that cannot be read counts as none: rather twice than never."""
        empty: dict[str, Any] = {"firing": {}, "waiting": []}
        try:
            state: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return empty
        return state if state.keys() == empty.keys() else empty

    def _write(self, state: dict[str, Any]) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
        draft.replace(self._path)


def _fault(name: str, carry: Callable[[Document], None], alert: Document) -> str | None:
    """Carries an alert out; why not, if it was not taken."""
    try:
        carry(alert)
    except AlertError as refused:
        return str(refused)
    except Exception as broken:  # noqa: BLE001 - no fault of one channel may hold up the others
        return f"{name}: {type(broken).__name__}; see its VIBES_ALERT_* settings"
    return None


def _row(firing: Firing) -> dict[str, Any]:
    cause = firing.cause
    return {
        "key": cause.key,
        "what": cause.what,
        "names": list(cause.names),
        "job": cause.job,
        "day": cause.day,
        "run_id": cause.run_id,
        "failed_steps": list(cause.failed_steps),
        "severity": cause.severity,
        "since": firing.since.isoformat(),
        "told": firing.told.isoformat(),
        "count": firing.count,
        "last_day": firing.last_day,
    }


def _firing(row: dict[str, Any]) -> Firing:
    cause = Cause(
        key=row["key"],
        what=row["what"],
        names=tuple(row["names"]),
        job=row["job"],
        day=row["day"],
        run_id=row["run_id"],
        failed_steps=tuple(row["failed_steps"]),
        severity=row["severity"],
    )
    since, told = (datetime.fromisoformat(row[name]) for name in ("since", "told"))
    last_day = row.get("last_day", cause.day)  # a state of an earlier version has none
    return Firing(cause, since, told, row["count"], last_day)


def _document(
    event: Event, firing: Firing, settings: AlertSettings, now: datetime
) -> dict[str, Any]:
    """The alert as every channel gets it. `job` to `failed_steps` are of the newest occurrence."""
    cause, advice = firing.cause, advice_for(firing.cause.names)
    link = f"{settings.ui_url}/runs/{cause.run_id}" if settings.ui_url and cause.run_id else None
    document = {
        "event": event,
        "severity": cause.severity,
        "title": f"[vibes] {_TITLES[event]}{cause.what}",
        "what": cause.what,
        "safe": advice.safe,
        "todo": advice.todo,
        "count": firing.count,
        "since": _instant(firing.since),
        "at": _instant(now),
        "job": cause.job,
        "day": cause.day,
        "run_id": cause.run_id,
        "failed_steps": list(cause.failed_steps),
        "link": link,
    }
    return document | {"text": _text(document)}


_TITLES: dict[Event, str] = {"failed": "", "repeated": "still: ", "resolved": "resolved: "}


def _text(document: dict[str, Any]) -> str:
    lines = [document["title"], ""]
    if document["event"] == "resolved":
        lines.append("It is over: a later run went well. Nothing is to be done.")
    else:
        lines += [
            f"What happened: {document['what']}.",
            f"What is safe: {document['safe']}",
            f"What to do: {document['todo']}",
        ]
    times = "once" if document["count"] == 1 else f"{document['count']} times"
    lines += ["", f"Seen {times} since {document['since']}."]
    if document["link"]:
        lines.append(f"Run: {document['link']}")
    elif document["run_id"]:
        lines.append(f"Run: {document['run_id']}")
    return "\n".join([*lines, "More: docs/alerts.md"])


def _instant(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
