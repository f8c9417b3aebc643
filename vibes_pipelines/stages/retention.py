"""Retention: what is older than `policies.retention` goes, class by class.

Days count back from the newest landed day, so that a pause removes nothing by itself. What a next
run needs stays whatever its age: everything since the last delivered day, files whose report is
awaited, callbacks that wait, values of operations that are not settled or still tell a later run
what not to send again.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.reconcile.destinations import DESTINATIONS, VIBES
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.apsis_retention import old_merges, replaced_days
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.database import is_there, open_engine, writer
from vibes_pipelines.store.models import callbacks, events, operations, realtime_operations, signups
from vibes_pipelines.sync_config import SyncConfigError

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_REMOVING = ".removing-"
_SETTLED = ("confirmed", "superseded")
_TAKEN = ("accepted", "superseded")
"""Of real time; one that was refused tells a later run what not to send again."""
_OF_VALUES = ("add", "update", "mdn_replace", "crm_update")
"""Kinds whose values nothing asks for once they were seen; an invitation is asked for for ever."""
_WAITING = ("stored", "parked")
_REMOVED = "removed"


@dataclass(frozen=True)
class Removed:
    """One class of data: what is older than `before` (ISO date), in folders, files or rows."""

    data: str
    keep_days: int
    before: str
    count: int
    dry_run: bool
    destination: str = VIBES.name

    @property
    def line(self) -> str:
        """One line for a person."""
        verb = "to remove" if self.dry_run else "removed"
        name = self.data if self.destination == VIBES.name else f"{self.destination} {self.data}"
        return f"{name:15} older than {self.keep_days:4} days (before {self.before}): " + (
            f"{self.count} {verb}"
        )

    def as_json(self) -> dict[str, Any]:
        """The class for machines."""
        return asdict(self)


def apply_retention(project: Project, *, dry_run: bool) -> list[Removed]:
    """Removes what is too old; with `dry_run` it is only counted. Nothing without a landed day."""
    days = project.snapshots.days(project.destination.feeds.persons)
    if not days:
        return []
    keep = project.config.policies.retention
    found = []
    for data, keep_days in keep.model_dump().items():
        before = _before(project, days[-1], keep_days)
        if data in _TABLES:
            count = _blank_rows(project, data, before, dry_run=dry_run)
        else:
            paths = list(_FILES[data](project, before))
            count = len(paths)
            for path in [] if dry_run else paths:
                _remove(path)
        name = project.destination.name
        found.append(Removed(data, keep_days, before, count, dry_run, name))
    return found


@contextmanager
def other_projects(settings: Settings) -> Iterator[tuple[list[Project], list[str]]]:
    """The projects beside that of Vibes; and what lies there of destinations not in sync.yaml.

    What sync.yaml does not have any more has no ages either: it is for somebody to remove.
    """
    with ExitStack() as opened:
        projects, unknown = [], []
        for name, destination in DESTINATIONS.items():
            own = settings.of_destination(name)
            if destination is VIBES or not own.home.is_dir() or not is_there(own.ledger_url):
                continue
            try:
                projects.append(opened.enter_context(open_project(settings, destination)))
            except SyncConfigError:
                unknown.append(f"{own.home} is of a destination that sync.yaml does not have")
        yield projects, unknown


def _before(project: Project, newest: str, keep_days: int) -> str:
    """The first day that stays."""
    cut = (date.fromisoformat(newest) - timedelta(days=keep_days)).isoformat()
    delivered = project.ledger.last_delivered()
    return min(cut, delivered.day if delivered else cut)


def _remove(path: Path) -> None:
    """A folder is renamed first, so that nobody finds half of it."""
    if path.is_file():
        path.unlink()
        return
    doomed = path
    if not path.name.startswith(_REMOVING):
        doomed = path.with_name(f"{_REMOVING}{path.name}")
        path.rename(doomed)
    shutil.rmtree(doomed)


def _old(folder: Path, before: str) -> Iterator[Path]:
    """What in a folder is named by an earlier day; and what an earlier removal left."""
    for path in sorted(folder.glob("*")):
        is_left = path.name.startswith(_REMOVING)
        if is_left or (_DAY.fullmatch(path.name) and path.name < before):
            yield path


def _snapshots(project: Project, before: str) -> Iterator[Path]:
    for feed in sorted(project.snapshots.root.glob("*/*")):
        yield from _old(feed, before)
    yield from _old(replaced_days(project), before)


def _diff_sets(project: Project, before: str) -> Iterator[Path]:
    for folder in (project.diff_set_folder, project.base_folder, project.certificate_folder):
        yield from _old(folder(""), before)
    yield from old_merges(project, before)


def _import_files(project: Project, before: str) -> Iterator[Path]:
    awaited = {batch.name for batch in project.ledger.batches() if batch.status != "done"}
    for folder in _old(project.work_folder(""), before):
        if not awaited.intersection(path.name for path in folder.iterdir()):
            yield folder


def _reports(project: Project, before: str) -> Iterator[Path]:
    for path in sorted((project.settings.home / "reports").rglob("*")):
        day = _DAY.search(path.name)
        if day is not None and day.group() < before:
            yield path


_FILES = {
    "snapshots": _snapshots,
    "diff_sets": _diff_sets,
    "import_files": _import_files,
    "reports": _reports,
}


_Step = tuple[sa.Table, list[sa.ColumnElement[bool]], dict[str, Any]]
"""A table, which of its rows, and the values they get; a function makes one of the row."""


def _blank_rows(project: Project, data: str, before: str, *, dry_run: bool) -> int:
    """Takes the values out of old rows of the ledger; the rows stay."""
    engine, rows = open_engine(project.settings.ledger_url), 0
    try:
        with writer(engine).begin() as connection:
            for table, conditions, values in _TABLES[data](before):
                found = connection.execute(sa.select(table).where(*conditions)).mappings().all()
                rows += len(found)
                [key] = table.primary_key
                for row in [] if dry_run else found:
                    new = {n: make(row) if callable(make) else make for n, make in values.items()}
                    update = sa.update(table).where(key == row[key.name])
                    connection.execute(update.values(new))
    finally:
        engine.dispose()
    return rows


def _without_values(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [change | {"before": None, "after": None} for change in row["changes"]]


def _callback_rows(before: str) -> Iterator[_Step]:
    table = callbacks.c
    old = table.received_at < _morning(before)
    conditions = [old, table.status.not_in(_WAITING), table.body != b""]
    yield callbacks, conditions, {"body": b"", "source_address": ""}


def _detail_rows(before: str) -> Iterator[_Step]:
    table = operations.c
    has_values = sa.cast(table.changes, sa.Text).regexp_match('"(before|after)": "')
    yield (
        operations,
        [
            table.day < before,
            table.outcome.in_(_SETTLED),
            table.kind.in_(_OF_VALUES),
            sa.or_(has_values, table.message.is_not(None)),
        ],
        {"changes": _without_values, "message": None},
    )
    sent = realtime_operations.c
    yield (
        realtime_operations,
        [
            sent.day < before,
            sa.or_(sent.outcome.in_(_SETTLED), sent.status.in_(_TAKEN)),
            sent.kind.in_(_OF_VALUES),
            sa.or_(
                sa.cast(sent.changes, sa.Text).regexp_match('"(before|after)": "'),
                sent.message.is_not(None),
            ),
        ],
        {"changes": _without_values, "message": None},
    )
    asked = signups.c
    yield (
        signups,
        [asked.finished_at < _morning(before), asked.mdn != _REMOVED],
        {"mdn": _REMOVED, "source_address": ""},
    )
    told = events.c
    data = (sa.cast(told.event_data, sa.Text), sa.cast(told.debug_data, sa.Text))
    yield (
        events,
        [told.finished_at < _morning(before), sa.or_(*(one != "{}" for one in data))],
        {"event_data": {}, "debug_data": {}, "message": None},
    )


def _morning(day: str) -> datetime:
    """The first instant of a day."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


_TABLES = {"callbacks": _callback_rows, "ledger_details": _detail_rows}
