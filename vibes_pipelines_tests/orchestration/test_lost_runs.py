"""After the code server died, no record of a run may say that it still runs."""

from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test

from vibes_pipelines.cli.main import main
from vibes_pipelines.orchestration import lost_runs
from vibes_pipelines.orchestration.lost_runs import (
    LOCATION,
    LOST,
    NOTED,
    end_lost_runs,
    note_lost_runs,
)

Status = dg.DagsterRunStatus
INSTANCE = Path(__file__).parents[2] / "dagster.yaml"


def _run(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, location: str = LOCATION
) -> str:
    server = GrpcServerCodeLocationOrigin("127.0.0.1", 4000, location_name=location)
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(server, "__repository__"), "reconcile_daily")
    run: dg.DagsterRun = create_run_for_test(
        instance, "reconcile_daily", status=status, remote_job_origin=origin
    )
    return run.run_id


def _code_server_died(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """What its unit does when it starts again; returns the runs that were ended."""
    note_lost_runs(instance)
    return end_lost_runs(instance, lambda _seconds: None)


def _status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Status.STARTING, Status.FAILURE),
        (Status.STARTED, Status.FAILURE),
        (Status.CANCELING, Status.CANCELED),
        (Status.QUEUED, Status.QUEUED),
        (Status.SUCCESS, Status.SUCCESS),
    ],
)
def test_what_needs_a_process_is_ended_and_what_does_not_stays(
    instance: dg.DagsterInstance, before: dg.DagsterRunStatus, after: dg.DagsterRunStatus
) -> None:
    run_id = _run(instance, before)
    ended = _code_server_died(instance)
    assert _status(instance, run_id) is after
    assert [run.run_id for run in ended] == ([run_id] if before is not after else [])
    assert _code_server_died(instance) == []


def test_a_run_that_began_with_the_new_code_server_goes_on(instance: dg.DagsterInstance) -> None:
    lost = _run(instance, Status.STARTED)
    note_lost_runs(instance)
    alive = _run(instance, Status.STARTED)
    instance.add_run_tags(alive, {NOTED: lost})  # a run in place of another has its tags
    waited: list[float] = []
    assert [run.run_id for run in end_lost_runs(instance, waited.append)] == [lost]
    assert _status(instance, alive) is Status.STARTED
    assert waited == [70]  # the daemon looks for its code server once a minute


def test_a_run_of_another_code_location_goes_on(instance: dg.DagsterInstance) -> None:
    run_id = _run(instance, Status.STARTED, "billing")
    assert _code_server_died(instance) == []
    assert _status(instance, run_id) is Status.STARTED


def test_a_lost_run_says_why_it_failed(instance: dg.DagsterInstance) -> None:
    run_id = _run(instance, Status.STARTED)
    _code_server_died(instance)
    [entry] = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert entry.dagster_event is not None
    assert entry.dagster_event.message == LOST


def test_the_command_frees_what_the_run_held(tmp_path: Path) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE.read_text(encoding="utf-8"), encoding="utf-8")
    environment = {"DAGSTER_HOME": str(home), "VIBES_DAGSTER_STORAGE": str(home)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with dg.DagsterInstance.get() as instance:
            run_id = _run(instance, Status.STARTED)
            storage = instance.event_log_storage
            storage.initialize_concurrency_limit_to_default("vibes_api")
            storage.claim_concurrency_slot("vibes_api", run_id, "delivery__api_push.send")
        patch.setattr(lost_runs, "SETTLE_S", 0)
        for option, done in ((["--note"], "noted"), ([], "ended")):
            result = CliRunner().invoke(main, ["end-lost-runs", *option], catch_exceptions=False)
            assert result.exit_code == 0
            assert f"reconcile_daily {run_id} was started; {done}" in result.output
        with dg.DagsterInstance.get() as instance:
            assert _status(instance, run_id) is Status.FAILURE
            info = instance.event_log_storage.get_concurrency_info("vibes_api")
            assert info.active_slot_count == 0
