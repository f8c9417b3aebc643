"""The sandbox's state on disk: what has changed is saved before a request is answered.

One SQLite file; a commit is one transaction, so that a process killed at any point leaves a state
that was. What is saved: persons, subscriptions, everything on a shelf, and where the clock stood.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from vibes_pipelines.sandbox import activity
from vibes_pipelines.sandbox.acquisition import Participation
from vibes_pipelines.sandbox.callbacks_records import Delivery, Destination, Registration
from vibes_pipelines.sandbox.imports_records import RecipientList
from vibes_pipelines.sandbox.platform import Person, Platform, Subscription
from vibes_pipelines.sandbox.platform_records import Happening
from vibes_pipelines.sandbox.push_devices import PushDevice
from vibes_pipelines.sandbox.saved import SavedRecords
from vibes_pipelines.sandbox.shelf import Shelf
from vibes_pipelines.sandbox.wallet import WalletItem

_RECORDS = SavedRecords(
    (
        Person,
        Subscription,
        Participation,
        Delivery,
        Destination,
        Registration,
        RecipientList,
        PushDevice,
        WalletItem,
        activity.Message,
        activity.PushMessage,
        activity.Click,
        activity.PageView,
        activity.WalletInstance,
    )
)

_PERSONS = "persons"
_PLACE = "place"


class JournalError(RuntimeError):
    """A journal cannot be read; the message names it and says the cure."""


class Journal:
    """Saves a platform and shelves to `path`; listens to the platform for what changes.

    `place` tells where the sandbox stands in time, by name; it is saved with every change.
    """

    def __init__(
        self,
        path: Path,
        platform: Platform,
        shelves: Iterable[Shelf[Any, Any]],
        place: Callable[[], dict[str, date | datetime]],
    ) -> None:
        self._path = path
        self._platform = platform
        self._shelves = {shelf.name: shelf for shelf in shelves}
        self._place = place
        self._changed: set[str] = set()
        self._lock = Lock()
        self._is_held = False
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS records"
            " (shelf TEXT, key TEXT, value TEXT, PRIMARY KEY (shelf, key)) WITHOUT ROWID"
        )
        tell = platform.on_happening

        def listen(happening: Happening) -> None:
            self._changed.add(happening.person.person_key)
            tell(happening)

        platform.on_happening = listen

    def close(self) -> None:
        """Save what is left and let the file go."""
        self.commit()
        self._database.close()

    def begin(self) -> None:
        """Save the whole state, which has just been set up."""
        self._changed.update(self._platform.persons)
        self.commit()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Save all that happens within at once, at the end: half a night is no state to resume."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        self.commit()

    def commit(self) -> None:
        """Save what has changed since the last time; nothing when nothing has."""
        if self._is_held:
            return
        if not self._changed and not any(shelf.dirty for shelf in self._shelves.values()):
            return
        with self._platform.lock, self._lock:
            rows = [*self._changed_persons(), *self._changed_records()]
            place = {**self._place(), "next_number": self._platform.next_number}
            rows.append((_PLACE, "", _RECORDS.dump(place)))
            gone = [(shelf, key) for shelf, key, text in rows if text is None]
            kept = [row for row in rows if row[2] is not None]
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM records WHERE shelf = ? AND key = ?", gone)
            self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", kept)
            self._database.execute("COMMIT")

    def restore(self) -> dict[str, Any]:
        """Put the saved state back into platform and shelves; returns the place in time.

        Raises JournalError for a file that no sandbox of this kind has written.
        """
        try:
            place: dict[str, Any] = dict(self._saved(_PLACE))[""]
            whole = [value for _, value in self._saved(_PERSONS)]
            self._platform.load(
                [person for person, _ in whole], [stay for _, stays in whole for stay in stays]
            )
            for shelf in self._shelves.values():
                for key, value in self._saved(shelf.name):
                    shelf.restore(_key(key), value)
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            raise JournalError(
                f"{self._path} is not a sandbox's state ({type(error).__name__});"
                " start a new world instead"
            ) from error
        self._platform.next_number = place["next_number"]
        return place

    def _saved(self, shelf: str) -> Iterator[tuple[str, Any]]:
        statement = "SELECT key, value FROM records WHERE shelf = ? ORDER BY key"
        for key, text in self._database.execute(statement, (shelf,)).fetchall():
            yield key, _RECORDS.load(text)

    def _changed_persons(self) -> Iterator[tuple[str, str, str | None]]:
        while self._changed:
            key = self._changed.pop()
            person = self._platform.persons.get(key)
            stays = self._platform.subscriptions_of(key, active_only=False)
            text = None if person is None else _RECORDS.dump((person, tuple(stays)))
            yield _PERSONS, key, text

    def _changed_records(self) -> Iterator[tuple[str, str, str | None]]:
        for shelf in self._shelves.values():
            while shelf.dirty:
                key = shelf.dirty.pop()
                # Senders take deliveries off their shelf at any time: then the next commit sees it.
                value = shelf.get(key)
                text = None if value is None else _RECORDS.dump(value)
                yield shelf.name, _name(key), text


def _name(key: str | int) -> str:
    """A shelf's key as text that sorts as the key does."""
    return f"#{key:012d}" if isinstance(key, int) else key


def _key(name: str) -> str | int:
    return int(name[1:]) if name.startswith("#") else name
