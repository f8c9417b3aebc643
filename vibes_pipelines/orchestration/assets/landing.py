"""Landing assets: one immutable snapshot per feed and day, each from one outside table or file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from vibes_pipelines import stages, store
from vibes_pipelines.orchestration.day_metadata import made_of
from vibes_pipelines.orchestration.days import Made, each_day
from vibes_pipelines.orchestration.keys import FEEDS, OUTSIDE, OWNERS, PII
from vibes_pipelines.orchestration.lineage import Sources, lineage_metadata
from vibes_pipelines.orchestration.metadata import Metadata, column_schema, snapshot_metadata
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource, ShareResource
from vibes_pipelines.reconcile.destinations import VIBES
from vibes_pipelines.sync_config import EXTRACT_FEEDS, SyncConfig

RETRIES = 2
RETRY_AFTER_S = 30


@contextmanager
def patience() -> Iterator[None]:
    """Tries a source again that is down for a moment; a refusal fails at once.

    A wrong key or password must not be tried again: repeated failures lock the account.
    """
    try:
        yield
    except stages.landing.TRANSIENT as later:
        raise dg.RetryRequested(RETRIES, RETRY_AFTER_S) from later


def _spec(feed: str, description: str, kinds: set[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        FEEDS[feed],
        deps=[OUTSIDE[feed]],
        description=description,
        group_name=feed.split("/", maxsplit=1)[0],
        kinds=kinds | {"parquet"},
        owners=OWNERS,
        tags=PII,
        partitions_def=DAILY,
    )


@dg.multi_asset(
    specs=[
        _spec("share/persons", "The day's persons, landed from the share.", {"snowflake"}),
        _spec(
            "share/subscriptions", "The day's subscriptions, landed from the share.", {"snowflake"}
        ),
    ],
    can_subset=True,
    backfill_policy=SINGLE_RUN,
)
def share(
    context: dg.AssetExecutionContext, project: ProjectResource, snowflake: ShareResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Pulls the share's tables through the connector's Arrow batches, flat in memory."""
    with patience(), project.open() as opened:
        chosen = [
            feed
            for feed in stages.landing.LANDED_SHARE_FEEDS
            if FEEDS[feed] in context.selected_asset_keys
        ]

        def make(day: str) -> Made:
            shown = {}
            for feed in chosen:
                began = time.monotonic()
                landed = stages.landing.land_share(opened, day, feed, snowflake.connector())
                shown[FEEDS[feed]] = _shown(context, opened, feed, landed, began)
            return shown

        yield from each_day(context, [FEEDS[feed] for feed in chosen], make)


@dg.multi_asset(
    specs=[
        _spec(
            "extract/current_subscribers",
            "Who is subscribed to what, landed from the day's full extract.",
            {"sftp"},
        ),
        _spec(
            "extract/subscriptions",
            "Subscription events since the extract before, landed from the day's extract.",
            {"sftp"},
        ),
    ],
    backfill_policy=SINGLE_RUN,
    pool="vibes_sftp",
)
def extracts(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Downloads and checks the day's extracts in one SFTP session."""
    with patience(), project.open() as opened:

        def make(day: str) -> Made:
            began = time.monotonic()
            return {
                FEEDS[feed]: _shown(context, opened, feed, landed, began)
                for feed, landed in stages.landing.land_extracts(opened, day).items()
            }

        yield from each_day(context, [FEEDS[feed] for feed in EXTRACT_FEEDS], make)


@dg.multi_asset(
    specs=[_spec("crm/contacts", "The day's contacts, landed from the CRM.", {"sqlalchemy"})],
    backfill_policy=SINGLE_RUN,
)
def contacts(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Reads the mapped columns of the CRM in one transaction, in partitions of rows."""
    key = FEEDS[VIBES.feeds.contacts]
    with patience(), project.open() as opened:
        later: str | None = None

        def make(day: str) -> Made:
            nonlocal later
            began = time.monotonic()
            landed = stages.landing.land_contacts(opened, day, later)
            later = day
            return {key: _shown(context, opened, VIBES.feeds.contacts, landed, began)}

        # The newest that is landed shows that all others are past.
        yield from each_day(context, [key], make, newest_first=True)


def _shown(
    context: dg.AssetExecutionContext,
    project: "stages.project.Project",
    feed: str,
    landed: "tuple[store.snapshots.Snapshot, bool]",
    began: float,
) -> Metadata:
    snapshot, newly_landed = landed
    sources = _sources(project.config, feed, list(snapshot.manifest.columns))
    context.log.info(
        "%s: %d rows of %s, %d rejected",
        feed,
        snapshot.manifest.rows,
        snapshot.manifest.day,
        snapshot.manifest.rejected,
    )
    return {
        **snapshot_metadata(snapshot, project, newly_landed=newly_landed),
        **made_of(project, snapshot.manifest.day, began),
        **lineage_metadata(column_schema(snapshot.data), sources),
    }


def _sources(config: SyncConfig, feed: str, columns: list[str]) -> Sources:
    """Of each landed column the column outside that it was read from."""
    mapped = config.feeds[feed].columns if feed in config.feeds else {}
    default = str.upper if feed.startswith("share/") else str
    return {column: [(OUTSIDE[feed], mapped.get(column, default(column)))] for column in columns}


LANDING_ASSETS = [share, extracts, contacts]
