"""What is kept for APSIS One goes by the ages of sync.yaml, and what a next sync needs stays."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.stages.apsis_landing import newest_reads
from vibes_pipelines.stages.apsis_merges import MERGES
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines.store.models import operations, realtime_operations
from vibes_pipelines_tests.full_sync.sync_parts import (
    NEWS_LABEL,
    Clock,
    World,
    deliver_message,
    world_at,
)

KEPT = {
    "policies": {
        "max_age_h": 24 * 14,
        "retention": {"snapshots": 35, "diff_sets": 35, "ledger_details": 35},
    }
}


@pytest.mark.slow
def test_old_days_of_apsis_one_go_and_the_next_sync_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(tmp_path / "home") as world:
        world.extra, world.clock = KEPT, Clock(timedelta(days=-60))
        person = world.person("Ada", NEWS_LABEL)
        first = world.sync()
        world.edit(person, FirstName="Adah")
        deliver_message(world, person)
        with world.open() as sync:
            apply_messages(sync)
        world.sync()  # replaces what the first landed, and proves what it sent
        report = world.home / "apsis" / MERGES / f"{first.sync_id}.parquet"
        report.parent.mkdir()
        shutil.copy(next((world.home / "apsis/landing").rglob("data.parquet")), report)
        for _ in range(60):
            world.clock.next_day()
        world.sync()
        apsis = world.home / "apsis"
        assert (apsis / "replaced" / first.day).is_dir()
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        planned = {one["data"]: one["count"] for one in told("plan")}
        assert planned == {one["data"]: one["count"] for one in told("apply")}
        assert planned["snapshots"] == 6  # five feeds, and what was replaced
        assert planned["diff_sets"] >= 3
        assert planned["ledger_details"] == 2
        assert not (apsis / "replaced" / first.day).exists()
        assert not report.exists()
        assert "Adah" not in values(world)
        with world.open() as sync:
            kept = newest_reads(sync)
        assert kept is not None
        assert kept.manifest.rows == 1
        writes = world.writes()
        world.sync()
        assert world.writes() == writes


def test_what_sync_yaml_has_no_more_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_at(tmp_path / "home") as world:
        world.person("Ada")
        world.sync()
        world.extra = {"destinations": {}}
        world.write_config()
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(main, ["retention", "apply", "--json"])
    assert json.loads(result.stdout) == []
    assert "apsis is of a destination that sync.yaml does not have" in result.stderr


def told(act: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["retention", act, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {one["destination"] for one in found} == {"apsis"}
    return list(found)


def values(world: World) -> str:
    """Everything the ledger of APSIS One still says of values."""
    engine = sa.create_engine(f"sqlite:///{world.home}/apsis/ledger.db")
    try:
        with engine.begin() as connection:
            tables = (operations, realtime_operations)
            return str([connection.execute(sa.select(one.c.changes)).all() for one in tables])
    finally:
        engine.dispose()
