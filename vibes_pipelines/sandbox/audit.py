"""What was done to the sandbox, counted: proof that nothing was lost and nothing done twice.

An effect is a change of state; an identical write again is a repeat and counted apart. The audit
knows person keys and counts, never values. Whoever sets `log` is told of every request, import row
and session one by one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Lock


class Audit:
    """Counters of requests, effects, repeats, imports, sessions, callbacks; safe for threads."""

    def __init__(self) -> None:
        self.log: Callable[[Iterable[Mapping[str, object]]], None] = lambda _: None
        self._lock = Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._effects: Counter[tuple[str, str]] = Counter()
        self._repeats: Counter[tuple[str, str]] = Counter()
        self._imports: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()
        self._callbacks: Counter[tuple[str, str]] = Counter()

    def request(self, method: str, route: str, status: int) -> None:
        """Count an answered request; status 0 when the connection was dropped without an answer."""
        with self._lock:
            self._requests[method, route, status] += 1
        self.log([{"kind": "request", "method": method, "route": route, "status": status}])

    def effect(self, kind: str, person_key: str) -> None:
        """Count a change of a person's state.

        Kinds: `api_add`, `api_update`, `api_unsubscribe`, `import_add`, `import_update`.
        """
        with self._lock:
            self._effects[kind, person_key] += 1

    def repeat(self, kind: str, person_key: str) -> None:
        """Count a write that found everything as it asks for."""
        with self._lock:
            self._repeats[kind, person_key] += 1

    def imported(self, rows: Mapping[str, int]) -> None:
        """Count a processed import and its rows by what became of them."""
        with self._lock:
            self._imports.update({"files": 1, **rows})

    def import_rows(self, name: str, rows: Iterable[tuple[int, str]]) -> None:
        """Tell of a processed import's rows: each one's number, and its outcome or error class.

        Row 0 is the file as a whole.
        """
        self.log(
            {"kind": "import_row", "file": name, "row": row, "outcome": outcome}
            for row, outcome in rows
        )

    def session(self, outcome: str) -> None:
        """Count an SFTP session by its outcome, e.g. `accepted` or `refused`."""
        with self._lock:
            self._sessions[outcome] += 1
        self.log([{"kind": "session", "outcome": outcome}])

    def callback(self, outcome: str, callback_type: str, count: int = 1) -> None:
        """Count what became of callbacks.

        Each one `queued` ends as `delivered`, `lost` (the receiver answered 4XX), `given_up` (all
        retries failed) or `cancelled` (with its registration). Counted beside it: every attempt to
        be `retried`, every `duplicate` sent, and how often a URL was `downed`.
        """
        with self._lock:
            self._callbacks[outcome, callback_type] += count

    def effects(self, kind: str | None = None) -> int:
        """How many effects there were, of one kind or of all."""
        with self._lock:
            return _sum_of(self._effects, kind)

    def repeats(self, kind: str | None = None) -> int:
        """How many repeats there were, of one kind or of all."""
        with self._lock:
            return _sum_of(self._repeats, kind)

    def clear(self) -> None:
        """Forget everything counted so far."""
        with self._lock:
            for counter in (self._effects, self._repeats, self._imports, self._sessions):
                counter.clear()
            self._requests.clear()
            self._callbacks.clear()

    def as_dict(self, *, persons: bool = True) -> dict[str, object]:
        """The counters as JSON-ready data; without `persons` only totals by kind."""
        with self._lock:
            counts: dict[str, object] = {
                "requests": [
                    {"method": method, "route": route, "status": status, "count": count}
                    for (method, route, status), count in sorted(self._requests.items())
                ],
                "effects": _by_kind(self._effects),
                "repeats": _by_kind(self._repeats),
                "imports": dict(sorted(self._imports.items())),
                "sessions": dict(sorted(self._sessions.items())),
                "callbacks": _by_kind(self._callbacks),
                "callbacks_by_type": _by_second(self._callbacks),
            }
            if persons:
                counts["effects_by_person"] = _by_second(self._effects)
                counts["repeats_by_person"] = _by_second(self._repeats)
            return counts


def _sum_of(counter: Counter[tuple[str, str]], kind: str | None) -> int:
    return sum(count for (name, _), count in counter.items() if kind in {None, name})


def _by_kind(counter: Counter[tuple[str, str]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for (kind, _), count in counter.items():
        totals[kind] += count
    return dict(sorted(totals.items()))


def _by_second(counter: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Counts by the second part of the key, which is a person key or a callback type."""
    counts: dict[str, dict[str, int]] = {}
    for (kind, second), count in sorted(counter.items()):
        counts.setdefault(second, {})[kind] = count
    return counts
