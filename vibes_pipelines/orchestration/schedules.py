"""The schedule of the daily reconciliation."""

import dagster as dg

from vibes_pipelines.orchestration.jobs import delivery_run_config, reconcile_daily

# The share is refreshed once a day at an hour that Vibes does not publish; adjust to your account.
DAILY_AT = "0 7 * * *"


@dg.schedule(
    job=reconcile_daily,
    cron_schedule=DAILY_AT,
    execution_timezone="UTC",
    description="Every morning: the partition of that day, with effects.",
)
def reconcile_daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Requests the partition of the scheduled day; the run key keeps it to one run a day."""
    day = context.scheduled_execution_time.strftime("%Y-%m-%d")
    return dg.RunRequest(
        run_key=day, partition_key=day, run_config=delivery_run_config(dry_run=False)
    )
