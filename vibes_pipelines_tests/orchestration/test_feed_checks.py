"""What stops a landed feed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.orchestration.checks import CHECKS, input_share_within_guard
from vibes_pipelines.orchestration.keys import FEEDS
from vibes_pipelines.orchestration.partitions import DAILY
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.store.snapshots import DATA, Source
from vibes_pipelines_tests.support.loop import EXAMPLE

FEED = "share/subscriptions"
KEY = ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
DAY = "2026-01-02"

Row = tuple[str | None, ...]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("VIBES_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("VIBES_SYNC_CONFIG", str(EXAMPLE))
    monkeypatch.setenv("VIBES_LEDGER_URL", "")
    with open_project() as opened:
        yield opened


def _land(project: Project, day: str, rows: list[Row], feed: str = FEED) -> None:
    def write(folder: Path) -> Source:
        columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
        pq.write_table(pa.table(dict(zip(KEY, columns, strict=True))), folder / DATA)
        return Source("a table", datetime.fromisoformat(day).replace(tzinfo=UTC))

    project.snapshots.land(feed, day, write)


def _judge(check: dg.AssetChecksDefinition, day: str = DAY) -> dg.AssetCheckEvaluation:
    """Runs one check of the feed on a day, as Dagster does."""

    @dg.asset(key=FEEDS[FEED], partitions_def=DAILY)
    def landed() -> None:
        """Landed already."""

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(
            assets=[landed],
            asset_checks=[check],
            jobs=[dg.define_asset_job("judge", selection=dg.AssetSelection.all())],
            resources={"project": ProjectResource()},
            executor=dg.in_process_executor,
        ).resolve_job_def("judge")
        result = job.execute_in_process(
            instance=instance, partition_key=day, run_config=QUIET, raise_on_error=False
        )
        [found] = result.get_asset_check_evaluations()
        return found


def _unique() -> dg.AssetChecksDefinition:
    key = dg.AssetCheckKey(FEEDS[FEED], "primary_key_unique")
    return next(check for check in CHECKS if key in check.check_keys)


def _rows(count: int) -> list[Row]:
    return [(f"k{number}", "1234", "2026-01-01", None) for number in range(count)]


@pytest.mark.parametrize(("rows", "passes"), [(8, True), (7, False)])
def test_a_cut_table_of_subscriptions_stops(project: Project, rows: int, *, passes: bool) -> None:
    _land(project, "2026-01-01", _rows(10))
    _land(project, DAY, _rows(rows))
    found = _judge(input_share_within_guard)
    assert found.passed is passes
    assert found.blocking
    if not passes:
        assert "7 rows, fewer than 80%" in (found.description or "")


def test_a_first_day_has_nothing_to_compare_with(project: Project) -> None:
    _land(project, DAY, _rows(1))
    _land(project, "2026-01-03", _rows(9))
    assert _judge(input_share_within_guard).passed


def test_a_subscription_ended_twice_is_two_rows_and_a_repeated_one_is_not(project: Project) -> None:
    once: Row = ("k1", "1234", "2026-01-01", "2026-01-02")
    _land(project, DAY, [once, (*once[:3], "2026-01-03"), (*once[:3], None), (*once[:3], None)])
    assert _judge(_unique()).passed
    _land(project, "2026-01-03", [once, once])
    found = _judge(_unique(), "2026-01-03")
    assert not found.passed
