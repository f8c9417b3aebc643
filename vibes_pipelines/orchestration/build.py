"""Assembles the code location; the only place that knows every definition."""

import dagster as dg

from vibes_pipelines.orchestration.assets.convergence import certificate
from vibes_pipelines.orchestration.assets.delivery import DELIVERY_ASSETS
from vibes_pipelines.orchestration.assets.landing import LANDING_ASSETS
from vibes_pipelines.orchestration.assets.outside import OUTSIDE_SPECS
from vibes_pipelines.orchestration.assets.reconcile import diff_set
from vibes_pipelines.orchestration.checks import CHECKS
from vibes_pipelines.orchestration.jobs import JOBS
from vibes_pipelines.orchestration.resources import ProjectResource, ShareResource
from vibes_pipelines.orchestration.schedules import reconcile_daily_schedule
from vibes_pipelines.orchestration.sensors import SENSORS


def build_defs() -> dg.Definitions:
    """Every asset, check, job, schedule, sensor and resource of vibes_pipelines."""
    return dg.Definitions(
        assets=[*OUTSIDE_SPECS, *LANDING_ASSETS, certificate, diff_set, *DELIVERY_ASSETS],
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=[reconcile_daily_schedule],
        sensors=SENSORS,
        resources={"project": ProjectResource(), "snowflake": ShareResource()},
        executor=dg.in_process_executor,
    )
