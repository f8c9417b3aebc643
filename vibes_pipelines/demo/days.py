"""Runs the daily job for simulated days through Dagster, as its schedule would."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.utils import make_new_run_id

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import delivery_run_config
from vibes_pipelines.report.account import DayAccount, account_of
from vibes_pipelines.stages.delivering import approve, held_lanes
from vibes_pipelines.stages.project import open_project

Say = Callable[[str], None]

APPROVAL = "demo: the first diff set is released without a look; do look at your own"


INSTANCE = "dagster.yaml"


class DemoError(RuntimeError):
    """A simulated day did not end as it should."""


@contextmanager
def dagster_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The demo's own Dagster instance, as `dagster.yaml` of this folder describes it."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(INSTANCE, folder / INSTANCE)
    os.environ.update(DAGSTER_HOME=str(folder), VIBES_DAGSTER_STORAGE=str(folder))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


def run_day(instance: dg.DagsterInstance, day: str, *, first: bool, say: Say) -> DayAccount:
    """The daily job of one day, with effects; on the first day, what is held gets its approval.

    Raises:
        DemoError: the job failed for another reason than a first diff set without approval.
    """
    succeeded = _run(instance, "reconcile_daily", day, say)
    if first and not succeeded and _approve_first(day, say):
        succeeded = _run(instance, "repush", day, say)
    if not succeeded:
        msg = f"the daily job of {day} failed; its failed steps are named above"
        raise DemoError(msg)
    with open_project() as project:
        return account_of(project, day)


def _approve_first(day: str, say: Say) -> bool:
    with open_project() as project:
        if not held_lanes(project, day):
            return False
        diff_set = account_of(project, day).diff_set
        say(f"    vibes-pipelines approve {diff_set[:12]} --reason '{APPROVAL}'")
        approve(project, diff_set, APPROVAL)
        return True


def _run(instance: dg.DagsterInstance, name: str, day: str, say: Say) -> bool:
    run_id = make_new_run_id()
    instance.add_event_listener(run_id, lambda event: _follow(event, say))
    result = (
        build_defs()
        .resolve_job_def(name)
        .execute_in_process(
            instance=instance,
            run_id=run_id,
            partition_key=day,
            run_config=_quiet(delivery_run_config(dry_run=False)),
            raise_on_error=False,
        )
    )
    return bool(result.success)


def _quiet(config: dg.RunConfig) -> dg.RunConfig:
    """The same, without Dagster's own lines on the terminal; its event log keeps them all."""
    return dg.RunConfig(ops=config.ops, loggers={"console": {"config": {"log_level": "CRITICAL"}}})


def _follow(entry: dg.EventLogEntry, say: Say) -> None:
    """Says what a person waits for: assets as they are made, checks and steps that fail."""
    event = entry.dagster_event
    if event is None:
        return
    if event.is_step_materialization and event.asset_key:
        say(f"    {event.asset_key.to_user_string()}")
    elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        if not check.passed:
            say(f"    {check.check_name}: {check.description}")
    elif event.is_step_failure:
        error = event.step_failure_data.error
        cause = error.cause if error and error.cause else error
        if cause and cause.cls_name != "DagsterAssetCheckFailedError":
            say(f"    {event.step_key}: {cause.message.strip()}")
