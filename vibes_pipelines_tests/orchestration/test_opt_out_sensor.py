"""The sensor of the lane of opt-outs: it asks while another job keeps the usual ones waiting."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.sensor_definition import SensorExecutionData

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import OPT_OUT_TAGS
from vibes_pipelines.orchestration.opt_out_sensor import (
    IN_TIME,
    TRUSTED_S,
    is_wanted,
    opt_out_sensor,
)
from vibes_pipelines.orchestration.sensors import callback_inbox_sensor
from vibes_pipelines_tests.support.callbacks import (
    ADDED,
    REMOVED,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.run_records import run_of
from vibes_pipelines_tests.support.sensors import receive, tick_of

ROOT = Path(__file__).parents[2]
AT = "2026-01-02T03:04:05Z"
NOW = datetime(2026, 1, 2, 6, tzinfo=UTC).timestamp()

QUEUED, STARTED = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED


def hear(ledger_url: str, kind: str) -> None:
    receive(ledger_url, subscription_body(kind, kind, AT, external_person_id="C1"))


def in_progress(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus = STARTED
) -> None:
    instance.add_run(run_of(job, status))


def tick(
    instance: dg.DagsterInstance,
    cursor: str | None = None,
    sensor: dg.SensorDefinition = opt_out_sensor,
) -> SensorExecutionData:
    return tick_of(sensor, instance, cursor)


class TestSensor:
    @pytest.mark.parametrize("job", ["reconcile_daily", "repush", "send_events", "tribe_full_sync"])
    @pytest.mark.parametrize("status", [QUEUED, STARTED])
    def test_an_opt_out_does_not_wait_for_another_job(
        self, ledger_url: str, instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus
    ) -> None:
        hear(ledger_url, REMOVED)
        in_progress(instance, job, status)
        found = tick(instance)
        [request] = found.run_requests or []
        ops = {"carry_waiting_opt_outs": {"config": {"dry_run": False}}}
        assert request.run_config["ops"] == ops
        again = tick(instance, found.cursor)
        assert "the last run did not end it" in (again.skip_message or "")

    def test_a_drain_that_waits_in_the_queue_behind_a_job_carries_nothing(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        hear(ledger_url, REMOVED)
        in_progress(instance, "callback_inbox", QUEUED)
        in_progress(instance, "reconcile_daily")
        assert tick(instance).run_requests

    @pytest.mark.parametrize("job", [None, "callback_inbox", "theirs"])
    def test_with_nothing_in_its_way_the_drain_carries_it_as_always(
        self, ledger_url: str, instance: dg.DagsterInstance, job: str | None
    ) -> None:
        hear(ledger_url, REMOVED)
        if job:
            in_progress(instance, job)
        assert tick(instance).skip_message in {
            "opt-outs are carried by callback_inbox and crm_changes themselves",
            "no opt-out waits",  # crm_changes would wait, and has none
        }

    def test_an_opt_in_waits(self, ledger_url: str, instance: dg.DagsterInstance) -> None:
        hear(ledger_url, ADDED)
        in_progress(instance, "reconcile_daily")
        assert tick(instance).skip_message == "no opt-out waits"

    def test_one_run_at_a_time(self, ledger_url: str, instance: dg.DagsterInstance) -> None:
        hear(ledger_url, REMOVED)
        in_progress(instance, "reconcile_daily")
        in_progress(instance, "opt_outs", QUEUED)
        assert tick(instance).skip_message == "a run of opt_outs is in progress"

    def test_the_drain_does_not_wait_for_the_lane(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        hear(ledger_url, REMOVED)
        in_progress(instance, "opt_outs")
        assert tick(instance, sensor=callback_inbox_sensor).run_requests


@pytest.mark.parametrize(
    ("runs", "wanted"),
    [
        pytest.param([], False, id="nothing runs"),
        pytest.param([("callback_inbox", STARTED, 10)], False, id="its own job is at it"),
        pytest.param([("callback_inbox", QUEUED, 900)], False, id="its own job is next"),
        pytest.param([("callback_inbox", STARTED, TRUSTED_S + 1)], True, id="its own job hangs"),
        pytest.param([("crm_changes", STARTED, 10)], True, id="the job of the other way"),
        pytest.param(
            [("callback_inbox", STARTED, 10), ("reconcile_daily", QUEUED, 5)],
            False,
            id="its own job is at it, another is next",
        ),
        pytest.param(
            [("callback_inbox", QUEUED, 10), ("reconcile_daily", STARTED, 500)],
            True,
            id="its own job is next, another runs",
        ),
    ],
)
def test_when_an_opt_out_would_wait(
    runs: list[tuple[str, dg.DagsterRunStatus, float]],
    wanted: bool,
) -> None:
    began = [NOW - for_s for _, _, for_s in runs]
    records = [
        dg.RunRecord(
            storage_id=number,
            dagster_run=run_of(job, status),
            create_timestamp=datetime.fromtimestamp(at, UTC),
            update_timestamp=datetime.fromtimestamp(at, UTC),
            start_time=None if status is QUEUED else at,
        )
        for number, ((job, status, _), at) in enumerate(zip(runs, began, strict=True))
    ]
    assert is_wanted(records, "callback_inbox", NOW) is wanted


@pytest.mark.parametrize("path", ["dagster.yaml", "deploy/dagster.yaml"])
def test_the_instance_lets_the_lane_run_beside_a_delivery(path: str) -> None:
    instance = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    limits = {
        limit["key"]: limit["limit"]
        for limit in instance["concurrency"]["runs"]["tag_concurrency_limits"]
    }
    assert limits == {"vibes/effect": 1, "vibes/opt_outs": 1}
    assert "vibes/opt_outs" in OPT_OUT_TAGS
    assert "vibes/effect" not in OPT_OUT_TAGS
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] > 1


class TestJob:
    def run(self, instance: dg.DagsterInstance, **config: bool) -> dg.ExecuteInProcessResult:
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        ops = {"carry_waiting_opt_outs": {"config": config}} if config else {}
        return (
            build_defs()
            .resolve_job_def("opt_outs")
            .execute_in_process(
                instance=instance,
                run_config=dg.RunConfig(ops=ops, loggers=quiet),
                raise_on_error=False,
            )
        )

    def test_a_dry_run_is_its_default(self, ledger_url: str, instance: dg.DagsterInstance) -> None:
        hear(ledger_url, REMOVED)
        assert self.run(instance).success
        assert [row["status"] for row in stored_rows(ledger_url)] == ["stored"]

    def test_a_crm_that_does_not_answer_fails_it_and_nothing_is_lost(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        hear(ledger_url, REMOVED)  # the CRM has no table of contacts
        assert not self.run(instance, dry_run=False).success
        assert [row["status"] for row in stored_rows(ledger_url)] == ["stored"]


def test_the_clock_is_looked_at_though_no_other_job_ran(
    ledger_url: str, instance: dg.DagsterInstance
) -> None:
    job = build_defs().resolve_job_def("look_for_late_opt_outs")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    said = []
    for kind in (ADDED, REMOVED):  # an opt-out of long ago, which nobody carried
        hear(ledger_url, kind)
        result = job.execute_in_process(instance=instance, run_config=quiet)
        [found] = result.get_asset_check_evaluations()
        assert found.asset_check_key == IN_TIME
        said.append((found.passed, found.severity))
    assert said[0][0]
    assert said[1] == (False, dg.AssetCheckSeverity.ERROR)
