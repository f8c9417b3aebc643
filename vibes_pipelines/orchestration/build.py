"""Assembles the code location; the only place that knows every definition."""

import dagster as dg

from vibes_pipelines.orchestration.assets.convergence import certificate
from vibes_pipelines.orchestration.assets.delivery import DELIVERY_ASSETS
from vibes_pipelines.orchestration.assets.landing import LANDING_ASSETS
from vibes_pipelines.orchestration.assets.outside import OUTSIDE_SPECS
from vibes_pipelines.orchestration.assets.reconcile import diff_set
from vibes_pipelines.orchestration.assets.report import REPORT_ASSETS
from vibes_pipelines.orchestration.checks import CHECKS
from vibes_pipelines.orchestration.freshness import (
    look_for_newest_day,
    newest_day_is_made,
    newest_day_schedule,
    with_deadline,
)
from vibes_pipelines.orchestration.jobs import JOBS
from vibes_pipelines.orchestration.links import with_links
from vibes_pipelines.orchestration.opt_out_sensor import (
    late_opt_outs_schedule,
    look_for_late_opt_outs,
    opt_out_sensor,
)
from vibes_pipelines.orchestration.resources import ProjectResource, ShareResource
from vibes_pipelines.orchestration.schedules import reconcile_daily_schedule
from vibes_pipelines.orchestration.sensors import SENSORS
from vibes_pipelines.orchestration.tribe import (
    APSIS_SPECS,
    TRIBE_JOBS,
    TRIBE_SCHEDULES,
    ApsisResource,
    no_full_sync_needed,
    tribe_to_apsis,
)
from vibes_pipelines.orchestration.tribe_sensor import tribe_message_sensor


def build_defs() -> dg.Definitions:
    """Every asset, check, job, schedule, sensor and resource of vibes_pipelines."""
    return dg.Definitions(
        assets=with_links(
            [
                *OUTSIDE_SPECS,
                *APSIS_SPECS,
                tribe_to_apsis,
                *with_deadline(
                    [*LANDING_ASSETS, certificate, diff_set, *DELIVERY_ASSETS, *REPORT_ASSETS]
                ),
            ]
        ),
        asset_checks=[*CHECKS, newest_day_is_made, no_full_sync_needed],
        jobs=[*JOBS, *TRIBE_JOBS, look_for_newest_day, look_for_late_opt_outs],
        schedules=[
            reconcile_daily_schedule,
            newest_day_schedule,
            late_opt_outs_schedule,
            *TRIBE_SCHEDULES,
        ],
        sensors=[*SENSORS, opt_out_sensor, tribe_message_sensor],
        resources={
            "project": ProjectResource(),
            "snowflake": ShareResource(),
            "apsis": ApsisResource(),
        },
        executor=dg.in_process_executor,
    )
