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
from typing import Any

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.instants import read_instant
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.consent_rules import Row
from vibes_pipelines_tests.support.deliveries import Killed
from vibes_pipelines_tests.support.two_sides_platform import (
    FilesOfTheWorld,
    Person,
    Violation,
    key_of,
    number_of,
)

LIST = "1234"
PEOPLE = ("C1001", "C1002")
NEWCOMERS = ("C2001", "C2002")
"""Who may come to both sides later, and is in no share until the next one."""

STRANGERS = ("C3001", "C3002")
"""Whom the sides meet apart: a contact is added as a person, or a person is known by number."""

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_TABLES = """
CREATE TABLE contacts
    (contact_id TEXT PRIMARY KEY, mobile TEXT, first TEXT, sms TEXT, sms_at TEXT);
CREATE TABLE contact_outbox (number INTEGER PRIMARY KEY, contact TEXT);
CREATE TRIGGER noted AFTER UPDATE ON contacts BEGIN
    INSERT INTO contact_outbox (contact) VALUES (new.contact_id); END;
"""


@dataclass
class World:
    """Two systems and a road; each method is one step of somebody.

    `fuse`: effects left until a process dies. `landed_persons`: who, and whether by external id.
    `unheard`: who joined when, where no callback tells it to anybody who can be recognised.
    """

    folder: Path
    now: datetime = BEGIN
    persons: dict[str, Person] = field(default_factory=lambda: {key: Person() for key in PEOPLE})
    on_the_way: list[tuple[str, bytes, datetime, str]] = field(default_factory=list)
    arrived: list[tuple[str, datetime, str]] = field(default_factory=list)
    landed: tuple[list[Row], list[Row], datetime] | None = None
    landed_persons: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(PEOPLE, True))
    by_file: bool = False
    known_at_plan: dict[str, datetime | None] = field(default_factory=dict)
    refusals: int = 0
    fuse: int | None = None
    unheard: dict[str, datetime] = field(default_factory=dict)
    day: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        self.crm_path = self.folder / "crm.db"
        self.crm = sqlite3.connect(self.crm_path, isolation_level=None)
        self.crm.executescript(_TABLES)
        self.crm.execute("PRAGMA journal_mode = WAL").close()
        self.entered: set[str] = set()
        self.nameless: set[tuple[str, datetime, str]] = set()
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
        values = (key, number_of(key))
        self.crm.execute("INSERT INTO contacts VALUES (?, ?, NULL, NULL, NULL)", values).close()
        self.entered.add(key)

    def newcomer(self, key: str) -> None:
        """A contact is entered, and is a person of the platform at once; the share is behind."""
        self.pass_time(1)
        if key not in self.persons:
            self._enter(key)
            self.persons[key] = Person()

    def stranger_is_entered(self, key: str) -> None:
        """A contact whom the platform does not have, or by the number alone."""
        self.pass_time(1)
        if key not in self.entered:
            self._enter(key)

    def stranger_joins(self, key: str) -> None:
        """Somebody texts a keyword: a person without an external id, until a delivery gives one."""
        self.persons.setdefault(key, Person(is_named=False))
        self.person_joins(key)

    def crm_user_renames(self, key: str) -> None:
        """Something is changed that is not consent, and goes out with the next delivery."""
        self.pass_time(1)
        self.crm.execute(
            "UPDATE contacts SET first = ? WHERE contact_id = ?", (f"Ada {self.now:%j %H%M}", key)
        ).close()

    def list_is_onboarded(self, keys: Collection[str]) -> None:
        """Somebody imports a file of subscriptions: one callback for each row.

        The evidence of consent, without which no such file is written, is that of this moment.
        """
        self.pass_time(1)
        for key in sorted(keys):
            self._subscribe(key)

    def person_joins(self, key: str, *, old_body: bool = False) -> None:
        """`old_body`: the callback names no person_key, as those of 2021 and before."""
        self.pass_time(1)
        self._subscribe(key, old_body=old_body)

    def _subscribe(self, key: str, *, old_body: bool = False) -> None:
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

    def write_person(self, key: str, first: str | None) -> None:
        """A delivery adds a person, gives one its external id, or changes its first name."""
        kind = "person_updated" if key in self.persons else "person_added"
        person = self.persons.setdefault(key, Person())
        person.is_named, person.first = True, first or person.first
        named = {"external_person_id": key, "person_key": key_of(key)}
        self._send(kind, key, {"person": named | {"custom_fields": {"first_name": person.first}}})

    def _tell(self, kind: str, key: str, *, old_body: bool = False) -> None:
        named = {"external_person_id": key, "person_key": None if old_body else key_of(key)}
        if not self.persons[key].is_named:
            named = {"person_key": key_of(key), "mdn": number_of(key)}
            self.nameless.add((kind, self.now, key))
        self._send(kind, key, subscription_body(kind, None, text_of(self.now), **named))

    def _send(self, kind: str, key: str, body: dict[str, Any]) -> None:
        self.events += 1
        envelope = {"callback_type": kind, "event_date": text_of(self.now)}
        body = envelope | body | {"event_id": f"E{self.events}"}
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
            event = (kind, at, key)
            if kind == ADDED and event in self.nameless and key not in self.landed_contacts():
                self.unheard[key] = at
            self.arrived.append(event)

    def callback_is_lost(self, index: int) -> None:
        if self.on_the_way:
            kind, _, at, key = self.on_the_way.pop(index % len(self.on_the_way))
            if kind == ADDED and (kind, at, key) not in self.arrived:
                self.unheard[key] = at

    def files_are_imported(self) -> None:
        """The platform gets to the files that lie on its server."""
        self.pass_time(1)
        self.files.process()

    # What the witness asks

    def crm_of(self, key: str) -> tuple[str | None, datetime | None]:
        with closing(
            self.crm.execute("SELECT sms, sms_at FROM contacts WHERE contact_id = ?", (key,))
        ) as found:
            state, changed = found.fetchone() or (None, None)
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

    def landed_contacts(self) -> set[str]:
        return {row["contact_id"] for row in self.landed[0]} if self.landed else set()

    def is_told(self, key: str) -> bool:
        """Whether a callback told the person's last join, to somebody who knows whose it is."""
        joined = self.persons[key].last_in
        return joined is None or self.unheard.get(key) != joined

    def is_known(self, key: str, when: datetime | None = None) -> bool:
        """Whether the person's last join could be known here: then, or now."""
        joined, (_, _, landed) = self.persons[key].last_in, self.landed or (None, None, BEGIN)
        is_landed = joined is not None and joined <= landed and (when is None or landed < when)
        return is_landed or self.is_told(key)

    def require_out_in_real_time(self) -> None:
        """Who said no in the CRM is out, if a callback told of the join or it was known before.

        A landing brings nobody's older no up again: the daily job does, which it is a part of.
        """
        for key in self.persons:
            _, changed = self.crm_of(key)
            if changed and self.is_known(key, changed):
                self.require_out(key, "in real time")

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
        query = "SELECT contact_id, first, sms, sms_at FROM contacts"
        with closing(self.crm.execute(query)) as found:
            return [
                {"contact_id": key, "first": first, "sms": state, "sms_at": instant_of(at)}
                for key, first, state, at in found.fetchall()
            ]


def text_of(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def instant_of(text: str | None) -> datetime | None:
    return read_instant(text) if text else None
