"""Both systems, the callbacks between them and the stages of this project, small and fast.

The platform and its callbacks are a few lists here; the CRM is a table; inbox, ledger, book of real
time, plan, push, write-back, drain and looks at changes are the real ones, and so are the rules of
consent (see `consent_rules`). A witness judges every effect by what people said and when.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.crm.write_back import CrmTable
from vibes_pipelines.delivery.api_push import push
from vibes_pipelines.delivery.intents import Origin, opt_out_intents
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.delivery.write_back import write_back
from vibes_pipelines.stages import changes, slices
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_views import PENDING_SCHEMA
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.consent_rules import Row, consent_changes
from vibes_pipelines_tests.support.deliveries import (
    BY_API,
    INVITING,
    SNAPSHOTS,
    FakeSummary,
    Killed,
    write_diff_set,
)
from vibes_pipelines_tests.support.two_sides_platform import (
    CampaignsOfTheWorld,
    PlatformOfTheWorld,
    Violation,
)

LIST = "1234"
PEOPLE = ("C1001", "C1002")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
OUTBOX = {"by": "outbox", "table": "contact_outbox", "id": "number", "key": "contact"}
CONFIG = INVITING.model_copy(
    update={
        "fields": (),
        "contacts": INVITING.contacts.model_validate(
            {**INVITING.contacts.model_dump(by_alias=True, exclude_none=True), "changes": OUTBOX}
        ),
    }
)
_TABLES = """
CREATE TABLE contacts (contact_id TEXT PRIMARY KEY, mobile TEXT, sms TEXT, sms_at TEXT);
CREATE TABLE contact_outbox (number INTEGER PRIMARY KEY, contact TEXT);
CREATE TRIGGER noted AFTER UPDATE ON contacts BEGIN
    INSERT INTO contact_outbox (contact) VALUES (new.contact_id); END;
"""


@dataclass
class Person:
    """The stays of one person on the list, and the words that came from the person alone."""

    stays: list[list[datetime | None]] = field(default_factory=list)
    joined: list[datetime] = field(default_factory=list)

    @property
    def last_in(self) -> datetime | None:
        return max((one[0] for one in self.stays if one[0]), default=None)

    @property
    def last_out(self) -> datetime | None:
        return max((one[1] for one in self.stays if one[1]), default=None)

    @property
    def is_active(self) -> bool:
        return bool(self.stays) and self.stays[-1][1] is None


@dataclass
class TwoSides:
    """One world; each method is one step of somebody. `fuse`: effects left until a process dies."""

    folder: Path
    now: datetime = BEGIN
    persons: dict[str, Person] = field(default_factory=lambda: {key: Person() for key in PEOPLE})
    on_the_way: list[tuple[str, bytes, datetime, str]] = field(default_factory=list)
    arrived: list[tuple[str, datetime, str]] = field(default_factory=list)
    landed: tuple[list[Row], list[Row], datetime] | None = None
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
            values = (key, f"+1312555{key[1:]}")
            self.crm.execute("INSERT INTO contacts VALUES (?, ?, NULL, NULL)", values).close()
        self.url = f"sqlite:///{self.folder / 'ledger.db'}"
        self.said: dict[str, tuple[str, datetime]] = {}
        settings = SimpleNamespace(
            ledger_url=self.url,
            inbox_url=self.url,
            crm_url=f"sqlite:///{self.crm_path}",
            keys_home=self.crm_path.parent,
        )
        self.ledger = Ledger(self.url)
        snapshots = SimpleNamespace(days=lambda _: [], find=lambda *_: None)
        self.project: Any = SimpleNamespace(
            settings=settings, config=CONFIG, snapshots=snapshots, ledger=self.ledger
        )

    def close(self) -> None:
        self.crm.close()
        self.ledger.close()

    # What people do

    def pass_time(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    def crm_user_says(self, key: str, *, yes: bool) -> None:
        self.pass_time(1)
        state = "yes" if yes else "no"
        self.said[key] = (state, self.now)
        self.crm.execute(
            "UPDATE contacts SET sms = ?, sms_at = ? WHERE contact_id = ?",
            (state, _text(self.now), key),
        ).close()

    def person_joins(self, key: str) -> None:
        self.pass_time(1)
        person = self.persons[key]
        if not person.is_active:
            person.stays.append([self.now, None])
            person.joined.append(self.now)
            self._tell(ADDED, key)

    def person_stops(self, key: str) -> None:
        self.pass_time(1)
        self.end(key)

    def end(self, key: str) -> None:
        person = self.persons[key]
        if person.is_active:
            person.stays[-1][1] = self.now
            self._tell(REMOVED, key)

    def _tell(self, kind: str, key: str) -> None:
        self.events += 1
        named = {"external_person_id": key, "person_key": f"key-{key.lower()}"}
        body = subscription_body(kind, f"E{self.events}", _text(self.now), list_id=LIST, **named)
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

    # What this project does

    def drain(self) -> None:
        with self._watched_crm():
            drain(self.project, dry_run=False)
        for kind, at, key in self.arrived:
            joined_since = any(one >= at for one in self.persons[key].joined)
            state, changed = self.crm_of(key)
            is_newer = state == "yes" and changed is not None and changed > at
            if kind == REMOVED and state != "no" and not joined_since and not is_newer:
                raise Violation(f"{key}: a STOP was drained, and the CRM does not have it")

    def carry(self) -> None:
        before = self.refusals
        with pytest.MonkeyPatch.context() as patch, self._watched_crm():
            patch.setattr(changes, "held", lambda _: None)
            patch.setattr(changes, "reconcile_slice", self._slice)
            patch.setattr(changes, "_send_all", self._send_all)
            changes.carry_changes(self.project, dry_run=False)
        knows_all = not self.on_the_way and not self.lost and self.landed is not None
        for key in PEOPLE if knows_all and not before else ():
            self._require_out(key, "in real time")

    def _slice(self, _project: Any, keys: Sequence[str], name: str) -> slices.Slice:
        _, stays, as_of = self.landed or ([], [], BEGIN)
        heard = list(slices._heard_subscriptions(self.project, keys, as_of))
        for stay in heard:
            stay |= {name: _instant(stay[name]) for name in ("opt_in_date", "opt_out_date")}
        rows = [row for row in self._contacts() if row["contact_id"] in keys]
        pending = PENDING_SCHEMA.empty_table()
        found = consent_changes(CONFIG, rows, [*stays, *heard], pending, self.now)
        folder = write_diff_set(self.folder / "slice", subscriptions=found)
        origin = Origin(name, "2026-01-01", self.now, folder)
        outs = tuple(one for one in opt_out_intents(origin) if one.kind == "opt_out")
        return slices.Slice((), outs, (), as_of, 1_000, 1_000, frozenset(keys))

    async def _send_all(self, _project: Any, operations: Sequence[Operation]) -> list[Receipt]:
        platform = PlatformOfTheWorld(self, knows_joins=True)
        answers = []
        for one in operations:
            answer = await platform.unsubscribe(LIST, external_person_id=one.external_person_id)
            answers.append(receipt(one.operation_id, answer.outcome, answer.error_class, None))
        return answers

    def land_and_plan(self) -> None:
        """The daily job up to its plan; what it plans may wait."""
        self.day += 1
        self.now = max(self.now, BEGIN + timedelta(days=self.day))
        self.lost = False
        day = self.now.date().isoformat()
        stays = [
            {
                "person_key": f"key-{key.lower()}",
                "subscription_list_id": LIST,
                "opt_in_date": since,
                "opt_out_date": until,
            }
            for key, person in self.persons.items()
            for since, until in person.stays
        ]
        self.landed = (self._contacts(), stays, self.now)
        self.known_at_plan = {key: person.last_out for key, person in self.persons.items()}
        pending = self.ledger.pending(day)
        found = consent_changes(CONFIG, self.landed[0], stays, pending, self.now)
        name = f"{self.day:064}"
        folder = write_diff_set(self.folder / "diff_sets" / day, subscriptions=found)
        register_diff_set(self.ledger, day, FakeSummary(name, self.now), SNAPSHOTS)
        plan(name, folder, CONFIG, self.ledger, BY_API)

    def deliver(self) -> None:
        newest = self.ledger.newest_diff_set()
        if newest is None:
            return
        platform = PlatformOfTheWorld(self)
        with closing(Inbox(self.url)) as inbox, self._watched_crm():
            watch = LastLook(self.project, inbox)
            for lane in ("opt_outs", "invites"):
                open_operations = self.ledger.open_operations(newest.diff_set, lane, "api")  # type: ignore[arg-type]
                asyncio.run(
                    push(
                        open_operations,
                        platform,
                        self.ledger,
                        {},
                        campaigns=CampaignsOfTheWorld(self),
                        consent=watch,
                        dry_run=False,
                    )
                )
            crm = CrmTable(self.project.settings.crm_url, CONFIG)
            back = self.ledger.open_operations(newest.diff_set, "opt_outs", "crm")
            write_back(back, crm, self.ledger, dry_run=False)

    def daily_job(self) -> None:
        self.land_and_plan()
        self.deliver()

    def roads_up(self) -> None:
        """Everything works again: within two days both sides must have every opt-out."""
        self.fuse, self.refusals = None, 0
        while self.on_the_way:
            self.callback_arrives(0)
        self.drain()
        self.carry()
        for _ in range(2):
            self.pass_time(24 * 60)
            self.daily_job()
        while self.on_the_way:
            self.callback_arrives(0)
        self.drain()
        for key in PEOPLE:
            self._require_out(key, "by the daily job")
            person, (state, changed) = self.persons[key], self.crm_of(key)
            if person.stays and not person.is_active and state != "no":
                out = person.last_out
                if not (state == "yes" and changed and out and changed > out):
                    raise Violation(f"{key}: opted out at the platform, and the CRM says {state}")

    # What the witness asks

    def crm_of(self, key: str) -> tuple[str | None, datetime | None]:
        with closing(
            self.crm.execute("SELECT sms, sms_at FROM contacts WHERE contact_id = ?", (key,))
        ) as found:
            state, changed = found.fetchone()
        return state and {"false": "no", "n": "no"}.get(state, state), _instant(changed)

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

    def _require_out(self, key: str, how: str) -> None:
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

    @contextmanager
    def _watched_crm(self) -> Iterator[None]:
        """Dies, if it is to, between a write to the CRM and its mark, or before the write."""
        apply, finish = CrmTable.apply_opt_outs, Inbox.finish

        def applied(table: CrmTable, rows: Any) -> Any:
            self.effect()
            return apply(table, rows)

        def finished(inbox: Inbox, rows: Any) -> None:
            self.effect()
            finish(inbox, rows)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CrmTable, "apply_opt_outs", applied)
            patch.setattr(Inbox, "finish", finished)
            yield

    def _contacts(self) -> list[Row]:
        with closing(self.crm.execute("SELECT contact_id, sms, sms_at FROM contacts")) as found:
            return [
                {"contact_id": key, "sms": state, "sms_at": _instant(at)}
                for key, state, at in found.fetchall()
            ]


def _text(instant: datetime | None) -> str | None:
    return instant and instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    read = datetime.fromisoformat(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


@contextmanager
def two_sides(folder: Path, template: Path) -> Iterator[TwoSides]:
    """A new world; `template` is an empty ledger with all its tables."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(template, folder / "ledger.db")
    world = TwoSides(folder)
    try:
        yield world
    finally:
        world.close()


def empty_ledger(path: Path) -> Path:
    """An empty ledger in one file."""
    with Ledger(f"sqlite:///{path}") as ledger, ledger._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return path
