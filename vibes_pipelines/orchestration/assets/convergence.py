"""The convergence certificate: yesterday's sends, read back from today's snapshots."""

import time
from collections.abc import Iterator

import dagster as dg

from vibes_pipelines import delivery, report, stages
from vibes_pipelines.orchestration.day_metadata import made_of
from vibes_pipelines.orchestration.days import Made, each_day
from vibes_pipelines.orchestration.keys import CERTIFICATE, FEEDS, OWNERS, PII
from vibes_pipelines.orchestration.metadata import (
    SHOWN_COLUMNS,
    Metadata,
    content_hash,
    file_metadata,
)
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.reconcile.destinations import VIBES

# What `stages.certifying` reads.
READ_FEEDS = [FEEDS[feed] for feed in ("share/persons", *VIBES.feeds.subscriptions, "crm/contacts")]

_OUTCOMES = ("confirmed", "pending", "rejected", "superseded", "unexplained")


@dg.asset(
    key=CERTIFICATE,
    deps=READ_FEEDS,
    partitions_def=DAILY,
    backfill_policy=SINGLE_RUN,
    group_name="convergence",
    kinds={"duckdb", "parquet"},
    owners=OWNERS,
    tags=PII,
)
def certificate(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Proof that what was delivered on earlier days is there, or why not, one row per operation."""
    with project.open() as opened:

        def make(day: str) -> Made:
            began = time.monotonic()
            result = stages.certifying.certify_day(opened, day)
            counts = {name: getattr(result, name) for name in _OUTCOMES}
            context.log.info("certificate of %s: %s", day, counts)
            return {CERTIFICATE: {**counts, **_shown(opened, day, result, began)}}

        yield from each_day(context, [CERTIFICATE], make)


def _shown(
    project: "stages.project.Project",
    day: str,
    result: "delivery.certificate.Certificate",
    began: float,
) -> Metadata:
    rate = report.trends.convergence(result)
    path = project.certificate_folder(day) / delivery.certificate.PARQUET
    return {
        **made_of(project, day, began),
        **({} if rate is None else {"convergence": rate}),
        **file_metadata(path, project, SHOWN_COLUMNS),
        **content_hash(path),
    }
