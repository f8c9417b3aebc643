"""Sensors: what starts a run besides the schedule. All are stopped until a person starts them.

A run key is used once for ever, therefore each names the content that it stands for.
"""

import json
import os
import urllib.request

import dagster as dg

from vibes_pipelines.orchestration.jobs import (
    JOBS,
    delivery_run_config,
    person_import,
    reconcile_daily,
    repush,
)
from vibes_pipelines.orchestration.keys import PERSON_IMPORT
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.stages.arrivals import GapNotOver, arrived_day
from vibes_pipelines.stages.delivering import awaited_reports, released_diff_set
from vibes_pipelines.vibes.sftp_errors import SftpUnavailable

# The platform asks for five minutes between connections; the runs that land need theirs too.
SFTP_INTERVAL_S = 900
ALERT_TIMEOUT_S = 10


@dg.sensor(
    job=reconcile_daily,
    minimum_interval_seconds=SFTP_INTERVAL_S,
    description="Starts the daily job when all extracts of a day have arrived, with effects.",
)
def extract_arrival_sensor(project: ProjectResource) -> dg.SensorResult | dg.SkipReason:
    """Looks at the extract folder in one short session; a server that is down is no failure."""
    with project.open() as opened:
        try:
            day = arrived_day(opened)
        except (SftpUnavailable, GapNotOver) as later:
            return dg.SkipReason(str(later))
    if day is None:
        return dg.SkipReason("no day has all its extracts that is not landed")
    return dg.SensorResult(
        [
            dg.RunRequest(
                run_key=f"extracts:{day}",
                partition_key=day,
                run_config=delivery_run_config(dry_run=False),
            )
        ]
    )


@dg.sensor(
    job=repush,
    minimum_interval_seconds=60,
    description="Delivers the newest diff set once a person has approved it.",
)
def diff_set_sensor(project: ProjectResource) -> dg.SensorResult | dg.SkipReason:
    """Only the newest diff set, and only when it was held and approved."""
    with project.open() as opened:
        found = released_diff_set(opened)
    if found is None:
        return dg.SkipReason("no approved diff set waits for its delivery")
    request = dg.RunRequest(
        run_key=f"diff_set:{found.diff_set}",
        partition_key=found.day,
        run_config=delivery_run_config(dry_run=False),
    )
    return dg.SensorResult([request])


@dg.sensor(
    job=person_import,
    minimum_interval_seconds=SFTP_INTERVAL_S,
    description="Fetches the reports of import files that the platform had not finished.",
)
def import_report_sensor(
    context: dg.SensorEvaluationContext, project: ProjectResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks again while a report is awaited; the number of the look is the cursor."""
    with project.open() as opened:
        awaited = awaited_reports(opened)
    if awaited is None:
        return dg.SkipReason("no import file awaits its report")
    look = int(context.cursor or 0) + 1
    request = dg.RunRequest(
        run_key=f"reports:{awaited.diff_set}:{look}",
        partition_key=awaited.day,
        run_config=delivery_run_config(dry_run=False, deliveries=(PERSON_IMPORT,)),
    )
    return dg.SensorResult([request], cursor=str(look))


@dg.run_failure_sensor(
    monitored_jobs=JOBS,
    minimum_interval_seconds=30,
    description="Tells a webhook (VIBES_ALERT_WEBHOOK) which job of which day failed, and where.",
)
def run_failure_sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Sends job, day, run and the failed steps; never a message, which could name a person."""
    webhook = os.environ.get("VIBES_ALERT_WEBHOOK")
    if not webhook:
        return dg.SkipReason("VIBES_ALERT_WEBHOOK is not set")
    run = context.dagster_run
    alert = {
        "job": run.job_name,
        "day": run.tags.get("dagster/partition"),
        "run_id": run.run_id,
        "failed_steps": [event.step_key for event in context.get_step_failure_events()],
    }
    request = urllib.request.Request(  # noqa: S310 - the operator's own webhook
        webhook, json.dumps(alert).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ALERT_TIMEOUT_S):  # noqa: S310 - as above
        return None


SENSORS = [extract_arrival_sensor, diff_set_sensor, import_report_sensor, run_failure_sensor]
