"""The job `approve`: an operator releases a held diff set from the UI, with a reason."""

import dagster as dg

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines_tests.support.loop import Loop


def _approve(instance: dg.DagsterInstance, **config: str) -> dg.ExecuteInProcessResult:
    job = build_defs().resolve_job_def("approve")
    run_config = {"ops": {"approve_diff_set": {"config": config}}}
    return job.execute_in_process(run_config, instance=instance, raise_on_error=False)


def test_only_the_newest_diff_set_is_released_and_only_with_a_reason(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    summary = loop.reconcile()
    for diff_set, no_reason in (("000000000000", "looked at"), (summary.diff_set, " ")):
        assert not _approve(instance, diff_set=diff_set, reason=no_reason).success
        held = loop.project.ledger.newest_diff_set()
        assert held is not None
        assert held.approved_reason is None

    assert _approve(instance, diff_set=summary.diff_set[:12], reason="the first day").success
    newest = loop.project.ledger.newest_diff_set()
    assert newest is not None
    assert (newest.diff_set, newest.approved_reason) == (summary.diff_set, "the first day")
