"""Retention: what is too old goes, what a next run needs stays, and a dry run changes nothing."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from pydantic import ValidationError

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.stages.retention import apply_retention
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.models import callbacks, operations
from vibes_pipelines.store.records import Receipt
from vibes_pipelines.sync_config.privacy import Retention
from vibes_pipelines_tests.support.deliveries import BY_API
from vibes_pipelines_tests.support.landed_days import SYNC, land, landed_project, reconciled

START = date(2026, 1, 1)
KEPT = SYNC.replace(
    "max_age_h: 300",
    "max_age_h: 300, retention: {snapshots: 35, diff_sets: 50, import_files: 35, callbacks: 35,"
    " ledger_details: 35, reports: 35}",
)
CONTACT = {"id": "C1", "phone": "+13125550001", "name": "new", "level": "Gold"}
PERSON = {"person_key": "p1", "external_person_id": "C1", "mdn": "+13125550001", "tier": "gold"}


def day(number: int) -> str:
    return (START + timedelta(days=number)).isoformat()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Days 0, 20 and 60."""
    with landed_project(tmp_path, monkeypatch, KEPT) as opened:
        for number in (0, 20, 60):
            live(opened, number)
        yield opened


def live(project: Project, number: int) -> None:
    summary = reconciled(project, day(number), [CONTACT | {"name": f"n{number}"}], [PERSON])
    folder = project.diff_set_folder(day(number))
    plan(summary.diff_set, folder, project.config, project.ledger, BY_API)
    for operation in project.ledger.open_operations(summary.diff_set, "persons", "api"):
        project.ledger.mark_sent([operation.operation_id])
        project.ledger.record([Receipt(operation.operation_id, "accepted", message="ok")], "")
    for folder in (project.work_folder(day(number)), project.settings.home / "reports"):
        folder.mkdir(parents=True, exist_ok=True)
    (project.work_folder(day(number)) / "a.persons").write_text("external_person_id\nC1\n", "utf-8")
    (project.settings.home / "reports" / f"{day(number)}.html").write_text("page", "utf-8")


def sql(project: Project, statement: sa.Executable) -> list[sa.Row[tuple[object, ...]]]:
    engine = sa.create_engine(project.settings.ledger_url)
    try:
        with engine.begin() as connection:
            result = connection.execute(statement)
            return list(result.all()) if result.returns_rows else []
    finally:
        engine.dispose()


def test_each_class_goes_by_its_own_age(project: Project) -> None:
    delivered = sa.text("UPDATE diff_sets SET status = :status WHERE day = :day")
    sql(project, delivered.bindparams(status="delivered", day=day(0)))
    # A long pause after the last delivery removes nothing that came after it.
    assert all(one.count == 0 for one in apply_retention(project, dry_run=True))
    sql(project, delivered.bindparams(status="superseded", day=day(0)))
    sql(project, sa.update(operations).values(outcome="pending"))
    first = sa.update(operations).where(operations.c.day == day(0))
    sql(project, first.values(outcome="confirmed"))
    old = datetime(2026, 1, 2, tzinfo=UTC)
    with closing(Inbox(project.settings.ledger_url, lambda: old)) as inbox:
        for name in ("done", "waits"):
            inbox.store([read_arrival(posted("127.0.0.1", "/", json.dumps({"x": name}).encode()))])
    table = callbacks.c
    sql(project, sa.update(callbacks).where(table.id == 1).values(status="applied"))
    sql(project, sa.update(callbacks).where(table.id == 2).values(status="stored"))

    told = CliRunner().invoke(main, ["retention", "plan"])
    assert "snapshots       older than   35 days (before 2026-01-26): 8 to remove" in told.output
    planned = {one.data: one.count for one in apply_retention(project, dry_run=True)}
    applied = CliRunner().invoke(main, ["retention", "apply", "--json"])
    assert planned == {one["data"]: one["count"] for one in json.loads(applied.output)}
    assert planned == {
        "snapshots": 8,  # two days of four feeds
        "diff_sets": 2,  # of the oldest day: the diff set and its base
        "import_files": 2,
        "callbacks": 1,
        "ledger_details": 1,
        "reports": 2,
    }
    assert project.snapshots.days("crm/contacts") == [day(60)]
    rows = sql(project, sa.select(operations))
    values = {row.day: row.changes for row in rows}
    assert [change["after"] for change in values[day(0)]] == [None]
    assert [change["after"] for change in values[day(20)]] == ["n20"]
    assert [row.body != b"" for row in sql(project, sa.select(callbacks))] == [False, True]
    assert reconcile_day(project, day(60)).contacts == 1
    assert all(one.count == 0 for one in apply_retention(project, dry_run=True))


def test_less_than_a_next_run_needs_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 35"):
        Retention(snapshots=10)


def test_what_a_killed_removal_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with landed_project(tmp_path, monkeypatch, KEPT) as project:
        land(project, day(60), "share/persons", [PERSON])
        left_goes(project)


def left_goes(project: Project) -> None:
    left = project.settings.home / "landing/crm/contacts" / ".removing-2025-01-01"
    left.mkdir(parents=True)
    (left / "data.parquet").write_bytes(b"rows of people")
    apply_retention(project, dry_run=True)
    assert left.exists()
    apply_retention(project, dry_run=False)
    assert not left.exists()
