"""The convergence certificate: yesterday's sends, read back from today's snapshots."""

import time

import dagster as dg

from vibes_pipelines.orchestration.day_metadata import made_of
from vibes_pipelines.orchestration.keys import CERTIFICATE, FEEDS, OWNERS
from vibes_pipelines.orchestration.metadata import SHOWN_COLUMNS, file_metadata
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.report.trends import convergence
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.reconciling import SUBSCRIPTION_FEEDS

# What `stages.certifying` reads.
READ_FEEDS = [FEEDS[feed] for feed in ("share/persons", *SUBSCRIPTION_FEEDS, "crm/contacts")]

_OUTCOMES = ("confirmed", "pending", "rejected", "superseded", "unexplained")


@dg.asset(
    key=CERTIFICATE,
    deps=READ_FEEDS,
    partitions_def=DAILY,
    backfill_policy=SINGLE_RUN,
    group_name="convergence",
    kinds={"duckdb", "parquet"},
    owners=OWNERS,
)
def certificate(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> dg.MaterializeResult[None]:
    """Proof that what was delivered on earlier days is there, or why not, one row per operation."""
    with project.open() as opened:
        for day in context.partition_keys:
            began = time.monotonic()
            result = certify_day(opened, day)
            counts = {name: getattr(result, name) for name in _OUTCOMES}
            context.add_asset_metadata(
                {
                    **counts,
                    **made_of(opened, day, began),
                    **({} if (rate := convergence(result)) is None else {"convergence": rate}),
                    **file_metadata(
                        opened.certificate_folder(day) / "certificate.parquet",
                        opened,
                        SHOWN_COLUMNS,
                    ),
                },
                partition_key=day,
            )
            context.log.info("certificate of %s: %s", day, counts)
    return dg.MaterializeResult()
