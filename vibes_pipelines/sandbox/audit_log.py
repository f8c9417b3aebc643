"""The audit one by one: every request, import row and SFTP session as a line of JSON in a file.

Lines hold routes, row numbers, error classes and outcomes, never values: neither names nor numbers
of persons. Instants are the sandbox's own.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final

KEPT: Final = 10_000
"""How many of the latest entries can be asked for; all are in the file."""

Entry = Mapping[str, object]


class AuditLog:
    """Appends entries to `path`, whole lines at a time; safe for threads."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = Lock()
        self._latest: deque[Entry] = deque(maxlen=KEPT)
        self._file = path.open("a", encoding="utf-8")

    def write(self, entries: Iterable[Entry]) -> None:
        """Append entries that happened now."""
        at = self._now().isoformat()
        stamped = [{"at": at, **entry} for entry in entries]
        text = "".join(f"{json.dumps(entry)}\n" for entry in stamped)
        with self._lock:
            if not self._file.closed:
                self._latest.extend(stamped)
                self._file.write(text)
                self._file.flush()

    def latest(self, kind: str | None, count: int) -> list[Entry]:
        """The latest entries of a kind or of all, the oldest first."""
        with self._lock:
            chosen = [entry for entry in self._latest if kind in {None, entry["kind"]}]
        return chosen[-count:] if count else []

    def close(self) -> None:
        """Let the file go; what comes later is not written."""
        with self._lock:
            self._file.close()
