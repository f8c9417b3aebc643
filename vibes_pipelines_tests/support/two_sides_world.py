"""What people, the road and the witness do in the small world of `two_sides`.

The platform and its callbacks are a few lists here, and the CRM is a table. A witness judges every
effect by what people said and when.
"""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.consent_rules import Row
from vibes_pipelines_tests.support.deliveries import Killed
from vibes_pipelines_tests.support.two_sides_platform import (
    FilesOfTheWorld,
    Person,
    Violation,
    key_of,
)

LIST = "1234"
PEOPLE = ("C1001", "C1002")
NEWCOMERS = ("C2001", "C2002")
"""Who may come to both sides later, and is in no share until the next one."""

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_TABLES = """
CREATE TABLE contacts (contact_id TEXT PRIMARY KEY, mobile TEXT, sms TEXT, sms_at TEXT);
CREATE TABLE contact_outbox (number INTEGER PRIMARY KEY, contact TEXT);
CREATE TRIGGER noted AFTER UPDATE ON contacts BEGIN
    INSERT INTO contact_outbox (contact) VALUES (new.contact_id); END;
"""


@dataclass
class World:
    """Two systems and a road; each method is one step of somebody.

    `fuse`: effects left until a process dies.
    """

    folder: Path
    now: datetime = BEGIN
    persons: dict[str, Person] = field(default_factory=lambda: {key: Person() for key in PEOPLE})
    on_the_way: list[tuple[str, bytes, datetime, str]] = field(default_factory=list)
    arrived: list[tuple[str, datetime, str]] = field(default_factory=list)
    landed: tuple[list[Row], list[Row], datetime] | None = None
    landed_persons: tuple[str, ...] = PEOPLE
    by_file: bool = False
    known_at_plan: dict[str, datetime | None] = field(default_factory=dict)
    refusals: int = 0
    fuse: int | None = None
    lost: bool = False
    day: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        self.crm_path = self.folder / "crm.db"
        self.crm = sqlite3.connect(self.crm_path, isolation_level=None)
        self.crm.executescript(_TABLES)
        self.crm.execute("PRAGMA journal_mode = WAL").close()
        for key in PEOPLE:
            self._enter(key)
        self.files = FilesOfTheWorld(self)
        self.url = f"sqlite:///{self.folder / 'ledger.db'}"
        self.said: dict[str, tuple[str, datetime]] = {}

    def close(self) -> None:
        self.crm.close()

    # What people do

    def pass_time(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    def crm_user_says(self, key: str, *, yes: bool) -> None:
        self.pass_time(1)
        state = "yes" if yes else "no"
        self.said[key] = (state, self.now)
        self.crm.execute(
            "UPDATE contacts SET sms = ?, sms_at = ? WHERE contact_id = ?",
            (state, text_of(self.now), key),
        ).close()

    def _enter(self, key: str) -> None:
        values = (key, f"+1312555{key[1:]}")
        self.crm.execute("INSERT INTO contacts VALUES (?, ?, NULL, NULL)", values).close()

    def newcomer(self, key: str) -> None:
        """A contact is entered, and is a person of the platform at once; the share is behind."""
        self.pass_time(1)
        if key not in self.persons:
            self._enter(key)
            self.persons[key] = Person()

    def person_joins(self, key: str, *, old_body: bool = False) -> None:
        """`old_body`: the callback names no person_key, as those of 2021 and before."""
        self.pass_time(1)
        person = self.persons[key]
        if not person.is_active:
            person.stays.append([self.now, None])
            person.joined.append(self.now)
            self._tell(ADDED, key, old_body=old_body)

    def person_stops(self, key: str, *, old_body: bool = False) -> None:
        self.pass_time(1)
        self.end(key, old_body=old_body)

    def opt_outs_imported(self, keys: Collection[str]) -> None:
        """Somebody imports a file of opt-outs at the platform: one callback for each row."""
        self.pass_time(1)
        for key in sorted(keys):
            self.end(key)

    def end(self, key: str, *, old_body: bool = False) -> None:
        person = self.persons[key]
        if person.is_active:
            person.stays[-1][1] = self.now
            self._tell(REMOVED, key, old_body=old_body)

    def _tell(self, kind: str, key: str, *, old_body: bool = False) -> None:
        self.events += 1
        named = {"external_person_id": key, "person_key": None if old_body else key_of(key)}
        body = subscription_body(kind, f"E{self.events}", text_of(self.now), list_id=LIST, **named)
        self.on_the_way.append((kind, as_bytes(body), self.now, key))

    # What the road does

    def callback_arrives(self, index: int, *, again: bool = False) -> None:
        if self.on_the_way:
            place = index % len(self.on_the_way)
            kind, body, at, key = self.on_the_way[place]
            if not again:
                self.on_the_way.pop(place)
            with closing(Inbox(self.url)) as inbox:
                inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", body))])
            self.arrived.append((kind, at, key))

    def callback_is_lost(self, index: int) -> None:
        if self.on_the_way:
            self.on_the_way.pop(index % len(self.on_the_way))
            self.lost = True

    def files_are_imported(self) -> None:
        """The platform gets to the files that lie on its server."""
        self.pass_time(1)
        self.files.process()

    # What the witness asks

    def crm_of(self, key: str) -> tuple[str | None, datetime | None]:
        with closing(
            self.crm.execute("SELECT sms, sms_at FROM contacts WHERE contact_id = ?", (key,))
        ) as found:
            state, changed = found.fetchone()
        return state and {"false": "no", "n": "no"}.get(state, state), instant_of(changed)

    def check(self) -> None:
        """Law 1 on the CRM's side, after every step."""
        for key, (said, at) in self.said.items():
            state, changed = self.crm_of(key)
            if state == "yes" and (said, at) != ("yes", changed):
                raise Violation(f"{key}: the CRM says yes, and nobody said so")
            if state == "no" and said == "yes":
                out = self.persons[key].last_out
                if out is None or out < at:
                    raise Violation(f"{key}: a newer yes of the CRM was overwritten")

    def require_out(self, key: str, how: str) -> None:
        state, changed = self.crm_of(key)
        person = self.persons[key]
        if person.is_active and state == "no":
            joined = person.last_in
            if not (joined and changed and joined > changed):
                raise Violation(f"{key}: opted out in the CRM, still subscribed {how}")

    def effect(self) -> None:
        """Something is about to be recorded: here a process may die."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Killed

    def contacts(self) -> list[Row]:
        with closing(self.crm.execute("SELECT contact_id, sms, sms_at FROM contacts")) as found:
            return [
                {"contact_id": key, "sms": state, "sms_at": instant_of(at)}
                for key, state, at in found.fetchall()
            ]


def text_of(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def instant_of(text: str | None) -> datetime | None:
    if not text:
        return None
    read = datetime.fromisoformat(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read
