"""Both systems, the callbacks between them and the stages of this project, small and fast.

The platform and its callbacks are a few lists here; the CRM is a table; inbox, ledger, book of real
time, plan, push, files, write-back, drain and looks at changes are the real ones, and so are the
rules of consent (see `consent_rules`). A witness judges every effect by what people said and when.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vibes_pipelines.crm.write_back import CrmTable
from vibes_pipelines.delivery.api_push import push
from vibes_pipelines.delivery.file_import import Folders, collect_reports, deliver_files
from vibes_pipelines.delivery.intents import Origin, opt_out_intents
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.delivery.release import register_diff_set
from vibes_pipelines.delivery.sends import Sender
from vibes_pipelines.delivery.write_back import write_back
from vibes_pipelines.stages import changes, slices
from vibes_pipelines.stages.heard import KnownPerson, Whose, heard_subscriptions
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_views import PENDING_SCHEMA
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines_tests.support.callbacks import REMOVED
from vibes_pipelines_tests.support.consent_rules import consent_changes
from vibes_pipelines_tests.support.deliveries import (
    BY_API,
    BY_FILE,
    INVITING,
    SNAPSHOTS,
    FakeSummary,
    write_diff_set,
)
from vibes_pipelines_tests.support.two_sides_platform import (
    CampaignsOfTheWorld,
    PlatformOfTheWorld,
    Violation,
    key_of,
)
from vibes_pipelines_tests.support.two_sides_world import BEGIN, LIST, World, instant_of

OUTBOX = {"by": "outbox", "table": "contact_outbox", "id": "number", "key": "contact"}
CONFIG = INVITING.model_copy(
    update={
        "fields": (),
        "contacts": INVITING.contacts.model_validate(
            {**INVITING.contacts.model_dump(by_alias=True, exclude_none=True), "changes": OUTBOX}
        ),
    }
)


class TwoSides(World):
    """One world with this project in it; each method is one step of somebody."""

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = SimpleNamespace(
            ledger_url=self.url,
            inbox_url=self.url,
            crm_url=f"sqlite:///{self.crm_path}",
            keys_home=self.crm_path.parent,
            api=SimpleNamespace(bulk_rate_per_s=90, opt_out_rate_per_s=5),
        )
        self.ledger = Ledger(self.url)
        snapshots = SimpleNamespace(days=lambda _: [], find=lambda *_: None)
        self.project: Any = SimpleNamespace(
            settings=settings, config=CONFIG, snapshots=snapshots, ledger=self.ledger
        )

    def close(self) -> None:
        super().close()
        self.ledger.close()

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
        for key in self.persons if knows_all and not before else ():
            self.require_out(key, "in real time")

    def _slice(self, _project: Any, keys: Sequence[str], name: str) -> slices.Slice:
        _, stays, as_of = self.landed or ([], [], BEGIN)
        known = [KnownPerson(key_of(key), key, None) for key in self.landed_persons]
        heard = heard_subscriptions(self.project, as_of, Whose(keys), known)
        told = [{name: _moment(name, stay[name]) for name in stay} for stay in heard.stays]
        rows = [row for row in self.contacts() if row["contact_id"] in keys]
        persons = {p.external_person_id or "": p.person_key for p in (*known, *heard.persons)}
        pending = PENDING_SCHEMA.empty_table()
        found = consent_changes(CONFIG, rows, [*stays, *told], pending, self.now, persons)
        folder = write_diff_set(self.folder / "slice", subscriptions=found)
        origin = Origin(name, "2026-01-01", self.now, folder)
        outs = (one for one in opt_out_intents(origin) if one.kind == "opt_out")
        named = tuple(slices._surely_named(one, heard) for one in outs)
        return slices.Slice((), named, (), as_of, 1_000, 1_000, frozenset(keys))

    async def _send_all(
        self, _project: Any, operations: Sequence[Operation], *_: Any
    ) -> list[Receipt]:
        sender = Sender(PlatformOfTheWorld(self, knows_joins=True), {})
        answers = []
        for one in operations:
            answer = await sender.send(one)
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
        self.landed_persons = tuple(persons)
        found = consent_changes(CONFIG, self.landed[0], stays, pending, self.now, persons)
        # Files are named by its first digits, so that these differ, as in a real hash.
        name = hashlib.sha256(str(self.day).encode()).hexdigest()
        folder = write_diff_set(self.folder / "diff_sets" / day, subscriptions=found)
        register_diff_set(self.ledger, day, FakeSummary(name, self.now), SNAPSHOTS)
        plan(name, folder, CONFIG, self.ledger, BY_FILE if self.by_file else BY_API)

    def deliver(self) -> None:
        newest = self.ledger.newest_diff_set()
        if newest is None:
            return
        platform = PlatformOfTheWorld(self)
        with closing(Inbox(self.url)) as inbox, self._watched_crm():
            watch = LastLook(self.project, inbox)
            for lane in ("opt_outs", "invites"):
                open_operations = self.ledger.open_operations(newest.diff_set, lane, "api")
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
            self._deliver_files(newest.diff_set, watch)
            crm = CrmTable(self.project.settings.crm_url, CONFIG)
            back = self.ledger.open_operations(newest.diff_set, "opt_outs", "crm")
            write_back(back, crm, self.ledger, dry_run=False)

    def _deliver_files(self, diff_set: str, watch: LastLook) -> None:
        """Uploads the files of opt-outs, and reads the reports on those that were imported."""
        folders = Folders("/in", "/reports")
        deliver_files(
            self.ledger.batches(diff_set=diff_set),
            self.files.session,
            folders,
            self.ledger,
            {},
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
            if person.stays and not person.is_active and state != "no":
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
