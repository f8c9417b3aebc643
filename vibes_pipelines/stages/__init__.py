"""The stages of a day as plain functions: land, reconcile, certify, deliver.

What the assets, the command line and long simulations call alike. Stages join the rooms together;
rules, formats and protocols belong to those rooms, and Dagster to `orchestration`.
"""

from typing import TYPE_CHECKING

from vibes_pipelines.loading import modules_on_use

__all__ = [
    "alert_channels",
    "alert_settings",
    "alerts",
    "apsis_overviews",
    "apsis_sync",
    "arrivals",
    "certifying",
    "changes",
    "delivering",
    "events",
    "failures",
    "feed_faults",
    "full_sync",
    "full_sync_need",
    "inbox",
    "landing",
    "masking",
    "missing_days",
    "opt_out_lane",
    "opt_outs",
    "parquet_facts",
    "planning",
    "project",
    "reconciling",
    "retention",
    "tribe_messages",
]

if TYPE_CHECKING:
    from vibes_pipelines.stages import (
        alert_channels,
        alert_settings,
        alerts,
        apsis_overviews,
        apsis_sync,
        arrivals,
        certifying,
        changes,
        delivering,
        events,
        failures,
        feed_faults,
        full_sync,
        full_sync_need,
        inbox,
        landing,
        masking,
        missing_days,
        opt_out_lane,
        opt_outs,
        parquet_facts,
        planning,
        project,
        reconciling,
        retention,
        tribe_messages,
    )
else:
    __getattr__ = modules_on_use(__name__, __all__)
