"""The job `approve`: an operator releases a held diff set from the UI, with a reason."""

import dagster as dg
import pytest

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines_tests.support.loop import Loop


def _approve(instance: dg.DagsterInstance, **config: str) -> dg.ExecuteInProcessResult:
    job = build_defs().resolve_job_def("approve")
    run_config = {"ops": {"approve_diff_set": {"config": config}}}
    return job.execute_in_process(run_config, instance=instance, raise_on_error=False)


def test_the_newest_diff_set_is_released_by_the_start_of_its_hash(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    summary = loop.reconcile()
    assert _approve(instance, diff_set=summary.diff_set[:12], reason="the first day").success
    newest = loop.project.ledger.newest_diff_set()
    assert newest is not None
    assert (newest.diff_set, newest.approved_reason) == (summary.diff_set, "the first day")


@pytest.mark.parametrize(("diff_set", "reason"), [("000000000000", "looked at"), (None, " ")])
def test_another_hash_or_no_reason_releases_nothing(
    loop: Loop, instance: dg.DagsterInstance, diff_set: str | None, reason: str
) -> None:
    summary = loop.reconcile()
    refused = _approve(instance, diff_set=diff_set or summary.diff_set, reason=reason)
    assert not refused.success
    newest = loop.project.ledger.newest_diff_set()
    assert newest is not None
    assert newest.approved_reason is None
