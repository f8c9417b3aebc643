"""The job and the sensor of the callback inbox: asked for when something waits, and only then."""

import itertools
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.sensors import (
    INBOX_INTERVAL_S,
    INBOX_LONGEST_WAIT_S,
    InboxCursor,
    callback_inbox_sensor,
)
from vibes_pipelines_tests.support.callbacks import (
    REMOVED,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.run_records import run_of
from vibes_pipelines_tests.support.sensors import receive, tick_of

AT = "2026-01-02T03:04:05Z"
CANARY = "Xylophonius"


def removed(event_id: str, contact: str = "C1") -> dict[str, Any]:
    return subscription_body(REMOVED, event_id, AT, external_person_id=contact)


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> SensorExecutionData:
    return tick_of(callback_inbox_sensor, instance, cursor)


def only_request(found: SensorExecutionData) -> dg.RunRequest:
    assert found.skip_message is None
    [request] = found.run_requests or []
    return request


class TestSensor:
    def test_nothing_waits_nothing_is_asked_for(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        assert tick(instance).skip_message == "no callback waits"

    def test_a_waiting_callback_is_drained_with_effects(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        receive(ledger_url, removed("E1"), removed("E2"))
        request = only_request(tick(instance))
        assert (request.run_key or "").startswith("callbacks:2:0:")
        ops = {"drain_callback_inbox": {"config": {"dry_run": False}}}
        assert request.run_config["ops"] == ops

    @pytest.mark.parametrize("job", ["reconcile_daily", "repush", "callback_inbox"])
    @pytest.mark.parametrize(
        ("status", "waits"),
        [
            (dg.DagsterRunStatus.QUEUED, True),
            (dg.DagsterRunStatus.STARTED, True),
            (dg.DagsterRunStatus.CANCELING, True),
            (dg.DagsterRunStatus.SUCCESS, False),
            (dg.DagsterRunStatus.FAILURE, False),
        ],
    )
    def test_it_waits_while_one_of_our_jobs_is_in_progress(
        self,
        ledger_url: str,
        instance: dg.DagsterInstance,
        job: str,
        status: dg.DagsterRunStatus,
        waits: bool,
    ) -> None:
        receive(ledger_url, removed("E1"))
        instance.add_run(run_of(job, status))
        found = tick(instance)
        assert found.skip_message == (f"a run of {job} is in progress" if waits else None)

    def test_a_job_of_somebody_else_does_not_hold_it(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        receive(ledger_url, removed("E1"))
        started = dg.DagsterRunStatus.STARTED
        instance.add_run(dg.DagsterRun(job_name="theirs", run_id="r1", status=started))
        assert only_request(tick(instance))

    @pytest.mark.slow
    def test_a_drain_that_failed_is_asked_for_again_ever_more_slowly(
        self, ledger_url: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        receive(ledger_url, removed("E1"))
        now, cursor, keys, asked_at = 1e9, None, [], []
        monkeypatch.setattr("vibes_pipelines.orchestration.sensors.time.time", lambda: now)
        while now < 1e9 + 4_000:
            found = tick(instance, cursor)
            if found.run_requests:
                keys.append(only_request(found).run_key)
                asked_at.append(now)
                cursor = found.cursor
            now += INBOX_INTERVAL_S
        attempts = range(len(keys))
        assert [(key or "").rpartition(":")[0] for key in keys] == [
            f"callbacks:1:{attempt}" for attempt in attempts
        ]
        pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
        assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]
        assert max(pauses) == INBOX_LONGEST_WAIT_S

        receive(ledger_url, removed("E2"))  # a new one does not wait for the old one's pause
        key = only_request(tick(instance, cursor)).run_key
        assert (key or "").startswith("callbacks:2:0:")

    def test_a_state_that_comes_again_has_a_key_that_no_run_has(self) -> None:
        cursor, keys = InboxCursor(), set()
        for tick_number, state in enumerate([7, 8, 7]):
            cursor = cursor.next_for(state, 1e9 + INBOX_INTERVAL_S * tick_number)
            keys.add(cursor.run_key("changes"))
        assert len(keys) == 3

    @pytest.mark.parametrize(
        "edited",
        [
            "abc",
            "{}",
            "[1]",
            '{"newest": 1, "attempt": "x", "asked_at": 0}',
            '{"newest": 1, "attempt": Infinity, "asked_at": 0}',
            '{"newest": 1, "attempt": 5000, "asked_at": 0}',
            '{"newest": 1, "attempt": 0, "asked_at": Infinity}',
        ],
    )
    def test_an_edited_cursor_stops_nothing(
        self, ledger_url: str, instance: dg.DagsterInstance, edited: str
    ) -> None:
        receive(ledger_url, removed("E1"))
        assert only_request(tick(instance, edited))

    def test_the_cursor_survives_the_daemon(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        receive(ledger_url, removed("E1"))
        cursor = tick(instance).cursor
        assert cursor is not None
        assert InboxCursor.from_cursor(cursor).newest == 1
        assert "the last drain did not end it" in (tick(instance, cursor).skip_message or "")


def run_job(instance: dg.DagsterInstance, **config: bool) -> dg.ExecuteInProcessResult:
    quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
    ops = {"drain_callback_inbox": {"config": config}} if config else {}
    return (
        build_defs()
        .resolve_job_def("callback_inbox")
        .execute_in_process(
            instance=instance,
            run_config=dg.RunConfig(ops=ops, loggers=quiet),
            raise_on_error=False,
        )
    )


class TestJob:
    def test_a_dry_run_is_its_default(self, ledger_url: str, instance: dg.DagsterInstance) -> None:
        receive(ledger_url, removed("E1"))
        assert run_job(instance).success
        assert [row["status"] for row in stored_rows(ledger_url)] == ["stored"]

    def test_with_effects_it_ends_what_waits_and_shows_counts_only(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        person = {"person_id": CANARY, "external_person_id": CANARY}
        recorded = {"callback_type": "person_added", "event_id": "E2", "person": person}
        receive(ledger_url, recorded, subscription_body(REMOVED, "E3", AT, mdn="+13125550142"))
        result = run_job(instance, dry_run=False)
        assert result.success
        assert [row["status"] for row in stored_rows(ledger_url)] == ["ignored", "parked"]
        [output] = [event for event in result.all_events if event.is_successful_output]
        metadata = output.step_output_data.metadata
        counts = {
            name: metadata[name].value for name in ("dry_run", "applied", "ignored", "parked")
        }
        assert counts == {"dry_run": False, "applied": 0, "ignored": 1, "parked": 1}
        shown = "\n".join(
            f"{dg.serialize_value(entry)}\n{entry.user_message}"
            for entry in instance.all_logs(result.run_id)
        )
        assert "unknown_person" in shown
        assert CANARY not in shown
        assert "3125550142" not in shown

    def test_a_crm_that_does_not_answer_fails_it_and_nothing_is_lost(
        self, ledger_url: str, instance: dg.DagsterInstance
    ) -> None:
        receive(ledger_url, removed("E1", CANARY))  # the CRM has no table of contacts
        result = run_job(instance, dry_run=False)
        assert not result.success
        assert [row["status"] for row in stored_rows(ledger_url)] == ["stored"]
        assert CANARY not in str([event.event_specific_data for event in result.all_events])
