"""The services of production on PostgreSQL: runs beside each other, a backfill, flat memory."""

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines_tests.support.dagster_services import Services, running_services
from vibes_pipelines_tests.support.loop import Loop, running_loop

pytestmark = [pytest.mark.slow, pytest.mark.postgresql, pytest.mark.timeout(3600)]

RECONCILE = ("person_changes", "subscription_changes", "crm_changes", "quarantine")
ASSETS = [{"path": ["reconcile", name]} for name in RECONCILE]
RUN_S = 240
MOST_RUNS = 4
"""`max_concurrent_runs` of deploy/dagster.yaml."""
SEVERAL_LOOKS_S = 15
"""The daemon looks for queued runs every five seconds."""

# `VIBES_LOAD_MINUTES=30 pytest -m slow …` looks for longer.
LOAD_MINUTES = float(os.environ.get("VIBES_LOAD_MINUTES", "3"))
MOST_GROWTH = 1.15

LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "vibes_pipelines"}
LAUNCH_RUN = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
LAUNCH_BACKFILL = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}"""
RUNS = """
{ runsOrError { ... on Runs { results { runId parentRunId status endTime } } } }"""
EVENTS = """
query Events($id: ID!) {
  logsForRun(runId: $id) {
    ... on EventConnection { events { __typename ... on MessageEvent { message } } }
  }
}"""
START_SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on PythonError { message } }
}"""
START_SCHEDULE = """
mutation Start($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) { __typename ... on PythonError { message } }
}"""
# What the pages of the UI ask most: runs, assets with their newest metadata, automation with ticks.
AUTOMATION = """
query Automation($selector: RepositorySelector!) {
  repositoryOrError(repositorySelector: $selector) { ... on Repository {
    sensors { name sensorState { status ticks(limit: 5) { status } } }
    schedules { name scheduleState { status ticks(limit: 5) { status } } }
  } }
}"""
UI = (
    "{ runsOrError(limit: 25) { ... on Runs { results { runId tags { key value } stats {"
    " ... on RunStatsSnapshot { stepsSucceeded materializations } } } } } }",
    "{ assetNodes { assetKey { path } assetMaterializations(limit: 5) { partition"
    " metadataEntries { label } } } }",
    "{ partitionBackfillsOrError(limit: 10) { ... on PartitionBackfills { results { id status } } }"
    " }",
)


@dataclass(frozen=True)
class Production:
    """The services, and four delivered days behind them."""

    services: Services
    loop: Loop
    days: list[str]
    ledger: str

    def launch(self, day: str) -> str:
        """Rebuilds one day in a run of its own; returns the run's id."""
        return self.launch_job("__ASSET_JOB", day, ASSETS)

    def launch_job(
        self, job: str, day: str | None = None, assets: list[dict[str, Any]] | None = None
    ) -> str:
        """Launches a job as the UI does; returns the run's id."""
        tags = [{"key": "dagster/partition", "value": day}] if day else []
        params = {
            "selector": {**LOCATION, "pipelineName": job, "assetSelection": assets},
            "mode": "default",
            "executionMetadata": {"tags": tags},
        }
        launched = self.services.ask(LAUNCH_RUN, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["run"]["runId"]
        return run_id

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its id."""
        results = self.services.ask(RUNS)["runsOrError"]["results"]
        return {run["runId"]: run for run in results}

    @contextmanager
    def runs_waiting(self) -> Iterator[None]:
        """Within it, a run that reconciles waits for the ledger, which it asks what is pending."""
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.ledger) as connection:
            connection.execute("LOCK TABLE operations IN ACCESS EXCLUSIVE MODE")
            yield

    def await_started(self, run_ids: list[str], count: int) -> None:
        """Waits until so many of these runs have started."""
        deadline, started = time.monotonic() + RUN_S, 0
        while started < count:
            assert time.monotonic() < deadline, self.runs()
            time.sleep(1)
            runs = self.runs()
            started = sum(runs[run_id]["status"] == "STARTED" for run_id in run_ids)

    def start_automation(self) -> None:
        """Every sensor and schedule, as an installation has them."""
        for kind, start in (("sensor", START_SENSOR), ("schedule", START_SCHEDULE)):
            for one in self.automation()[f"{kind}s"]:
                selector = {
                    "repositoryName": LOCATION["repositoryName"],
                    "repositoryLocationName": LOCATION["repositoryLocationName"],
                    f"{kind}Name": one["name"],
                }
                started = self.services.ask(start, selector=selector)
                assert "Error" not in str(started), started

    def automation(self) -> dict[str, list[dict[str, Any]]]:
        """The sensors and schedules, each with its newest ticks."""
        found: dict[str, Any] = self.services.ask(AUTOMATION, selector=LOCATION)
        automation: dict[str, list[dict[str, Any]]] = found["repositoryOrError"]
        return automation

    def failed_ticks(self) -> list[str]:
        """The names of what failed to look."""
        found = self.automation()
        return [
            one["name"]
            for kind in ("sensor", "schedule")
            for one in found[f"{kind}s"]
            if any(tick["status"] == "FAILURE" for tick in one[f"{kind}State"]["ticks"])
        ]

    def look_around(self) -> None:
        """What a person at the UI asks."""
        for query in UI:
            self.services.ask(query)
        self.automation()

    def worker_of(self, run_id: str) -> int:
        """The process of one run, as its log names it."""
        events = self.services.ask(EVENTS, id=run_id)["logsForRun"]["events"]
        told = "\n".join(event.get("message", "") for event in events)
        found = re.search(r"Started process for run \(pid: (\d+)\)", told)
        assert found, told
        return int(found[1])

    def await_retry_of(self, run_id: str) -> dict[str, Any]:
        """The run that Dagster started in place of another, once it has ended."""
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            found = [run for run in self.runs().values() if run["parentRunId"] == run_id]
            if found and found[0]["endTime"]:
                return found[0]
            time.sleep(1)
        raise TimeoutError(f"nothing was started again: {self.runs()}")

    def await_runs(
        self, run_ids: list[str], meanwhile: Callable[[], None] = lambda: None
    ) -> list[dict[str, Any]]:
        """Waits until these runs have ended."""
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            meanwhile()
            runs = self.runs()
            found = [runs[run_id] for run_id in run_ids]
            if all(run["endTime"] for run in found):
                return found
            time.sleep(1)
        raise TimeoutError(f"these runs did not end: {self.runs()}")


@pytest.fixture(scope="module")
def production(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: int
) -> Iterator[Production]:
    import psycopg  # noqa: PLC0415 - as the server, only where PostgreSQL is

    home = tmp_path_factory.mktemp("services")
    address = f"postgresql://crm@127.0.0.1:{postgresql_server}"
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE services_dagster")
        connection.execute("CREATE DATABASE services_ledger")
    dagster_url = f"postgresql+psycopg2{address.removeprefix('postgresql')}/services_dagster"
    ledger_url = f"postgresql+psycopg{address.removeprefix('postgresql')}/services_ledger"
    with (
        running_loop(home, build_world(200, seed=7)) as loop,
        loop.changed(VIBES_LEDGER_URL=ledger_url) as ours,
    ):
        days = []
        for number in range(4):
            days.append(ours.sandbox.next_day().isoformat() if number else ours.today)
            ours.day(approve=True)
        with running_services(home, ours.environment, dagster_url) as services:
            yield Production(services, ours, days, f"{address}/services_ledger")


def test_four_runs_go_beside_each_other_and_no_fifth(production: Production) -> None:
    with production.runs_waiting():
        launched = [production.launch(day) for day in (*production.days, production.days[0])]
        production.await_started(launched, MOST_RUNS)
        time.sleep(SEVERAL_LOOKS_S)
        found = production.runs()
        assert Counter(found[run_id]["status"] for run_id in launched) == {
            "STARTED": MOST_RUNS,
            "QUEUED": 1,
        }
    assert {run["status"] for run in production.await_runs(launched)} == {"SUCCESS"}


def test_a_backfill_of_all_days_ends_well_and_delivers_nothing(production: Production) -> None:
    effects = production.loop.sandbox.audit()
    params = {"partitionNames": production.days, "assetSelection": ASSETS}
    launched = production.services.ask(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    deadline = time.monotonic() + RUN_S
    status = "REQUESTED"
    while time.monotonic() < deadline and status in {"REQUESTED", "COMPLETING"}:
        time.sleep(1)
        found = production.services.ask(BACKFILL, id=launched["backfillId"])
        status = found["partitionBackfillOrError"]["status"]
    assert status == "COMPLETED_SUCCESS"
    assert production.loop.sandbox.audit() == effects


def test_after_the_code_server_died_its_runs_start_again_and_others_follow(
    production: Production,
) -> None:
    with production.runs_waiting():
        cut = production.launch_job("reconcile_daily", production.days[-1])
        production.await_started([cut], 1)
        waiting = production.launch_job("callback_inbox")
        time.sleep(SEVERAL_LOOKS_S)
        assert production.runs()[waiting]["status"] == "QUEUED"
        production.services.kill("code-server")
        assert production.runs()[cut]["status"] == "STARTED"
        production.services.start_code_server()
    [ended, followed] = production.await_runs([cut, waiting])
    assert (ended["status"], followed["status"]) == ("FAILURE", "SUCCESS")
    assert production.await_retry_of(cut)["status"] == "SUCCESS"


def test_a_run_whose_process_alone_was_killed_starts_again_and_others_follow(
    production: Production,
) -> None:
    with production.runs_waiting():
        cut = production.launch_job("reconcile_daily", production.days[-1])
        production.await_started([cut], 1)
        waiting = production.launch_job("callback_inbox")
        os.kill(production.worker_of(cut), signal.SIGKILL)
        [ended] = production.await_runs([cut])
        assert ended["status"] == "FAILURE"
    [followed] = production.await_runs([waiting])
    assert followed["status"] == "SUCCESS"
    assert production.await_retry_of(cut)["status"] == "SUCCESS"


def test_memory_stays_flat_under_load(production: Production) -> None:
    """With all that a production has on, its jobs run, and somebody at the UI."""
    production.start_automation()
    production.await_runs([production.launch(day) for day in production.days])  # warm
    begun, seen = time.monotonic(), []
    while time.monotonic() - begun < LOAD_MINUTES * 60:
        launched = [production.launch(day) for day in production.days[:2]]
        launched += [production.launch_job("reconcile_daily", production.days[-1])]
        launched += [production.launch_job("callback_inbox")]
        ended = production.await_runs(launched, production.look_around)
        assert {run["status"] for run in ended} == {"SUCCESS"}
        seen.append([production.services.memory_mb(unit) for unit in ("webserver", "daemon")])
        minutes = (time.monotonic() - begun) / 60
        webserver, daemon = seen[-1]
        sizes = f"webserver {webserver:.0f} MB, daemon {daemon:.0f} MB"
        sys.stdout.write(f"{minutes:5.1f} min: {sizes}\n")
    for first, last in zip(seen[0], seen[-1], strict=True):
        assert last < first * MOST_GROWTH
    assert production.failed_ticks() == []
