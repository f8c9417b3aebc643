"""What starts the lane of opt-outs while another job is busy, and what watches their clock.

An opt-out waits for no delivery, and for no run that hangs. While nothing else runs, the sensors of
the inbox and of the CRM's changes carry opt-outs first, and the lane stays out of their way.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence

import dagster as dg

from vibes_pipelines import crm, stages
from vibes_pipelines.orchestration.jobs import (
    JOBS,
    callback_inbox,
    crm_changes,
    op_run_config,
    opt_outs,
)
from vibes_pipelines.orchestration.keys import OPT_OUTS
from vibes_pipelines.orchestration.ops import carry_waiting_opt_outs
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.orchestration.sensors import IN_PROGRESS, INBOX_INTERVAL_S, InboxCursor
from vibes_pipelines.orchestration.tribe import TRIBE_JOBS

TRUSTED_S = 300
"""How long a drain, or a look at the CRM's changes, is left to carry its opt-outs by itself."""

IN_TIME = dg.AssetCheckKey(OPT_OUTS, "opt_outs_arrive_in_time")

_OURS = frozenset(job.name for job in (*JOBS, *TRIBE_JOBS))


@dg.sensor(
    job=opt_outs,
    minimum_interval_seconds=INBOX_INTERVAL_S,
    description="Carries opt-outs both ways while another job runs or waits, with effects.",
)
def opt_out_sensor(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks while an opt-out waits that no running job is about to carry."""
    found = context.instance.get_run_records(dg.RunsFilter(statuses=list(IN_PROGRESS)))
    runs = [record for record in found if record.dagster_run.job_name in _OURS]
    now = time.time()
    if any(record.dagster_run.job_name == opt_outs.name for record in runs):
        return dg.SkipReason("a run of opt_outs is in progress")
    to_crm, to_platform = (is_wanted(runs, job.name, now) for job in (callback_inbox, crm_changes))
    if not to_crm and not to_platform:
        return dg.SkipReason("opt-outs are carried by callback_inbox and crm_changes themselves")
    with project.open() as opened:
        try:
            waiting = stages.opt_out_lane.opt_outs_waiting(opened)
        except crm.database.CrmError as away:
            return dg.SkipReason(str(away))
    wanted = [
        waiting.to_crm if to_crm else None,
        waiting.to_platform if to_platform else None,
    ]
    if wanted == [None, None]:
        return dg.SkipReason("no opt-out waits")
    return _ask(context, _number(wanted), now)


def is_wanted(runs: Sequence[dg.RunRecord], carrier: str, now: float) -> bool:
    """Whether opt-outs of one way would wait: for another job, or for their own that hangs.

    `carrier` is the job that carries them otherwise, `now` a Unix time. One that only waits in the
    queue carries nothing, and waits for whatever else runs.
    """
    own = [record for record in runs if record.dagster_run.job_name == carrier]
    executing = [r for r in own if r.dagster_run.status is not dg.DagsterRunStatus.QUEUED]
    if executing:
        return all(_has_run_s(record, now) > TRUSTED_S for record in executing)
    return len(own) < len(runs)


def _has_run_s(record: dg.RunRecord, now: float) -> float:
    return now - (record.start_time or record.create_timestamp.timestamp())


def _number(waiting: Iterable[int | None]) -> int:
    text = json.dumps(list(waiting))
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def _ask(
    context: dg.SensorEvaluationContext, waiting: int, now: float
) -> dg.SensorResult | dg.SkipReason:
    asked = InboxCursor.from_cursor(context.cursor)
    if wait_s := asked.wait_s(waiting, now):
        return dg.SkipReason(f"the last run did not end it; the next is due in {wait_s:.0f} s")
    asked = asked.next_for(waiting, now)
    config = op_run_config(carry_waiting_opt_outs, dry_run=False)
    request = dg.RunRequest(run_key=asked.run_key("opt_outs"), run_config=config)
    return dg.SensorResult([request], cursor=asked.cursor)


look_for_late_opt_outs = dg.define_asset_job(
    "look_for_late_opt_outs",
    selection=dg.AssetSelection.checks(IN_TIME),
    description="See whether opt-outs arrive in time; makes and sends nothing.",
)

late_opt_outs_schedule = dg.ScheduleDefinition(
    name="late_opt_outs_schedule",
    job=look_for_late_opt_outs,
    cron_schedule="15 * * * *",
    execution_timezone="UTC",
    description="Every hour: see whether opt-outs arrive in time, whatever else ran or failed.",
)
