"""The reconcile: the day's two sides become one diff set of four files."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.day_metadata import diff_numbers, made_of
from vibes_pipelines.orchestration.days import Made, each_day
from vibes_pipelines.orchestration.keys import (
    CERTIFICATE,
    CRM_CHANGES,
    FEEDS,
    OWNERS,
    PERSON_CHANGES,
    PII,
    QUARANTINE,
    SUBSCRIPTION_CHANGES,
)
from vibes_pipelines.orchestration.lineage import diff_set_lineage, lineage_metadata, with_fields
from vibes_pipelines.orchestration.metadata import (
    SHOWN_COLUMNS,
    Metadata,
    as_markdown,
    column_schema,
    file_metadata,
)
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.reconcile.destinations import VIBES
from vibes_pipelines.reconcile.summary import Summary

_BOTH_SIDES = [FEEDS["share/persons"], FEEDS["crm/contacts"]]
# What each file is made from. The certificate comes first: what it confirms or gives up is no
# longer waited for.
_MADE_FROM = {
    PERSON_CHANGES: [*_BOTH_SIDES, CERTIFICATE],
    SUBSCRIPTION_CHANGES: [*_BOTH_SIDES, *(FEEDS[feed] for feed in VIBES.feeds.subscriptions)],
    CRM_CHANGES: _BOTH_SIDES,
    QUARANTINE: _BOTH_SIDES,
}
_FILES = {
    PERSON_CHANGES: "What to add or change on persons: before, after, reason.",
    SUBSCRIPTION_CHANGES: "Opt-outs to carry to the platform and to the CRM, with their evidence.",
    CRM_CHANGES: "What the platform is the authority for, to be written back into the CRM.",
    QUARANTINE: "Contacts and persons that cannot be acted on safely, each with its kind.",
}


def _spec(key: dg.AssetKey, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=_MADE_FROM[key],
        description=description,
        group_name="reconcile",
        kinds={"duckdb", "parquet"},
        owners=OWNERS,
        tags=PII,
        partitions_def=DAILY,
    )


@dg.multi_asset(
    specs=[_spec(key, description) for key, description in _FILES.items()],
    backfill_policy=SINGLE_RUN,
)
def diff_set(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Compares contacts and persons of a day; a past day can be rebuilt, it delivers nothing."""
    with project.open() as opened:

        def make(day: str) -> Made:
            began = time.monotonic()
            summary = stages.reconciling.reconcile_day(opened, day)
            context.log.info("diff set of %s: %s", day, dict(_counts(summary)))
            return {
                key: {
                    **_metadata(opened, day, key, summary),
                    **made_of(opened, day, began),
                    **diff_numbers(key, summary),
                }
                for key in _FILES
            }

        yield from each_day(context, list(_FILES), make)


def _counts(summary: Summary) -> Iterator[tuple[str, int]]:
    for name, value in summary.to_document().items():
        if isinstance(value, int):
            yield name, value


def _metadata(
    project: "stages.project.Project", day: str, key: dg.AssetKey, summary: Summary
) -> Metadata:
    path = project.diff_set_folder(day) / f"{key.path[-1]}.parquet"
    metadata: Metadata = {"diff_set_status": summary.status, "diff_set": summary.diff_set}
    if key == PERSON_CHANGES:
        metadata["summary"] = dg.MetadataValue.md(as_markdown(["count", "rows"], _counts(summary)))
    return {
        **metadata,
        **file_metadata(path, project, SHOWN_COLUMNS),
        **_columns(project, key, path),
    }


def _columns(project: "stages.project.Project", key: dg.AssetKey, path: Path) -> Metadata:
    """Each column and what it is made from; in person_changes each field has one of its own."""
    schema = column_schema(path)
    if key == PERSON_CHANGES:
        schema = with_fields(schema, project.config)
    return lineage_metadata(schema, diff_set_lineage(project.config)[key])
