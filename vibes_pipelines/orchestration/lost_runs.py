"""Runs that died with the code server: their records are ended, so that nothing waits for them.

Runs are children of the code server. It sees at once when one of them dies, and ends its record; of
those that die with it nobody does, for Dagster's run monitoring cannot ask whether such a child is
alive: the record stays "started", and holds back every run with effects until the longest time that
a run may take is over.

Before the code server starts no run can be alive: what should be is noted. Once it answers what was
noted is ended; earlier, the daemon could not start it again, and would not try a second time.
"""

import time
from collections.abc import Callable, Sequence

import dagster as dg

LOCATION = "vibes_pipelines"
"""The code location, as deploy/workspace.yaml names it."""

LOST = "The code server was not running: the process of this run ended with it."

_IN_A_PROCESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


NOTED = "vibes/lost"
"""The tag of a run that was found without a process; its value is the run's own id, since the run
that is started in its place has all its tags."""

SETTLE_S = 70
"""After the code server answers again the daemon may take it to be away for a minute more; a run
that is ended meanwhile is not started again."""


def note_lost_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Notes every run that should have a process; call it only while no code server runs."""
    lost = [run for run in _in_a_process(instance) if _is_ours(run)]
    for run in lost:
        instance.add_run_tags(run.run_id, {NOTED: run.run_id})
    return lost


def end_lost_runs(
    instance: dg.DagsterInstance, sleep: Callable[[float], None] = time.sleep
) -> list[dg.DagsterRun]:
    """Ends every run that was noted; call it when the code server answers again.

    Such a run has failed, and `run_retries` starts it again; one that a person was cancelling is
    cancelled. Its slots in pools are free at once. Returns the runs as they were.
    """
    lost = [run for run in _in_a_process(instance) if run.tags.get(NOTED) == run.run_id]
    if not lost:
        return []
    sleep(SETTLE_S)
    storage = instance.event_log_storage
    for run in lost:
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, LOST)
        else:
            instance.report_run_failed(run, LOST)
        if storage.supports_global_concurrency_limits:
            storage.free_concurrency_slots_for_run(run.run_id)
    return lost


def _in_a_process(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """The runs that have a process, if their records are right."""
    return instance.get_runs(dg.RunsFilter(statuses=_IN_A_PROCESS))


def _is_ours(run: dg.DagsterRun) -> bool:
    """Whether the run's process was a child of our code server: an instance may have several."""
    origin = run.remote_job_origin
    return origin is None or origin.location_name == LOCATION
