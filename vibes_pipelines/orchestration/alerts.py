"""The sensors that tell a person: of failed runs, of failing checks, and when either is over.

What is told, where and how often is in `stages.alerts`; here Dagster's events become causes. An
error's class is looked at to tell a failed check from a failed step; its text never is.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration import ops, retention, tribe
from vibes_pipelines.orchestration.checks import HELD_DAY
from vibes_pipelines.orchestration.jobs import DELIVERIES
from vibes_pipelines.settings import Settings

RUNS_A_TICK = 50
RUNS_REMEMBERED = 200
INTERVAL_S = 60

NO_CHANNEL = "neither VIBES_ALERT_WEBHOOK nor another channel of docs/alerts.md is set"

FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
_HELD_BY_CHECK = "DagsterAssetCheckFailedError"
# The job of Dagster's own in which Materialize and backfills run, whatever assets they make.
_BY_HAND = "__ASSET_JOB"
_MAKES_ALL = "reconcile_daily"
# What these jobs send again is what a failed daily job left; each ends a failure of its steps.
_SENDS_AGAIN = "repush"
_SENT_AGAIN = ("delivery__", "report__")

DRY_UNLESS_TOLD = frozenset(
    {
        *("__".join(key.path) for key in DELIVERIES),
        ops.drain_callback_inbox.name,
        ops.carry_crm_changes.name,
        ops.carry_waiting_opt_outs.name,
        ops.send_new_events.name,
        retention.remove_what_is_old.name,
        tribe.tribe_to_apsis.op.name,
        tribe.apply_tribe_messages.name,
        tribe.carry_recurring_overviews.name,
    }
)
"""What the run config calls all that has no effect unless its `dry_run` is false."""


def _book(settings: "stages.alert_settings.AlertSettings") -> "stages.alerts.AlertBook":
    return stages.alerts.AlertBook(Settings().home, settings)


# Every run of the code location: one that the UI's Materialize or a backfill started has no job of
# ours.
@dg.run_failure_sensor(
    minimum_interval_seconds=30,
    description="Tells where a run failed, what is safe and what to do, once per cause.",
)
def run_failure_sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Tells job, day, run and the failed steps; never a message, which could name a person."""
    settings = stages.alert_settings.read_alert_settings()
    if not settings.has_channel:
        return dg.SkipReason(NO_CHANNEL)
    _book(settings).report(list(causes_of(context)), datetime.now(UTC))
    return None


def causes_of(context: dg.RunFailureSensorContext) -> "Iterator[stages.alerts.Cause]":
    """The checks that held the run, and the steps that failed for another reason."""
    run, held, failed = context.dagster_run, False, []
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        names = {one.cls_name for one in (error, error.cause if error else None) if one}
        if _HELD_BY_CHECK in names:
            held = True
        elif event.step_key:
            failed.append(event.step_key)
    if held:
        entries = context.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
        yield from (cause for entry in entries if (cause := _failing(entry, run)) is not None)
    if failed or not held:
        yield _run_cause(run, tuple(sorted(failed)))


def _run_cause(run: dg.DagsterRun, steps: tuple[str, ...]) -> "stages.alerts.Cause":
    day = day_of(run)
    where = f" at {', '.join(steps)}" if steps else ", without a failed step"
    return stages.alerts.Cause(
        key=f"run:{run.job_name}:{','.join(steps)}",
        what=f"{_named(run)}{f' of {day}' if day else ''} failed{where}",
        names=steps,
        job=run.job_name,
        day=day,
        run_id=run.run_id,
        failed_steps=steps,
    )


def _named(run: dg.DagsterRun) -> str:
    if run.job_name != _BY_HAND:
        return f"the job {run.job_name}"
    return "a backfill" if "dagster/backfill" in run.tags else "a run started by hand"


def day_of(run: dg.DagsterRun) -> str | None:
    """The day that a run is about; of several, the newest."""
    tags = run.tags
    return tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_end")


def check_key(asset: dg.AssetKey, name: str) -> str:
    """The key of the cause that a check is."""
    return f"check:{asset.to_user_string()}:{name}"


def _failing(entry: dg.EventLogEntry, run: dg.DagsterRun) -> "stages.alerts.Cause | None":
    """The cause that a check's evaluation is, when it failed."""
    event = entry.dagster_event
    found = event.asset_check_evaluation_data if event else None
    if found is None or found.passed:
        return None
    held_day = found.metadata.get(HELD_DAY)
    day = str(held_day.value) if held_day else day_of(run)
    severity: Literal["error", "warn"] = (
        "error" if found.severity is dg.AssetCheckSeverity.ERROR else "warn"
    )
    where = f"{found.check_name} of {found.asset_key.to_user_string()}"
    return stages.alerts.Cause(
        key=check_key(found.asset_key, found.check_name),
        what=f"the check {where} fails{f' for {day}' if day else ''}",
        names=(found.check_name,),
        job=run.job_name,
        day=day,
        run_id=entry.run_id,
        severity=severity,
    )


@dataclass(frozen=True)
class Look:
    """Up to where finished runs were read: their last change, and the newest ids, for ties."""

    updated: str
    seen: tuple[str, ...] = ()

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Look | None":
        """The inverse of `cursor`; one that cannot be read, as after an edit, counts as none."""
        try:
            document = json.loads(cursor or "")
            updated = datetime.fromisoformat(document["updated"]).astimezone(UTC)
            return cls(updated.isoformat(), tuple(document["seen"]))
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    @property
    def cursor(self) -> str:
        """The text that Dagster keeps."""
        return json.dumps(asdict(self))

    def after(self, records: Sequence[dg.RunRecord]) -> "Look":
        """The look after these records, oldest first."""
        if not records:
            return self
        ids = [record.dagster_run.run_id for record in records]
        updated = records[-1].update_timestamp.isoformat()
        return Look(updated, (*self.seen, *ids)[-RUNS_REMEMBERED:])


@dg.sensor(
    minimum_interval_seconds=INTERVAL_S,
    description="Tells of checks that fail, and when a check or a job is well again; no run.",
)
def check_alert_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Reads the runs that finished since the last look; the first only says where it begins.

    A channel that refuses does not hold up the reading: its alerts wait for the next tick.
    """
    settings = stages.alert_settings.read_alert_settings()
    if not settings.has_channel:
        return dg.SkipReason(NO_CHANNEL)
    now, instance = datetime.now(UTC), context.instance
    look, book = Look.from_cursor(context.cursor), _book(settings)
    if look is None:
        return dg.SensorResult(
            skip_reason="runs that finish from now on are read", cursor=Look(now.isoformat()).cursor
        )
    records = instance.get_run_records(
        dg.RunsFilter(statuses=FINISHED, updated_after=datetime.fromisoformat(look.updated)),
        limit=RUNS_A_TICK,
        order_by="update_timestamp",
        ascending=True,
    )
    for record in records:
        run = record.dagster_run
        if run.run_id not in look.seen:
            for entry in instance.all_logs(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            ):
                _note(book, run, entry, now)
    book.end([one.cause.key for one in book.firing() if _is_over(instance, one)], now)
    said = f"{len(records)} finished runs read"
    try:
        book.carry()
    except stages.alert_channels.AlertError as refused:
        context.log.warning("alerts wait: %s", refused)
        said += f"; alerts wait: {refused}"
    return dg.SensorResult(skip_reason=said, cursor=look.after(records).cursor)


def _note(
    book: "stages.alerts.AlertBook", run: dg.DagsterRun, entry: dg.EventLogEntry, now: datetime
) -> None:
    """One evaluation: a failure is noted, a success ends what it covers."""
    cause = _failing(entry, run)
    if cause is not None:
        book.note([cause], now)
        return
    event = entry.dagster_event
    found = event.asset_check_evaluation_data if event else None
    if found is None:
        return
    key, day = check_key(found.asset_key, found.check_name), day_of(run)
    if any(one.cause.key == key and _covers(day, one.last_day) for one in book.firing()):
        book.end([key], now)


def _covers(day: str | None, failed: str | None) -> bool:
    """Whether what went well on `day` ends a failure of that day: an older day proves nothing."""
    return day is None or failed is None or day >= failed


def _is_over(instance: dg.DagsterInstance, firing: "stages.alerts.Firing") -> bool:
    """Whether a later run did with effects what failed, of this day or a later one."""
    cause = firing.cause
    if not cause.key.startswith("run:") or cause.job is None:
        return False
    return any(
        _covers(day_of(run), firing.last_day) and _did(instance, run, cause)
        for job in _jobs_that_end(cause)
        for run in instance.get_runs(
            dg.RunsFilter(
                job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS], created_after=firing.told
            ),
            limit=10,
        )
    )


def _jobs_that_end(cause: "stages.alerts.Cause") -> set[str]:
    """The job that failed; and those that do its steps again, if it is known which failed."""
    jobs = {cause.job or _BY_HAND}
    if cause.failed_steps or cause.job == _BY_HAND:
        jobs.add(_MAKES_ALL)
    if cause.failed_steps and all(step.startswith(_SENT_AGAIN) for step in cause.failed_steps):
        jobs.add(_SENDS_AGAIN)
    return jobs


def _did(instance: dg.DagsterInstance, run: dg.DagsterRun, cause: "stages.alerts.Cause") -> bool:
    """Whether the run made the steps that failed, and was no dry run.

    What came after them was not reached, so nothing that the run made may have been dry; only what
    is started by hand makes what somebody chose, and mostly dry.
    """
    made = {stat.step_key for stat in instance.get_run_step_stats(run.run_id)}
    effects = cause.failed_steps if cause.job == _BY_HAND else made
    return made >= set(cause.failed_steps) and not _is_dry(run, effects)


def _is_dry(run: dg.DagsterRun, steps: Iterable[str]) -> bool:
    configs: Any = run.run_config.get("ops", {})
    made = {step.partition(".")[0] for step in steps} & DRY_UNLESS_TOLD
    return any(configs.get(op, {}).get("config", {}).get("dry_run", True) for op in made)
