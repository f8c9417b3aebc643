"""The one partitioning of the project: a day, in UTC."""

import dagster as dg

# `end_offset=1`: a day can run on that very day, when the share has just been refreshed.
DAILY = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_offset=1)

# A backfill is one run over all its days; effects refuse more than one day (see delivery_ops).
SINGLE_RUN = dg.BackfillPolicy.single_run()
