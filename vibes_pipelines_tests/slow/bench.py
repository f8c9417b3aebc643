"""A bench for disasters: a few healthy days whose last morning is lived again and again.

What a broken source may do is judged by both sides themselves: every record must hold either what
it held that morning or what the healthy day made of it, and once the source is mended both sides
must end as if nothing had happened.
"""

import copy
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.sandbox.home import EXTRACT_DIR, IMPORT_DIR, REPORT_DIR
from vibes_pipelines.sandbox.platform import Person, Subscription
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.sandbox.share_tables import Tables, share_tables
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.delivering import NotReleasedError
from vibes_pipelines_tests.support.loop import SEND, Loop, running_loop

STAGES = (
    delivering.deliver_opt_outs,
    delivering.write_back,
    delivering.import_persons,
    delivering.push_persons,
)
PEOPLE, SEED, HEALTHY_DAYS = 600, 41, 2
REMOTE_FOLDERS = (IMPORT_DIR, REPORT_DIR, EXTRACT_DIR)

Row = dict[str, Any]
State = Mapping[str, Row]
"""Records by name, each with its cells."""


@dataclass
class Outcome:
    """What a day came to: where it stopped, or what its guards and its quarantine say."""

    error: Exception | None = None
    summary: Summary | None = None
    held: list[str] = field(default_factory=list)
    contacts_written: set[str] = field(default_factory=set)

    @property
    def guards(self) -> set[str]:
        return {breach.guard for breach in self.summary.breaches} if self.summary else set()

    @property
    def told(self) -> str:
        """The outcome in one line, for a test that fails."""
        if self.summary is None:
            return f"{type(self.error).__name__}: {self.error}"
        kinds = dict(self.summary.quarantine_kinds)
        return f"guards {sorted(self.guards)}, quarantine {kinds}, {self.held}"


@dataclass(frozen=True)
class Morning:
    """What a disaster may spoil: the sandbox, the share's tables, and the same of days before."""

    loop: Loop
    tables: Tables
    earlier_tables: Tables
    earlier_rows: list[Row]

    @property
    def sandbox(self) -> Sandbox:
        return self.loop.sandbox

    def publish(self, tables: Tables) -> None:
        """Lets the share show these tables."""
        self.sandbox._days._publish(tables)

    def extract(self, kind: str, day: str) -> Path:
        """The file of one extract."""
        name = f"{kind}_{self.sandbox.platform.company_key}_{day}.txt"
        return self.sandbox.home.sftp_folder(EXTRACT_DIR) / name

    @property
    def yesterday(self) -> str:
        return (self.sandbox.today - timedelta(days=1)).isoformat()


@dataclass
class Bench:
    """The loop on the morning of the disaster, and all that is needed to have it once more."""

    loop: Loop
    saved: Path
    persons: dict[str, Person]
    subscriptions: list[Subscription]
    next_number: int
    now: datetime
    tables: Tables
    earlier_tables: Tables
    earlier_rows: list[Row]

    @contextmanager
    def morning(self, folder: Path) -> Iterator[Morning]:
        """That morning once more, with a data folder of its own."""
        self._restore()
        shutil.copytree(self.saved / "data", folder / "data")
        with self.loop.changed(VIBES_HOME=folder / "data") as loop:
            yield Morning(loop, dict(self.tables), self.earlier_tables, self.earlier_rows)

    def mended(self, morning: Morning) -> Outcome:
        """The next day, with every source as it should be and no edits; held by nobody's leave."""
        shutil.copy(self.saved / "crm.db", self.loop.sandbox.crm.path)
        self.loop.sandbox.next_day(edits=False)
        return live(morning.loop)

    def _restore(self) -> None:
        sandbox = self.loop.sandbox
        platform, days = sandbox.platform, sandbox._days
        platform.load(*copy.deepcopy((list(self.persons.values()), self.subscriptions)))
        platform.next_number = self.next_number
        platform.audit.clear()
        sandbox.clock._now = self.now
        days.today = self.now.date()
        days._extracts.since = self.now
        shutil.copy(self.saved / "crm.db", sandbox.crm.path)
        for remote in REMOTE_FOLDERS:
            folder = sandbox.home.sftp_folder(remote)
            shutil.rmtree(folder)
            shutil.copytree(self.saved / remote.strip("/"), folder)
        days._publish(self.tables)


@contextmanager
def running_bench(home: Path) -> Iterator[Bench]:
    """A few healthy days, then the morning of the disaster."""
    with running_loop(home, build_world(PEOPLE, SEED)) as loop:
        sandbox = loop.sandbox
        earlier = share_tables(sandbox.platform, sandbox.now()), sandbox.crm.rows()
        loop.day(approve=True)
        for _ in range(1, HEALTHY_DAYS):
            sandbox.next_day()
            loop.day()
        sandbox.next_day()
        yield _saved(loop, home / "saved", *earlier)


def _saved(loop: Loop, saved: Path, tables: Tables, rows: list[Row]) -> Bench:
    sandbox, platform = loop.sandbox, loop.sandbox.platform
    saved.mkdir()
    shutil.copytree(loop.project.settings.home, saved / "data")
    shutil.copy(sandbox.crm.path, saved / "crm.db")
    for remote in REMOTE_FOLDERS:
        shutil.copytree(sandbox.home.sftp_folder(remote), saved / remote.strip("/"))
    return Bench(
        loop=loop,
        saved=saved,
        persons=copy.deepcopy(platform.persons),
        subscriptions=copy.deepcopy(platform.subscriptions),
        next_number=platform.next_number,
        now=sandbox.now(),
        tables=share_tables(platform, sandbox.now()),
        earlier_tables=tables,
        earlier_rows=rows,
    )


def live(loop: Loop) -> Outcome:
    """One day as its job would live it: what is held or refused stops, the rest goes out."""
    before = _cells(loop)
    try:
        summary = loop.reconcile()
    except Exception as error:  # noqa: BLE001 - the disasters say which error is right
        return Outcome(error=error)
    outcome = Outcome(summary=summary)
    for stage in STAGES:
        try:
            stage(loop.project, loop.today, SEND)
        except NotReleasedError:
            outcome.held.append(stage.__name__)
    after = _cells(loop)
    outcome.contacts_written = {str(key) for key, *_ in after - before}
    return outcome


def _cells(loop: Loop) -> set[tuple[Any, ...]]:
    """The CRM's rows; what somebody else broke there is no reason to fail here."""
    with loop.sandbox.crm.edit() as editor:
        names = {row["name"] for row in editor.connection.execute("PRAGMA table_info(contacts)")}
        if not {"contact_id", "sms_opt_in", "sms_opt_in_at"} <= names:
            return set()
        rows = editor.connection.execute(
            "SELECT contact_id, sms_opt_in, sms_opt_in_at FROM contacts"
        ).fetchall()
    return {tuple(row) for row in rows}


def platform_state(loop: Loop) -> State:
    """Every person by external id, else by key: its fields, its number, whether it subscribes."""
    platform = loop.sandbox.platform
    return {
        person.external_person_id or key: {
            **person.custom,
            "mdn": person.mdn,
            "person_key": key,
            "subscribes": any(platform.subscriptions_of(key)),
        }
        for key, person in platform.persons.items()
    }


def crm_state(loop: Loop) -> State:
    """Every row of the CRM by its place."""
    return {str(place): row for place, row in enumerate(loop.sandbox.crm.rows())}


def unjustified(before: State, healthy: State, after: State) -> dict[str, Row]:
    """The cells that hold neither what they held before nor what the healthy day made of them."""
    found: dict[str, Row] = {}
    for name, row in after.items():
        known, wanted = before.get(name, {}), healthy.get(name, {})
        wrong = {
            cell: value
            for cell, value in row.items()
            if not (cell in known and known[cell] == value)
            and not (cell in wanted and wanted[cell] == value)
        }
        if wrong:
            found[name] = wrong
    return found
