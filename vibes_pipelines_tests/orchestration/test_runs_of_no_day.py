"""A run that was launched without a partition says so, wherever it begins."""

import dagster as dg
import pytest

from vibes_pipelines.orchestration.build import build_defs


@pytest.mark.usefixtures("ledger_url")
@pytest.mark.parametrize("job", ["reconcile_daily", "repush", "api_push", "import_reports"])
def test_a_run_of_no_day_asks_for_one(job: str, instance: dg.DagsterInstance) -> None:
    ran = (
        build_defs()
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    )
    failed = [event.step_failure_data.error for event in ran.get_step_failure_events()]
    assert failed
    for error in failed:
        assert error is not None
        assert "this run is of no day; choose a partition" in error.message
