"""Both systems, the callbacks between them and the stages of this project, small and fast.

The platform and its callbacks are a few lists here; the CRM is a table; inbox, ledger, book of real
time, plan, push, files, write-back, drain, looks at changes and the lane of opt-outs are the real
ones, and so are the rules of consent (see `consent_rules`). A witness judges every effect by what
people said and when.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.crm.write_back import CrmTable
from vibes_pipelines.delivery.api_push import push
from vibes_pipelines.delivery.file_import import (
    Folders,
    collect_reports,
    deliver_files,
    lane_of,
)
from vibes_pipelines.delivery.intents import Origin, opt_out_intents
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.delivery.sends import Sender
from vibes_pipelines.delivery.write_back import write_back
from vibes_pipelines.stages import changes, opt_out_lane, slices
from vibes_pipelines.stages.heard import KnownPerson, Whose, heard_subscriptions
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.landing import CONTACTS, PERSONS
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_views import PENDING_SCHEMA
from vibes_pipelines.store.records import Lane, Operation, Receipt
from vibes_pipelines_tests.support.callbacks import REMOVED
from vibes_pipelines_tests.support.consent_rules import consent_changes
from vibes_pipelines_tests.support.deliveries import (
    BY_API,
    BY_FILE,
    INVITING,
    SNAPSHOTS,
    FakeSummary,
    add,
    change,
    update,
    write_diff_set,
)
from vibes_pipelines_tests.support.two_sides_platform import (
    CampaignsOfTheWorld,
    PlatformOfTheWorld,
    Violation,
    key_of,
    number_of,
)
from vibes_pipelines_tests.support.two_sides_world import BEGIN, LIST, World, instant_of

OUTBOX = {"by": "outbox", "table": "contact_outbox", "id": "number", "key": "contact"}
CONFIG = INVITING.model_copy(
    update={
        "fields": INVITING.fields[:1],
        "contacts": INVITING.contacts.model_validate(
            {**INVITING.contacts.model_dump(by_alias=True, exclude_none=True), "changes": OUTBOX}
        ),
    }
)
TYPES = {mapped.to: mapped.type for mapped in CONFIG.fields}
LANES: tuple[Lane, ...] = ("opt_outs", "persons", "invites")


class TwoSides(World):
    """One world with this project in it; each method is one step of somebody."""

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = SimpleNamespace(
            ledger_url=self.url,
            inbox_url=self.url,
            crm_url=f"sqlite:///{self.crm_path}",
            keys_home=self.crm_path.parent,
            api=SimpleNamespace(rate_per_s=90, bulk_rate_per_s=90, opt_out_rate_per_s=5),
        )
        self.ledger = Ledger(self.url)
        snapshots = SimpleNamespace(days=self._landed_days, find=self._landed_feed)
        self.project: Any = SimpleNamespace(
            settings=settings, config=CONFIG, snapshots=snapshots, ledger=self.ledger
        )

    def _landed_days(self, feed: str) -> list[str]:
        """Of what is read between two days; who asks for a whole day finds none."""
        return ["newest"] if (self.folder / _file_of(feed)).exists() else []

    def _landed_feed(self, feed: str, _: str) -> Any:
        return SimpleNamespace(data=self.folder / _file_of(feed))

    def _land(self, feed: str, rows: Sequence[dict[str, str | None]]) -> None:
        schema = pa.schema([(name, pa.string()) for name in rows[0]])
        pq.write_table(pa.Table.from_pylist(list(rows), schema), self.folder / _file_of(feed))

    def close(self) -> None:
        super().close()
        self.ledger.close()

    # What this project does

    def drain(self) -> None:
        with self._watched_crm():
            drain(self.project, dry_run=False)
        for kind, at, key in self.arrived:
            if (kind, at, key) in self.nameless:
                continue  # of whom it is, is known once the person has its external id
            joined_since = any(one >= at for one in self.persons[key].joined)
            state, changed = self.crm_of(key)
            is_newer = state == "yes" and changed is not None and changed > at
            if kind == REMOVED and state != "no" and not joined_since and not is_newer:
                raise Violation(f"{key}: a STOP was drained, and the CRM does not have it")

    def carry(self) -> None:
        """A look at all changes of the CRM."""
        with self._real_time():
            changes.carry_changes(self.project, dry_run=False)

    def carry_opt_outs(self) -> None:
        """The lane of opt-outs, which moves no mark of the look at all changes."""
        with self._real_time():
            opt_out_lane.carry_opt_outs(self.project, dry_run=False)

    @contextmanager
    def _real_time(self) -> Iterator[None]:
        refusals = self.refusals
        with pytest.MonkeyPatch.context() as patch, self._watched_crm():
            for stage in (changes, opt_out_lane):
                patch.setattr(stage, "held", lambda _: None)
            patch.setattr(changes, "reconcile_slice", self._slice)
            patch.setattr(changes, "_send_all", self._send_all)
            yield
        if self.landed is not None and not self.on_the_way and not refusals:
            self.require_out_in_real_time()

    def _slice(self, _project: Any, keys: Collection[str], name: str) -> slices.Slice:
        _, stays, as_of = self.landed or ([], [], BEGIN)
        known = [
            KnownPerson(key_of(key), key if is_named else None, number_of(key))
            for key, is_named in self.landed_persons.items()
        ]
        whose = Whose(keys, [number_of(key) for key in keys])
        heard = heard_subscriptions(self.project, as_of, whose, known)
        told = [{name: _moment(name, stay[name]) for name in stay} for stay in heard.stays]
        rows = [row for row in self.contacts() if row["contact_id"] in keys]
        persons = {_contact(person): person.person_key for person in (*known, *heard.persons)}
        pending = PENDING_SCHEMA.empty_table()
        found = consent_changes(CONFIG, rows, [*stays, *told], pending, self.now, persons)
        folder = write_diff_set(self.folder / "slice", subscriptions=found)
        origin = Origin(name, "2026-01-01", self.now, folder)
        outs = (one for one in opt_out_intents(origin) if one.kind == "opt_out")
        named = tuple(slices._surely_named(one, heard) for one in outs)
        return slices.Slice((), named, (), as_of, 1_000, 1_000, frozenset(keys))

    async def _send_all(
        self, _project: Any, operations: Sequence[Operation], *_: Any
    ) -> tuple[list[Receipt], None]:
        sender = Sender(PlatformOfTheWorld(self, knows_joins=True), {})
        answers = []
        for one in operations:
            answer = await sender.send(one)
            answers.append(receipt(one.operation_id, answer.outcome, answer.error_class, None))
        return answers, None

    def land_and_plan(self) -> None:
        """The daily job up to its plan; what it plans may wait."""
        self.day += 1
        self.now = max(self.now, BEGIN + timedelta(days=self.day))
        day = self.now.date().isoformat()
        stays = [
            {
                "person_key": key_of(key),
                "subscription_list_id": LIST,
                "opt_in_date": since,
                "opt_out_date": until,
            }
            for key, person in self.persons.items()
            for since, until in person.stays
        ]
        self.landed = (self.contacts(), stays, self.now)
        self.known_at_plan = {key: person.last_out for key, person in self.persons.items()}
        pending = self.ledger.pending(day)
        persons = {key: key_of(key) for key in self.persons}
        self.landed_persons = {key: person.is_named for key, person in self.persons.items()}
        contacts = [{"contact_id": key, "mobile": number_of(key)} for key in self.entered]
        self._land(CONTACTS, contacts)
        self._land(PERSONS, [self._person_row(key) for key in self.persons])
        found = consent_changes(CONFIG, self.landed[0], stays, pending, self.now, persons)
        # Files are named by its first digits, so that these differ, as in a real hash.
        name = hashlib.sha256(str(self.day).encode()).hexdigest()
        folder = write_diff_set(
            self.folder / "diff_sets" / day, self._person_changes(), subscriptions=found
        )
        register_diff_set(self.ledger, day, FakeSummary(name, self.now), SNAPSHOTS)
        plan(name, folder, CONFIG, self.ledger, BY_FILE if self.by_file else BY_API)

    def _person_row(self, key: str) -> dict[str, str | None]:
        external = key if self.persons[key].is_named else None
        return {"person_key": key_of(key), "external_person_id": external, "mdn": number_of(key)}

    def _person_changes(self) -> Iterator[dict[str, Any]]:
        """What the two sides differ in beside consent, of the contacts as they are landed.

        What is under way is planned once more: a person that is written twice is the same one.
        """
        for row in self.contacts():
            key, first = row["contact_id"], row["first"]
            person = self.persons.get(key)
            before = person.first if person else None
            names = [change("first_name", first, before)] if first and first != before else []
            if person is None:
                yield add(key, *names, mdn=number_of(key))
            elif not person.is_named:
                adoption = update(key, change("external_person_id", key), *names)
                yield adoption | {"mdn": number_of(key), "matched_by": "mdn"}
            elif names:
                yield update(key, *names)

    def deliver(self) -> None:
        newest = self.ledger.newest_diff_set()
        if newest is None:
            return
        platform = PlatformOfTheWorld(self)
        with closing(Inbox(self.url)) as inbox, self._watched_crm():
            watch = LastLook(self.project, inbox)
            for lane in LANES:
                open_operations = self.ledger.open_operations(newest.diff_set, lane, "api")
                asyncio.run(
                    push(
                        open_operations,
                        platform,
                        self.ledger,
                        TYPES,
                        campaigns=CampaignsOfTheWorld(self),
                        consent=watch,
                        dry_run=False,
                    )
                )
            self._deliver_files(newest.diff_set, watch)
            crm = CrmTable(self.project.settings.crm_url, CONFIG)
            back = self.ledger.open_operations(newest.diff_set, "opt_outs", "crm")
            write_back(back, crm, self.ledger, dry_run=False)

    def _deliver_files(self, diff_set: str, watch: LastLook) -> None:
        """Uploads the files of opt-outs and persons, and reads the reports on what was imported."""
        folders = Folders("/in", "/reports")
        batches = self.ledger.batches(diff_set=diff_set)
        for lane in LANES:
            deliver_files(
                [batch for batch in batches if lane_of(batch) == lane],
                self.files.session,
                folders,
                self.ledger,
                TYPES,
                self.folder / "files",
                watch=watch,
                dry_run=False,
            )
        collect_reports(self.ledger, self.files.session, folders, self.now.date().isoformat())

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
            self.files_are_imported()
        while self.on_the_way:
            self.callback_arrives(0)
        self.drain()
        for key in self.persons:
            self.require_out(key, "by the daily job")
            person, (state, changed) = self.persons[key], self.crm_of(key)
            if key in self.entered and person.stays and not person.is_active and state != "no":
                out = person.last_out
                if not (state == "yes" and changed and out and changed > out):
                    raise Violation(f"{key}: opted out at the platform, and the CRM says {state}")

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


def _file_of(feed: str) -> str:
    return f"{feed.replace('/', ' ')}.parquet"


def _contact(person: KnownPerson) -> str:
    """The contact that a reconcile would find for a person: here nobody has another's number."""
    return person.external_person_id or f"C{(person.mdn or '')[8:]}"


def _moment(name: str, text: str | None) -> datetime | str | None:
    return instant_of(text) if name.endswith("_date") else text


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
