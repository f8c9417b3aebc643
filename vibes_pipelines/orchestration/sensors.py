"""Sensors: what starts a run besides the schedule. All are stopped until a person starts them.

A run key is used once for ever, therefore each names the content that it stands for; and where the
same content may wait a second time, also when it was asked for.
"""

import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass

import dagster as dg

from vibes_pipelines import crm, stages
from vibes_pipelines.orchestration.alerts import (
    FINISHED,
    check_alert_sensor,
    run_failure_sensor,
)
from vibes_pipelines.orchestration.jobs import (
    JOBS,
    READ_REPORTS,
    callback_inbox,
    crm_changes,
    delivery_run_config,
    import_reports,
    op_run_config,
    opt_outs,
    reconcile_daily,
    repush,
)
from vibes_pipelines.orchestration.ops import carry_crm_changes, drain_callback_inbox
from vibes_pipelines.orchestration.partitions import DAILY
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.vibes.sftp_errors import SftpUnavailable

# The platform asks for five minutes between connections; the runs that land need theirs too.
SFTP_INTERVAL_S = 900

INBOX_INTERVAL_S = 30
# A drain that failed is repeated, ever more slowly while its cause lasts.
INBOX_LONGEST_WAIT_S = 900

HOLD_A_DRAIN = frozenset(job.name for job in JOBS if job is not opt_outs)
"""What a drain waits for; the lane of opt-outs runs beside any other."""

IN_PROGRESS = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

RUN_KEY = "dagster/run_key"
"""The tag by which Dagster knows what a run was asked for."""


@dg.sensor(
    job=reconcile_daily,
    minimum_interval_seconds=SFTP_INTERVAL_S,
    description="Starts the daily job when all extracts of a day have arrived, with effects.",
)
def extract_arrival_sensor(project: ProjectResource) -> dg.SensorResult | dg.SkipReason:
    """Looks at the extract folder in one short session; a server that is down is no failure."""
    with project.open() as opened:
        try:
            arrived = stages.arrivals.arrived_day(opened, DAILY.has_partition_key)
        except (SftpUnavailable, stages.arrivals.GapNotOver) as later:
            return dg.SkipReason(str(later))
    if arrived.day is None:
        others = ", ".join(arrived.others)
        left = f"; extracts of {others} are left alone: no days up to today (UTC)" if others else ""
        return dg.SkipReason(f"no day has all its extracts that is not landed{left}")
    return dg.SensorResult(
        [
            dg.RunRequest(
                run_key=f"extracts:{arrived.day}",
                partition_key=arrived.day,
                run_config=delivery_run_config(dry_run=False),
            )
        ]
    )


@dg.sensor(
    job=repush,
    minimum_interval_seconds=60,
    description="Delivers the newest diff set once a person has approved it.",
)
def diff_set_sensor(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> dg.SensorResult | dg.SkipReason:
    """Only the newest diff set, and only when it was held and approved; one run for each.

    What a person ended, or what failed, is theirs to start again: the tick says so.
    """
    with project.open() as opened:
        found = stages.delivering.released_diff_set(opened)
    if found is None:
        return dg.SkipReason("no approved diff set waits for its delivery")
    if running := _in_progress(context.instance, {repush.name}):
        return dg.SkipReason(f"a run of {running} is in progress")
    run_key = f"diff_set:{found.diff_set}"
    ended = dg.RunsFilter(tags={RUN_KEY: run_key}, statuses=FINISHED)
    for run in context.instance.get_runs(ended, limit=1):
        return dg.SkipReason(
            f"{found.day} is approved and not out: its run {run.run_id} is {run.status.value}; "
            f"launch the job {repush.name} for {found.day}, with dry_run: false"
        )
    request = dg.RunRequest(
        run_key=run_key,
        partition_key=found.day,
        run_config=delivery_run_config(dry_run=False),
    )
    return dg.SensorResult([request])


@dg.sensor(
    job=import_reports,
    minimum_interval_seconds=SFTP_INTERVAL_S,
    description="Reads the reports that import files await, of any day; delivers nothing.",
)
def import_report_sensor(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks while a report is awaited, and not again before that run is over."""
    with project.open() as opened:
        day = stages.delivering.awaited_day(opened)
    if day is None:
        return dg.SkipReason("no import file awaits its report")
    if running := _in_progress(context.instance, {import_reports.name}):
        return dg.SkipReason(f"a run of {running} is in progress")
    request = dg.RunRequest(
        run_key=f"reports:{day}:{time.time():.3f}", partition_key=day, run_config=READ_REPORTS
    )
    return dg.SensorResult([request])


@dataclass(frozen=True)
class InboxCursor:
    """What a drain was last asked for, how often in a row, and when (Unix seconds).

    `newest` is the id of the newest callback, or the number of the changes that wait. The same one
    may come again after others: a callback that is let wait again, or ids that begin anew.
    """

    newest: int = 0
    attempt: int = 0
    asked_at: float = 0.0

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "InboxCursor":
        """The inverse of `cursor`; one that cannot be read, as after an edit, counts as none."""
        try:
            kept = json.loads(cursor or "{}")
            return cls(int(kept["newest"]), int(kept["attempt"]), float(kept["asked_at"]))
        except (ValueError, TypeError, KeyError, OverflowError):
            return cls()

    @property
    def cursor(self) -> str:
        """The text that Dagster keeps."""
        return json.dumps(asdict(self))

    def next_for(self, newest: int, now: float) -> "InboxCursor":
        """The cursor of a further request. The same callback again: the last drain failed."""
        attempt = self.attempt + 1 if newest == self.newest else 0
        return InboxCursor(newest, attempt, now)

    def run_key(self, name: str) -> str:
        """A key of this request alone, for Dagster starts nothing for one that it knows.

        The instant of asking is in it, which no later request has, not even after the cursor was
        reset. A daemon that dies before it kept the cursor asks once more, for a drain that finds
        nothing to do.
        """
        return f"{name}:{self.newest}:{self.attempt}:{self.asked_at:.3f}"

    def wait_s(self, newest: int, now: float) -> float:
        """How long a repeated request has to wait still; 0 for the first one of a callback.

        A time of asking that is still to come, of a clock that was set back or an edit, is none.
        """
        if newest != self.newest or now < self.asked_at:
            return 0
        pause_s = min(INBOX_INTERVAL_S * 2.0 ** min(self.attempt, 10), INBOX_LONGEST_WAIT_S)
        return max(0.0, self.asked_at + pause_s - now)


@dg.sensor(
    job=callback_inbox,
    minimum_interval_seconds=INBOX_INTERVAL_S,
    description="Drains the callback inbox while callbacks wait there, with effects.",
)
def callback_inbox_sensor(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks while a callback waits and no delivery runs; a run key holds for one attempt."""
    with project.open() as opened:
        newest = stages.inbox.newest_waiting(opened)
    if newest is None:
        return dg.SkipReason("no callback waits")
    return _ask(context, newest, "callbacks", op_run_config(drain_callback_inbox, dry_run=False))


@dg.sensor(
    job=crm_changes,
    minimum_interval_seconds=INBOX_INTERVAL_S,
    description="Sends what changed in the CRM to the platform while changes wait, with effects.",
)
def crm_change_sensor(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks while a change waits and no delivery runs; a CRM that is away is no failure."""
    with project.open() as opened:
        try:
            waiting = stages.changes.changes_waiting(opened)
        except crm.database.CrmError as away:
            return dg.SkipReason(str(away))
    if waiting is None:
        return dg.SkipReason("no change of the CRM waits")
    return _ask(context, waiting, "changes", op_run_config(carry_crm_changes, dry_run=False))


def _ask(
    context: dg.SensorEvaluationContext, waiting: int, name: str, run_config: dg.RunConfig
) -> dg.SensorResult | dg.SkipReason:
    """One request for what waits, unless one of our jobs is in progress; see `InboxCursor`."""
    if running := _in_progress(context.instance, HOLD_A_DRAIN):
        return dg.SkipReason(f"a run of {running} is in progress")
    asked, now = InboxCursor.from_cursor(context.cursor), time.time()
    if wait_s := asked.wait_s(waiting, now):
        return dg.SkipReason(f"the last drain did not end it; the next is due in {wait_s:.0f} s")
    asked = asked.next_for(waiting, now)
    request = dg.RunRequest(run_key=asked.run_key(name), run_config=run_config)
    return dg.SensorResult([request], cursor=asked.cursor)


def _in_progress(instance: dg.DagsterInstance, jobs: Collection[str]) -> str | None:
    """The name of one of these jobs that is queued or runs."""
    found = instance.get_runs(filters=dg.RunsFilter(statuses=list(IN_PROGRESS)))
    return next((run.job_name for run in found if run.job_name in jobs), None)


SENSORS = [
    extract_arrival_sensor,
    diff_set_sensor,
    import_report_sensor,
    callback_inbox_sensor,
    crm_change_sensor,
    run_failure_sensor,
    check_alert_sensor,
]
