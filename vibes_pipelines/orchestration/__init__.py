"""The only room that imports Dagster: assets, checks, jobs, schedules, sensors, resources."""

import warnings

# `backfill_policy` is beta, and the only way to make a backfill one run.
warnings.filterwarnings("ignore", message="Parameter `(backfill_policy|owners)` of")
