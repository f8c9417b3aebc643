"""Whether the newest day is there: the day that is expected, and what the check says."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.release import approve
from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.freshness import DEADLINE_H, NEWEST_DAY, expected_day, look
from vibes_pipelines.orchestration.keys import REPORT
from vibes_pipelines.orchestration.partitions import DAILY
from vibes_pipelines.stages.planning import was_only_looked_at
from vibes_pipelines_tests.support.landed_days import Row, landed_project, reconciled

BEFORE = datetime(2026, 1, 3, DEADLINE_H - 1, 59, tzinfo=UTC)
AFTER = datetime(2026, 1, 3, DEADLINE_H, 0, tzinfo=UTC)


def test_the_deadline_is_what_makes_today_expected() -> None:
    assert expected_day(BEFORE) == "2026-01-02"
    assert expected_day(AFTER) == "2026-01-03"


@given(st.dates(date(2026, 1, 2), date(2027, 1, 1)), st.times())
def test_no_more_than_a_day_is_waited_for(day: date, at: time) -> None:
    expected = date.fromisoformat(expected_day(datetime.combine(day, at, tzinfo=UTC)))
    assert day - expected in {timedelta(), timedelta(days=1)}


def test_the_check_names_the_missing_day_and_the_newest() -> None:
    said = look({"2026-01-01", "2026-01-02"}, AFTER)
    assert not said.passed
    assert said.severity is dg.AssetCheckSeverity.ERROR
    assert said.description == "2026-01-03 is not made; the newest is 2026-01-02"
    assert look({"2026-01-02"}, BEFORE).passed
    assert look({"2026-01-03"}, AFTER).passed
    assert not look(set(), BEFORE).passed


def test_a_day_that_was_only_dry_run_is_made_and_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts: list[Row] = [{"id": "c1", "phone": "2065550101", "name": "Ann"}]
    with landed_project(tmp_path, monkeypatch) as project:

        def said(day: str) -> str | None:
            at = datetime.fromisoformat(f"{day}T09:30:00+00:00")
            return look({day}, at, lambda one: was_only_looked_at(project, one)).description

        first = reconciled(project, "2026-01-01", contacts, []).diff_set
        assert said("2026-01-01") == "2026-01-01 is made", "before the first delivery: a rehearsal"
        approve(project.ledger, first, "looked at")
        assert said("2026-01-01") == (
            "2026-01-01 is made, but only as a dry run: nothing of it was sent"
        )
        folder, roads = project.diff_set_folder("2026-01-01"), Estimates(100, 0, 0)
        plan(first, folder, project.config, project.ledger, roads)
        assert said("2026-01-01") == "2026-01-01 is made"
        project.ledger.mark_delivered(first)
        reconciled(project, "2026-01-02", contacts, [])
        assert "only as a dry run" in str(said("2026-01-02"))


def test_the_check_runs_alone_and_looks_at_what_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with landed_project(tmp_path, monkeypatch), dg.DagsterInstance.ephemeral() as instance:
        job = build_defs().resolve_job_def("look_for_newest_day")
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        passed = []
        for day in (None, datetime.now(UTC).date().isoformat()):
            if day:
                instance.report_runless_asset_event(dg.AssetMaterialization(REPORT, partition=day))
            result = job.execute_in_process(instance=instance, run_config=quiet)
            [found] = result.get_asset_check_evaluations()
            assert found.check_name == NEWEST_DAY.name
            passed.append(found.passed)
    assert passed == [False, True]


def test_every_daily_asset_has_a_deadline() -> None:
    graph = build_defs().get_repository_def().asset_graph
    daily = [n for n in graph.asset_nodes if n.is_materializable and n.partitions_def == DAILY]
    assert len(daily) > 10
    assert all(node.freshness_policy is not None for node in daily)
