"""A day that nobody landed stays missing: it is never filled with today, and it stops no other."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest

from vibes_pipelines.orchestration.assets.landing import contacts
from vibes_pipelines.orchestration.assets.reconcile import diff_set
from vibes_pipelines.orchestration.keys import FEEDS, PERSON_CHANGES, QUARANTINE
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import landing, past_days
from vibes_pipelines.stages.past_days import GRACE, is_past, never_landed, refuse_days_to_come
from vibes_pipelines.stages.project import Project, WrongDayError, end_of_day, open_project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines_tests.support.landed_days import land, landed_project
from vibes_pipelines_tests.support.loop import Loop, process_environment, running_loop

FIRST, GAP, LAST = "2026-01-01", "2026-01-02", "2026-01-03"
CONTACTS = FEEDS[landing.CONTACTS]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The morning of the third day; on the second nothing ran."""
    with running_loop(tmp_path_factory.mktemp("gap"), build_world(60, seed=3)) as loop:
        loop.reconcile()
        loop.sandbox.next_day()
        loop.sandbox.next_day()
        assert loop.today == LAST
        yield loop


def _materialize(
    asset: dg.AssetsDefinition, instance: dg.DagsterInstance, first: str, last: str
) -> dg.ExecuteInProcessResult:
    """One run over the days, as a backfill starts it."""
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return dg.materialize(
        [asset],
        instance=instance,
        tags=days,
        resources={"project": ProjectResource()},
        run_config=QUIET,
        raise_on_error=False,
    )


def _why(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    return (error.cause or error).message


def _days(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> list[str]:
    made = result.get_asset_materialization_events()
    return sorted(str(event.partition) for event in made if event.asset_key == key)


@pytest.mark.slow
def test_a_backfill_lands_todays_contacts_for_today_only(
    gap: Loop, instance: dg.DagsterInstance
) -> None:
    result = _materialize(contacts, instance, FIRST, LAST)
    assert not result.success
    assert f"1 of 3 days are missing, all others were made. {GAP}: crm/contacts" in _why(result)
    assert "never landed, and the CRM shows only today" in _why(result)
    assert _days(result, CONTACTS) == [FIRST, LAST]
    assert gap.project.snapshots.days(landing.CONTACTS) == [FIRST, LAST]


def test_a_reconcile_over_a_gap_makes_every_other_day_and_names_the_gap(
    gap: Loop, instance: dg.DagsterInstance
) -> None:
    gap.land()
    result = _materialize(diff_set, instance, FIRST, LAST)
    assert not result.success
    assert f"{GAP}: crm/contacts of {GAP}: it was never landed" in _why(result)
    assert "materialize" not in _why(result)
    for key in (PERSON_CHANGES, QUARANTINE):
        assert _days(result, key) == [FIRST, LAST]
    [shown] = [
        event.materialization.metadata["diff_set"].value
        for event in result.get_asset_materialization_events()
        if (event.asset_key, event.partition) == (PERSON_CHANGES, LAST)
    ]
    assert shown == read_summary(gap.project, LAST).diff_set


def test_a_day_alone_that_was_never_landed_says_so(gap: Loop, instance: dg.DagsterInstance) -> None:
    gap.land()
    result = _materialize(diff_set, instance, GAP, GAP)
    assert f"crm/contacts of {GAP}: it was never landed, and the CRM shows only today" in _why(
        result
    )
    assert _days(result, PERSON_CHANGES) == []


def _no_share() -> NoReturn:
    raise AssertionError("the share was asked")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.mark.parametrize(("after", "past"), [(timedelta(), False), (timedelta(seconds=1), True)])
def test_a_run_of_the_night_lands_its_day_for_some_hours_after_midnight(
    project: Project, after: timedelta, *, past: bool
) -> None:
    assert is_past(project, FIRST, end_of_day(FIRST) + GRACE + after) is past
    assert not is_past(project, FIRST, datetime.fromisoformat(f"{FIRST}T07:00:00+00:00"))


def test_by_the_clock_a_past_day_is_refused_before_the_crm_is_asked(project: Project) -> None:
    with (
        process_environment({"CRM_URL": "sqlite:////nowhere/crm.db"}),
        pytest.raises(WrongDayError, match="never landed, and the CRM shows only today"),
    ):
        landing.land_contacts(project, FIRST)
    assert not is_past(project, datetime.now(UTC).date().isoformat(), datetime.now(UTC))


WHOLE = ("crm/contacts", "share/persons", "share/subscriptions", "extract/subscriptions")


@pytest.mark.parametrize("landed", [WHOLE[:1], WHOLE[:3], WHOLE])
def test_a_day_is_past_once_a_later_one_is_landed_whole(
    project: Project, landed: tuple[str, ...]
) -> None:
    """A run for a day ahead of the sources reads the CRM and, for the next day, the share."""
    for feed in landed:
        land(project, GAP, feed, [])
    with process_environment({"VIBES_SIMULATED_DAYS": "1"}), open_project() as simulated:
        assert is_past(simulated, FIRST, datetime.now(UTC)) is (landed == WHOLE)
        told = never_landed(simulated, landing.CONTACTS, FIRST) or ""
    cure = f"move the folders {project.snapshots.root}/*/*/{GAP} away and run {FIRST} again"
    assert (cure in told) is (landed == WHOLE)


def test_older_contacts_are_not_landed_after_newer_ones(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the hours in which a run of the night may still land its day."""
    monkeypatch.setattr(past_days, "GRACE", timedelta(days=3))
    today = datetime.now(UTC).date()
    day = (today - timedelta(days=1)).isoformat()
    land(project, (today + timedelta(days=1)).isoformat(), landing.CONTACTS, [])
    assert never_landed(project, landing.CONTACTS, day) is None
    land(project, today.isoformat(), landing.CONTACTS, [])
    assert "never landed" in (never_landed(project, landing.CONTACTS, day) or "")
    assert never_landed(project, landing.CONTACTS, today.isoformat()) is None


def test_a_day_to_come_is_refused_and_what_was_landed_for_it_is_dropped(project: Project) -> None:
    today = datetime.now(UTC).date()
    tomorrow, after = ((today + timedelta(days=n)).isoformat() for n in (1, 2))
    for feed in WHOLE:
        land(project, after, feed, [])
    land(project, tomorrow, landing.CONTACTS, [])
    with process_environment({"CRM_URL": "sqlite:////nowhere/crm.db"}):
        with pytest.raises(WrongDayError, match=f"yet to come, nothing was landed; run {today}"):
            landing.land_contacts(project, (today + timedelta(days=3)).isoformat())
        with pytest.raises(WrongDayError, match="yet to come"):
            landing.land_share(project, tomorrow, "share/persons", _no_share)
    refuse_days_to_come(project, landing.CONTACTS, today.isoformat())
    assert project.snapshots.days(landing.CONTACTS) == [after]


def test_a_run_over_days_reads_the_crm_for_one_of_them(project: Project) -> None:
    day = datetime.now(UTC).date().isoformat()
    with pytest.raises(WrongDayError, match=f"2099-01-01 was landed in the same run: if {day} is"):
        landing.land_contacts(project, day, later="2099-01-01")
