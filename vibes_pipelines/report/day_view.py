"""Reading, DayView: what the sections of a page look at; the files and the ledger opened once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from vibes_pipelines.data_files import parquet, unreadable_parquet
from vibes_pipelines.delivery.certificate import Certificate
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.report.account import FEEDS
from vibes_pipelines.report.explain_ledger import reading
from vibes_pipelines.report.trends import certificate_of, summary_of
from vibes_pipelines.stages.masking import hash_key, mask
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import DiffSet


@dataclass(frozen=True)
class Reading:
    """A project opened for reading: its ledger, an engine for its files, the key of its masks."""

    project: Project
    ledger: sa.Connection
    engine: duckdb.DuckDBPyConnection
    key: bytes
    unreadable: set[Path] = field(default_factory=set)
    """Files that were asked for and cannot be read."""

    def day(self, day: str) -> "DayView":
        """The view of one day."""
        summary = summary_of(self.project, day)
        record = self.project.ledger.diff_set(summary.diff_set) if summary else None
        return DayView(self, day, summary, record, certificate_of(self.project, day))


@dataclass(frozen=True)
class DayView:
    """One day of a project: its summary, its record in the ledger, its certificate.

    `summary` and `record` are None for a day that was not reconciled.
    """

    reading: Reading
    day: str
    summary: Summary | None
    record: DiffSet | None
    certificate: Certificate | None

    @property
    def project(self) -> Project:
        """The project that the day is of."""
        return self.reading.project

    @property
    def ledger(self) -> sa.Connection:
        """The ledger, to be read only."""
        return self.reading.ledger

    @property
    def is_newest(self) -> bool:
        """True when the day's diff set is the newest: what is open now concerns it."""
        newest = self.project.ledger.newest_diff_set()
        return newest is not None and newest.day == self.day

    @property
    def is_landed(self) -> bool:
        """True when any feed of the day is landed."""
        return any(self.project.snapshots.find(feed, self.day) for feed in FEEDS)

    @property
    def folder(self) -> Path:
        """Where the day's diff set is."""
        return self.project.diff_set_folder(self.day)

    @property
    def as_of(self) -> datetime | None:
        """The instant that the day's diff set shows."""
        shown = self.summary.as_of if self.summary else None
        return None if shown is None else shown.replace(tzinfo=shown.tzinfo or UTC)

    def mask(self, value: object) -> str:
        """A value as its mask."""
        return mask(value, self.reading.key)

    def query(self, path: Path, sql: str, *values: object) -> list[Any]:
        """Rows of a query over one Parquet file, called `file`; none when it is not there.

        Nor when it cannot be read: then the page names it.
        """
        if not path.is_file():
            return []
        over = f"WITH file AS (SELECT * FROM {parquet(path)}) {sql}"  # noqa: S608 - constants
        try:
            return self.reading.engine.execute(over, list(values)).fetchall()
        except duckdb.InvalidInputException as refused:
            if unreadable_parquet(refused) is None:
                raise
            self.reading.unreadable.add(path)
            return []

    def days_before(self) -> list[str]:
        """The landed days before this one, newest first."""
        landed = self.project.snapshots.days("share/subscriptions")
        return [one for one in reversed(landed) if one < self.day]


@contextmanager
def open_reading(project: Project) -> Iterator[Reading]:
    """Opens a project for reading; the engine's clock is UTC."""
    with reading(project.settings.ledger_url) as ledger, duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        yield Reading(project, ledger, engine, hash_key(project.settings.home))


def instant(value: datetime | None) -> str:
    """An instant as a person reads it, in UTC."""
    return "unknown" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
