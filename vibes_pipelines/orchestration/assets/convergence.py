"""The convergence certificate: yesterday's sends, read back from today's snapshots."""

import dagster as dg

from vibes_pipelines.orchestration.keys import CERTIFICATE, FEEDS, OWNERS
from vibes_pipelines.orchestration.metadata import as_markdown, file_metadata
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.stages.certifying import certify_day

_OUTCOMES = ("confirmed", "pending", "rejected", "superseded", "unexplained")


@dg.asset(
    key=CERTIFICATE,
    deps=[FEEDS["share/persons"], FEEDS["share/subscriptions"], FEEDS["crm/contacts"]],
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
            result = certify_day(opened, day)
            counts = {name: getattr(result, name) for name in _OUTCOMES}
            context.add_asset_metadata(
                {
                    **file_metadata(opened.certificate_folder(day) / "certificate.parquet", opened),
                    "outcomes": dg.MetadataValue.md(
                        as_markdown(["outcome", "rows"], counts.items())
                    ),
                    **counts,
                },
                partition_key=day,
            )
            context.log.info("certificate of %s: %s", day, counts)
    return dg.MaterializeResult()
