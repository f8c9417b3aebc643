"""What the sensors ask for, and when they only say why not."""

import shutil
from datetime import date, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import DELIVERIES
from vibes_pipelines.orchestration.partitions import DAILY
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.orchestration.sensors import (
    RUN_KEY,
    diff_set_sensor,
    extract_arrival_sensor,
    import_report_sensor,
)
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.arrivals import DATE, arrived
from vibes_pipelines_tests.support.loop import Loop, agreed_keys
from vibes_pipelines_tests.support.run_records import run_of

PATTERNS = {"current": f"current_{DATE}.txt", "events": f"events_{DATE}.txt"}
AGREED = agreed_keys(build_world(150, seed=3))
DAYS = [(date(2026, 1, 1) + timedelta(days=n)).isoformat() for n in range(6)]


def _tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None
) -> SensorExecutionData:
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        definitions=build_defs(),
        resources={"project": ProjectResource()},
    )
    return sensor.evaluate_tick(context)


def _only_request(found: SensorExecutionData) -> dg.RunRequest:
    assert found.skip_message is None
    [request] = found.run_requests or []
    return request


def _dry_runs(request: dg.RunRequest) -> dict[str, bool]:
    return {name: op["config"]["dry_run"] for name, op in request.run_config["ops"].items()}


WITH_EFFECTS = {"__".join(key.path): False for key in DELIVERIES}


def test_a_newly_complete_day_is_asked_for_once_and_not_after_it_is_landed(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    request = _only_request(_tick(extract_arrival_sensor, instance))
    again = _only_request(_tick(extract_arrival_sensor, instance))
    assert request.partition_key == loop.today == "2026-01-01"
    assert request.run_key == again.run_key  # Dagster starts one run for a key
    assert _dry_runs(request) == WITH_EFFECTS

    loop.land()
    assert _tick(extract_arrival_sensor, instance).skip_message is not None

    loop.sandbox.next_day(edits=False)
    assert _only_request(_tick(extract_arrival_sensor, instance)).partition_key == "2026-01-02"


def test_half_an_extract_is_not_an_arrival(loop: Loop, instance: dg.DagsterInstance) -> None:
    loop.land()
    loop.sandbox.cut_next_extracts(["subscriptions"])
    loop.sandbox.next_day(edits=False)
    assert not _tick(extract_arrival_sensor, instance).run_requests
    loop.sandbox.complete_extracts()
    assert _only_request(_tick(extract_arrival_sensor, instance)).partition_key == loop.today


def test_a_server_that_is_down_is_no_failure(
    loop: Loop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBES_SFTP_PORT", "1")
    found = _tick(extract_arrival_sensor, instance)
    assert found.run_requests == []
    assert "does not answer" in (found.skip_message or "")


def test_before_the_gap_is_over_nothing_is_opened(
    loop: Loop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _tick(extract_arrival_sensor, instance).run_requests
    opened = _opened_sessions(loop)
    monkeypatch.setenv("VIBES_SFTP_GAP_S", "300")
    found = _tick(extract_arrival_sensor, instance)
    assert "its gap is not over" in (found.skip_message or "")
    assert _opened_sessions(loop) == opened > 0


def _opened_sessions(loop: Loop) -> int:
    """Sessions that began, let in or not; the server notes their end a moment later."""
    sessions = loop.sandbox.audit()["sessions"]
    assert isinstance(sessions, dict)
    return sum(count for event, count in sessions.items() if event != "closed")


def test_only_an_approved_newest_diff_set_is_delivered(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    assert _tick(diff_set_sensor, instance).skip_message  # there is none
    first = loop.reconcile()
    assert _tick(diff_set_sensor, instance).skip_message  # it is held
    loop.approve(first)
    request = _only_request(_tick(diff_set_sensor, instance))
    assert request.run_key == f"diff_set:{first.diff_set}"
    assert request.partition_key == "2026-01-01"
    assert _dry_runs(request) == WITH_EFFECTS

    loop.sandbox.next_day()
    second = loop.reconcile()
    assert _tick(diff_set_sensor, instance).skip_message  # the approval was the other's
    loop.approve(second)
    assert _only_request(_tick(diff_set_sensor, instance)).partition_key == "2026-01-02"
    loop.deliver()
    assert _tick(diff_set_sensor, instance).skip_message  # it is out


@pytest.mark.parametrize("ended", ["CANCELED", "FAILURE"])
def test_a_delivery_that_was_asked_for_and_did_not_end_is_told_and_left_to_a_person(
    loop: Loop, instance: dg.DagsterInstance, ended: str
) -> None:
    loop.approve(loop.reconcile())
    request = _only_request(_tick(diff_set_sensor, instance))
    asked = run_of("repush", dg.DagsterRunStatus.NOT_STARTED, {RUN_KEY: str(request.run_key)})
    instance.add_run(asked)
    _only_request(_tick(diff_set_sensor, instance))  # the daemon died: Dagster starts that run now
    instance.report_run_canceled(asked) if ended == "CANCELED" else instance.report_run_failed(
        asked
    )
    said = _tick(diff_set_sensor, instance).skip_message or ""
    assert asked.run_id in said
    assert f"is {ended}" in said
    assert "launch the job repush for 2026-01-01" in said


def test_late_reports_are_read_and_nothing_else_is_done(
    loop: Loop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a newer diff set, which nobody set going, is released and would go by file."""
    monkeypatch.setattr(delivering, "REPORT_WAIT_S", 0)
    with loop.changed(VIBES_API_RATE_PER_S=1, VIBES_SFTP_GAP_S=0) as slow:  # a file is faster
        slow.approve(slow.reconcile())
        assert _tick(import_report_sensor, instance).skip_message
        with monkeypatch.context() as paused:
            paused.setattr(slow.sandbox._pickup, "scan", lambda: None)
            slow.deliver()
        day = slow.today
        slow.sandbox.next_day(edits=False)
        slow.edit_contacts("last_name = 'Not released'", AGREED[:6])
        newest = slow.reconcile()
        assert delivering.held_lanes(slow.project, slow.today) == {}

        request = _only_request(_tick(import_report_sensor, instance))
        again = _only_request(_tick(import_report_sensor, instance))
        assert request.partition_key == day
        assert request.run_key != again.run_key  # a report may be awaited a second time
        queued = run_of("import_reports", dg.DagsterRunStatus.QUEUED)
        instance.add_run(queued)
        assert _tick(import_report_sensor, instance).skip_message == (
            "a run of import_reports is in progress"
        )
        instance.delete_run(queued.run_id)

        slow.sandbox._pickup.scan()
        job = build_defs().resolve_job_def("import_reports")
        assert job.execute_in_process(
            instance=instance, partition_key=day, run_config=request.run_config
        ).success
        assert slow.project.ledger.status_counts(newest.diff_set) == {}
        assert _tick(import_report_sensor, instance).skip_message == (
            "no import file awaits its report"
        )


days = st.sets(st.sampled_from(DAYS))


@given(whole=st.fixed_dictionaries(dict.fromkeys(PATTERNS, days)), half=days, landed=days)
def test_the_newest_day_that_every_feed_has_whole(
    whole: dict[str, set[str]], half: set[str], landed: set[str]
) -> None:
    names = ["current_2026-01-09.txt.done", "notes.txt", "events_2026-13.txt"]
    for feed, its_days in whole.items():
        names += [PATTERNS[feed].replace(DATE, day) for day in its_days | half]
        names += [PATTERNS[feed].replace(DATE, day) + ".done" for day in its_days]
    found = arrived(names, PATTERNS, landed, DAILY.has_partition_key).day
    both = whole["current"] & whole["events"]
    if found is None:
        assert all(any(done >= day for done in landed) for day in both)
    else:
        assert found == max(both)
        assert all(found > day for day in landed)


def test_a_day_that_was_skipped_is_not_fetched_later() -> None:
    names = [
        f"{PATTERNS[feed].replace(DATE, day)}{suffix}"
        for feed in PATTERNS
        for day in DAYS[:3]
        for suffix in ("", ".done")
    ]
    assert arrived(names, PATTERNS, DAYS[2:3], DAILY.has_partition_key).day is None
    assert arrived(names, PATTERNS, DAYS[0:2], DAILY.has_partition_key).day == DAYS[2]


def test_files_named_for_no_day_of_ours_are_told_and_hide_none(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    out = loop.sandbox.home.sftp_folder(loop.project.settings.sftp.extract_dir)
    others = ["2025-12-31", "2026-02-30", "9999-01-01"]
    for file in sorted(out.iterdir()):
        for other in others:
            shutil.copy(file, out / file.name.replace(loop.today, other))
    assert _only_request(_tick(extract_arrival_sensor, instance)).partition_key == loop.today
    loop.land()
    assert ", ".join(others) in (_tick(extract_arrival_sensor, instance).skip_message or "")
