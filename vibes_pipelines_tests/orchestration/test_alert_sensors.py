"""The sensors that tell a person: which runs and checks, what of them, and when it is over."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from vibes_pipelines.orchestration.alerts import check_alert_sensor, run_failure_sensor
from vibes_pipelines_tests.support.receivers import webhook

DAYS = dg.DailyPartitionsDefinition("2026-01-01")
SECRET = "contact +12015550123 Ada Lovelace cannot be read"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Weather:
    """What goes well just now."""

    works = True
    passes = True


@pytest.fixture
def weather() -> Iterator[type[Weather]]:
    Weather.works = Weather.passes = True
    yield Weather
    Weather.works = Weather.passes = True


@dg.asset(key=["reconcile", "person_changes"], partitions_def=DAYS)
def person_changes() -> None:
    if not Weather.works:
        raise ValueError(SECRET)


@dg.asset_check(
    asset=dg.AssetKey(["reconcile", "person_changes"]),
    name="person_changes_within_guards",
    blocking=True,
)
def person_changes_within_guards() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=Weather.passes, description=SECRET)


DEFINITIONS = dg.Definitions(
    assets=[person_changes],
    asset_checks=[person_changes_within_guards],
    jobs=[
        dg.define_asset_job("reconcile_daily", selection=dg.AssetSelection.all()),
        dg.define_asset_job("repush", selection=dg.AssetSelection.all()),
    ],
)


@pytest.fixture(scope="module")
def on_disk() -> Iterator[dg.DagsterInstance]:
    """An instance on disk: its event log is sharded by run, as a real one's is."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def stored(
    on_disk: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dg.DagsterInstance:
    """The instance, with a home and a file of alerts that are the test's own."""
    monkeypatch.setenv("VIBES_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("VIBES_ALERT_FILE", str(tmp_path / "alerts.jsonl"))
    return on_disk


def run(instance: dg.DagsterInstance, day: str, job: str = "reconcile_daily") -> Any:
    return DEFINITIONS.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=day, raise_on_error=False, run_config=QUIET
    )


def tell_failure(instance: dg.DagsterInstance, result: Any) -> dg.SkipReason | None:
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure_sensor",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    )
    said: dg.SkipReason | None = run_failure_sensor(context.for_run_failure())  # type: ignore[assignment]
    return said


def look(instance: dg.DagsterInstance, cursor: str | None) -> SensorExecutionData:
    return check_alert_sensor.evaluate_tick(
        dg.build_sensor_context(instance=instance, cursor=cursor)
    )


def alerts(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "alerts.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    assert "Lovelace" not in text
    assert "2015550123" not in text
    return [json.loads(line) for line in text.splitlines()]


def test_a_failed_run_is_told_by_job_day_and_step_and_never_by_its_message(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    weather.works = False
    result = run(stored, "2026-01-03")
    with webhook() as hook, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIBES_ALERT_WEBHOOK", hook.url)
        assert tell_failure(stored, result) is None
        [posted] = hook.received
    assert {name: posted[name] for name in ("job", "day", "run_id", "failed_steps")} == {
        "job": "reconcile_daily",
        "day": "2026-01-03",
        "run_id": result.run_id,
        "failed_steps": ["reconcile__person_changes"],
    }
    assert alerts(tmp_path) == [posted]


def test_a_run_that_a_check_held_is_told_as_the_check_and_once(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    cursor = look(stored, None).cursor
    weather.passes = False
    result = run(stored, "2026-01-03")
    assert not result.success
    tell_failure(stored, result)
    look(stored, cursor)
    [alert] = alerts(tmp_path)
    assert alert["title"] == (
        "[vibes] the check person_changes_within_guards of reconcile/person_changes fails"
        " for 2026-01-03"
    )
    assert "vibes-pipelines approve" in alert["todo"]
    assert "Opt-outs have a lane of their own" in alert["safe"]
    assert (alert["count"], alert["severity"]) == (1, "error")


def test_a_check_that_passes_again_ends_it_and_no_day_before_the_newest_that_failed_does(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    cursor = look(stored, None).cursor
    weather.passes = False
    for day in ("2026-01-05", "2026-01-02"):
        run(stored, day)
    cursor = look(stored, cursor).cursor
    weather.passes = True
    run(stored, "2026-01-03")
    cursor = look(stored, cursor).cursor
    assert [one["event"] for one in alerts(tmp_path)] == ["failed"]
    run(stored, "2026-01-05")
    cursor = look(stored, cursor).cursor
    look(stored, cursor)
    assert [one["event"] for one in alerts(tmp_path)] == ["failed", "resolved"]


def test_a_dead_channel_holds_up_neither_the_reading_nor_the_other_channels(
    stored: dg.DagsterInstance,
    weather: type[Weather],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cursor = look(stored, None).cursor
    with webhook() as hook:
        monkeypatch.setenv("VIBES_ALERT_WEBHOOK", hook.url)
        hook.status = 503
        weather.passes = False
        run(stored, "2026-01-03")
        refused = look(stored, cursor)
        assert refused.cursor != cursor
        assert "alerts wait: webhook: 127.0.0.1 answered 503" in (refused.skip_message or "")
        weather.passes = True
        run(stored, "2026-01-04")
        cursor = look(stored, refused.cursor).cursor
        assert [one["event"] for one in alerts(tmp_path)] == ["failed", "resolved"]
        assert hook.received == []
        hook.status = 204
        look(stored, cursor)
        assert hook.received == alerts(tmp_path)


def test_a_job_that_succeeds_later_ends_its_failure(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    cursor = look(stored, None).cursor
    weather.works = False
    tell_failure(stored, run(stored, "2026-01-03"))
    weather.works = True
    run(stored, "2026-01-03", "repush")
    cursor = look(stored, cursor).cursor
    assert [one["event"] for one in alerts(tmp_path)] == ["failed"]
    run(stored, "2026-01-03")
    look(stored, cursor)
    assert [one["event"] for one in alerts(tmp_path)] == ["failed", "resolved"]


class Sending(dg.Config):
    dry_run: bool = True


@dg.asset(key=["delivery", "opt_outs"], partitions_def=DAYS)
def opt_outs(config: Sending) -> None:
    if not Weather.works:
        raise ValueError(SECRET)


def test_a_dry_run_ends_no_failed_delivery(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    everything = dg.AssetSelection.all()
    jobs = [dg.define_asset_job(name, everything) for name in ("reconcile_daily", "repush")]
    definitions = dg.Definitions(assets=[opt_outs], jobs=jobs)

    def deliver(job: str, config: dict[str, Any]) -> Any:
        return definitions.resolve_job_def(job).execute_in_process(
            instance=stored,
            partition_key="2026-01-03",
            raise_on_error=False,
            run_config={**QUIET, "ops": config},
        )

    with_effects = {"delivery__opt_outs": {"config": {"dry_run": False}}}
    cursor = look(stored, None).cursor
    weather.works = False
    tell_failure(stored, deliver("reconcile_daily", with_effects))
    weather.works = True
    for job in ("reconcile_daily", "repush"):
        deliver(job, {})
    cursor = look(stored, cursor).cursor
    assert [one["event"] for one in alerts(tmp_path)] == ["failed"]
    deliver("repush", with_effects)
    look(stored, cursor)
    assert [one["event"] for one in alerts(tmp_path)] == ["failed", "resolved"]


def test_the_first_look_tells_nothing_of_the_past(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    weather.passes = False
    run(stored, "2026-01-02")
    cursor = look(stored, None).cursor
    look(stored, cursor)
    assert alerts(tmp_path) == []


@pytest.mark.parametrize("edited", ["abc", "{}", "[]", '{"updated": "soon", "seen": []}'])
def test_a_cursor_that_cannot_be_read_counts_as_none(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path, edited: str
) -> None:
    cursor = look(stored, edited).cursor
    weather.passes = False
    run(stored, "2026-01-02")
    look(stored, cursor)
    assert [one["event"] for one in alerts(tmp_path)] == ["failed"]


def test_without_a_channel_both_say_which_settings_are_missing(
    stored: dg.DagsterInstance, weather: type[Weather], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIBES_ALERT_FILE")
    monkeypatch.delenv("VIBES_ALERT_WEBHOOK", raising=False)
    weather.works = False
    said = tell_failure(stored, run(stored, "2026-01-03"))
    assert isinstance(said, dg.SkipReason)
    assert "VIBES_ALERT_WEBHOOK" in (said.skip_message or "")
    assert "VIBES_ALERT_WEBHOOK" in (look(stored, None).skip_message or "")


@dg.asset(key=["reconcile", "quarantine"], partitions_def=DAYS)
def quarantine() -> None:
    """Goes well."""


def by_hand(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, day: str) -> Any:
    """What the button Materialize and a backfill run."""
    job = dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        partition_key=day,
        raise_on_error=False,
        run_config=QUIET,
        tags={"dagster/backfill": "abc"},
    )


def test_a_failed_backfill_is_told_too_and_over_when_its_steps_were_made(
    stored: dg.DagsterInstance, weather: type[Weather], tmp_path: Path
) -> None:
    def tick(cursor: str | None) -> str | None:
        context = dg.build_sensor_context(instance=stored, cursor=cursor)
        return run_failure_sensor.evaluate_tick(context).cursor

    said, looked = tick(None), look(stored, None).cursor
    weather.works = False
    by_hand(stored, person_changes, "2026-01-03")
    tick(said)
    [alert] = alerts(tmp_path)
    assert alert["what"] == "a backfill of 2026-01-03 failed at reconcile__person_changes"
    by_hand(stored, quarantine, "2026-01-03")
    looked = look(stored, looked).cursor
    assert [one["event"] for one in alerts(tmp_path)] == ["failed"]
    weather.works = True
    by_hand(stored, person_changes, "2026-01-03")
    look(stored, looked)
    assert [one["event"] for one in alerts(tmp_path)] == ["failed", "resolved"]
