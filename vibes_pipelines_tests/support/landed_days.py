"""Days landed by hand from rows given as dicts, over a project without any outside system."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.snapshots import DATA, Source

Row = dict[str, Any]

SYNC = """
version: 1
company_key: A1b2C3
contacts:
  key: id
  mdn: {column: phone, default_region: US}
fields:
  - {from: name, to: first_name, type: string}
  - {from: level, to: tier, type: single_select, options: {Gold: gold}}
consents:
  - {from: sms, list: "1234", channel: sms, changed_at: sms_at}
guards: {max_quarantine_rise: null, max_rewritten_share: null, min_input_share: 0}
policies: {max_age_h: 300}
"""
COLUMNS = {
    "crm/contacts": ("id", "phone", "name", "level", "sms", "sms_at"),
    "share/persons": ("person_key", "external_person_id", "mdn", "first_name", "tier"),
    "share/subscriptions": (
        *("person_key", "subscription_list_id", "opt_in_date", "opt_out_date", "opt_out_reason"),
    ),
}
COLUMNS["extract/subscriptions"] = COLUMNS["share/subscriptions"]


@contextmanager
def landed_project(
    home: Path, monkeypatch: pytest.MonkeyPatch, sync: str = SYNC
) -> Iterator[Project]:
    """A project in the environment of this process."""
    config = home / "sync.yaml"
    config.write_text(sync, encoding="utf-8")
    environment = {"VIBES_HOME": str(home / "data"), "VIBES_SYNC_CONFIG": str(config)}
    monkeypatch.delenv("VIBES_LEDGER_URL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with open_project(Settings(environment)) as opened:
        yield opened


def land(project: Project, day: str, feed: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Lands these rows as one feed of the day."""

    def write(folder: Path) -> Source:
        schema = pa.schema([(column, pa.string()) for column in COLUMNS[feed]])
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), folder / DATA)
        return Source(f"{feed} table", datetime.fromisoformat(f"{day}T06:00:00+00:00"))

    project.snapshots.land(feed, day, write)


def reconciled(
    project: Project,
    day: str,
    contacts: Sequence[Mapping[str, Any]],
    persons: Sequence[Mapping[str, Any]],
    subscriptions: Sequence[Mapping[str, Any]] = (),
) -> Summary:
    """Lands a day and reconciles it."""
    land(project, day, "crm/contacts", contacts)
    land(project, day, "share/persons", persons)
    for feed in ("share/subscriptions", "extract/subscriptions"):
        land(project, day, feed, subscriptions)
    return reconcile_day(project, day)


def rows_of(project: Project, day: str, name: str) -> list[Row]:
    """The rows of one file of a day's diff set."""
    found: list[Row] = pq.read_table(project.diff_set_folder(day) / f"{name}.parquet").to_pylist()
    return found


def content_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a diff set but run.json, which holds timings."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "run.json"
    }
