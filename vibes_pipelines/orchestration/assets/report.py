"""The report assets: the day's page, once from what no guard blocks, again after its deliveries.

A held lane keeps what is below it from running, the second of the two with it: the first is made
whatever is held, so that a held day has a page that says how to release it. Nobody may wait for a
page: where one process runs the steps, the first gives way to every delivery that can go.
"""

import time
from collections.abc import Iterator, Sequence

import dagster as dg

from vibes_pipelines import report
from vibes_pipelines.orchestration.day_metadata import page_metadata
from vibes_pipelines.orchestration.days import Made, each_day
from vibes_pipelines.orchestration.keys import (
    API_PUSH,
    CERTIFICATE,
    CRM_CHANGES,
    CRM_WRITE_BACK,
    INVITES,
    OPT_OUTS,
    OWNERS,
    PERSON_CHANGES,
    PERSON_IMPORT,
    QUARANTINE,
    REJECTED,
    REPORT,
    REPORT_DRAFT,
    SUBSCRIPTION_CHANGES,
)
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource

_WHOLE_DAY = [
    CERTIFICATE,
    PERSON_CHANGES,
    SUBSCRIPTION_CHANGES,
    CRM_CHANGES,
    QUARANTINE,
    OPT_OUTS,
    CRM_WRITE_BACK,
    PERSON_IMPORT,
    API_PUSH,
    INVITES,
    REJECTED,
    REPORT_DRAFT,
]
_DOCS = "docs/report.md"
_GIVES_WAY = {"dagster/priority": "-10"}


def _page_asset(
    key: dg.AssetKey, deps: Sequence[dg.AssetKey], description: str, *, is_whole: bool
) -> dg.AssetsDefinition:
    @dg.asset(
        key=key,
        deps=deps,
        description=f"{description}\n\nCounts and masks only. How to read it: {_DOCS}.",
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        group_name="report",
        kinds={"html"},
        owners=OWNERS,
        op_tags={} if is_whole else _GIVES_WAY,
    )
    def page(
        context: dg.AssetExecutionContext, project: ProjectResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        with project.open() as opened:

            def make(day: str) -> Made:
                began = time.monotonic()
                path = report.day_page.write_report(opened, day, fills_gaps=is_whole)
                context.log.info("report of %s: %s", day, path)
                return {key: page_metadata(opened, day, path, began)}

            yield from each_day(context, [key], make)

    return page


REPORT_ASSETS = [
    _page_asset(
        REPORT_DRAFT,
        [CERTIFICATE, CRM_CHANGES, QUARANTINE],
        "The day's page as the guards leave it: what is held and how to release it, what goes out.",
        is_whole=False,
    ),
    _page_asset(
        REPORT,
        _WHOLE_DAY,
        "The day's page after its deliveries, and the index over days.",
        is_whole=True,
    ),
]
