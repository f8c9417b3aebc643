"""Delivery assets: the only ones with effects outside this project.

A dry run is the default: it plans, says what it would send, and sends nothing. The schedule and the
sensor pass `dry_run: false`. A backfill keeps the default, and more than one day is refused.
"""

import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import starmap

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.day_metadata import made_of
from vibes_pipelines.orchestration.days import Made, each_day
from vibes_pipelines.orchestration.keys import (
    API_PUSH,
    CRM_CHANGES,
    CRM_WRITE_BACK,
    INVITES,
    OPT_OUTS,
    OWNERS,
    PERSON_CHANGES,
    PERSON_IMPORT,
    PII,
    REJECTED,
    SUBSCRIPTION_CHANGES,
)
from vibes_pipelines.orchestration.lineage import delivery_lineage, lineage_metadata, schema_of
from vibes_pipelines.orchestration.metadata import (
    SHOWN_COLUMNS,
    Metadata,
    as_markdown,
    content_hash,
    file_metadata,
)
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource

EFFECT_TAG = {"vibes/effect": "delivery"}

DRY_RUN = (
    "A dry run unless its config says `dry_run: false`, as the schedule and the sensors do. "
    "Only the newest diff set goes out, and only what no guard holds."
)

SHOWN = SHOWN_COLUMNS | {"category", "advice", "fields", "attempts"}
"""Columns of the rejected rows that name nobody."""

ADVICE_WIDTH = 50
"""Characters that the UI shows beside the list of partitions on a small screen."""

Stage = Callable[
    ["stages.project.Project", str, "stages.delivering.Options"], "stages.delivering.Delivered"
]


class DeliveryConfig(dg.Config):
    """How a delivery runs.

    Attributes:
        dry_run: Plan and report only; nothing leaves.
        force_reason: Deliver a day that is not the newest, and why; never blank. It stands in the
            metadata and the log of the run.
    """

    dry_run: bool = True
    force_reason: str | None = None


ROADS = {
    OPT_OUTS: ("opt_outs/api", "opt_outs/file"),
    CRM_WRITE_BACK: ("opt_outs/crm", "crm/crm"),
    PERSON_IMPORT: ("persons/file",),
    API_PUSH: ("persons/api",),
    INVITES: ("invites/api",),
}
"""Lane and route of the operations that each delivery carries."""


def _delivery_asset(
    key: dg.AssetKey,
    deps: list[dg.AssetKey],
    kinds: set[str],
    pool: str,
    description: str,
    stage: Callable[[], Stage],
) -> dg.AssetsDefinition:
    @dg.asset(
        key=key,
        deps=deps,
        description=f"{description}\n\n{DRY_RUN}",
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        group_name="delivery",
        kinds=kinds,
        owners=OWNERS,
        tags=PII,
        op_tags=EFFECT_TAG,
        pool=pool,
    )
    def delivery(
        context: dg.AssetExecutionContext, config: DeliveryConfig, project: ProjectResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        days = context.partition_keys
        if len(days) > 1 and not config.dry_run:
            msg = f"a delivery carries one day, not {len(days)}; start one run for the newest day"
            raise dg.Failure(msg, allow_retries=False)
        if config.force_reason is not None and not config.force_reason.strip():
            msg = "force_reason is blank; say why this day is delivered, or leave it out"
            raise dg.Failure(msg, allow_retries=False)
        options = stages.delivering.Options(config.dry_run, config.force_reason, context.log.info)
        with project.open() as opened:

            def make(day: str) -> Made:
                began = time.monotonic()
                delivered = stage()(opened, day, options)
                context.log.info("%s", delivered.sentence)
                if options.force_reason:
                    context.log.warning("%s is forced: %s", day, options.force_reason)
                shown = {
                    **_stands(opened, day, key),
                    **_metadata(delivered, options),
                    **made_of(opened, day, began),
                    **_columns(opened, key),
                }
                return {key: shown}

            yield from each_day(context, [key], make)

    return delivery


def _stands(project: "stages.project.Project", day: str, key: dg.AssetKey) -> Metadata:
    """What the ledger knows of the day's operations; a dry run of a delivered day shows it too."""
    try:
        diff_set = stages.reconciling.read_summary(project, day).diff_set
    except stages.reconciling.NotReconciledError:
        return {}
    counts = Counter[str]()
    for (lane, route, status), rows in project.ledger.status_counts(diff_set).items():
        if f"{lane}/{route}" in ROADS[key]:
            counts[status] += rows
    return {
        "diff_set": dg.MetadataValue.text(diff_set),
        "accepted": counts["accepted"],
        "rejected": counts["rejected"],
        "ledger": dg.MetadataValue.md(as_markdown(["status", "rows"], sorted(counts.items()))),
    }


def _columns(project: "stages.project.Project", key: dg.AssetKey) -> Metadata:
    """The columns that leave, and what each is made from."""
    sources = delivery_lineage(project.config).get(key)
    if sources is None:
        return {}
    return lineage_metadata(schema_of(sources), sources)


def _metadata(
    delivered: "stages.delivering.Delivered", options: "stages.delivering.Options"
) -> Metadata:
    forced = {"forced": dg.MetadataValue.text(options.force_reason)} if options.force_reason else {}
    return {
        "dry_run": delivered.dry_run,
        **forced,
        **delivered.counts,
        **_times(delivered),
        "why": dg.MetadataValue.text(delivered.why),
        "rejected_by_class": dg.MetadataValue.md(
            as_markdown(["error class", "rows", "what to do"], delivered.rejections)
        ),
    }


def _times(delivered: "stages.delivering.Delivered") -> Metadata:
    """What it was thought to take, what it took, and how far it was when."""
    if delivered.actual_s <= 0:
        return {}
    steps = [(s.rows, f"{s.seconds:.1f}", f"{s.rows_per_s:.0f}") for s in delivered.progress]
    return {
        "estimated_s": round(delivered.estimated_s, 1),
        "actual_s": round(delivered.actual_s, 1),
        "progress": dg.MetadataValue.md(as_markdown(["answered", "after s", "per s"], steps)),
    }


def _advised(error_class: str, rows: int, category: str, advice: str) -> str:
    """One error class and its cure, in lines of our own: the UI breaks none beside wide tables."""
    lines = textwrap.wrap(advice, ADVICE_WIDTH)
    return "  \n".join([f"**{error_class}** ({category}), rows: {rows}", *lines])


@dg.asset(
    key=REJECTED,
    deps=[OPT_OUTS, CRM_WRITE_BACK, PERSON_IMPORT, API_PUSH, INVITES],
    partitions_def=DAILY,
    backfill_policy=SINGLE_RUN,
    group_name="delivery",
    kinds={"parquet"},
    owners=OWNERS,
    tags=PII,
)
def rejected(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> Iterator[dg.MaterializeResult[None]]:
    """What could not be delivered, row by row, with what to do about it; sends nothing."""
    with project.open() as opened:

        def make(day: str) -> Made:
            began = time.monotonic()
            failures = stages.failures.write_failures(opened, day)
            by_class = "\n\n".join(starmap(_advised, failures.advised)) or "nothing was rejected"
            # The cure first: the rows beneath it are wider than a screen.
            shown = {
                "by_error_class": dg.MetadataValue.md(by_class),
                **file_metadata(failures.path, opened, SHOWN),
                **content_hash(failures.path),
                **made_of(opened, day, began),
            }
            return {REJECTED: shown}

        yield from each_day(context, [REJECTED], make)


DELIVERY_ASSETS = [
    _delivery_asset(
        OPT_OUTS,
        [SUBSCRIPTION_CHANGES],
        {"http", "sftp"},
        "vibes_opt_outs",
        "Unsubscribes at the platform whoever opted out in the CRM; before anything else leaves.",
        lambda: stages.delivering.deliver_opt_outs,
    ),
    _delivery_asset(
        CRM_WRITE_BACK,
        [SUBSCRIPTION_CHANGES, CRM_CHANGES],
        {"sqlalchemy"},
        "crm",
        "Writes the platform's opt-outs, and the fields it is the authority for, to the CRM.",
        lambda: stages.delivering.write_back,
    ),
    _delivery_asset(
        PERSON_IMPORT,
        [PERSON_CHANGES, OPT_OUTS],
        {"sftp"},
        "vibes_sftp",
        "Uploads the person changes that go by import file, and reads the platform's reports.",
        lambda: stages.delivering.import_persons,
    ),
    _delivery_asset(
        API_PUSH,
        [PERSON_CHANGES, OPT_OUTS],
        {"http"},
        "vibes_api",
        "Pushes the person changes that go by API, within the platform's rate limit.",
        lambda: stages.delivering.push_persons,
    ),
    _delivery_asset(
        INVITES,
        [SUBSCRIPTION_CHANGES, OPT_OUTS],
        {"http"},
        "vibes_api",
        "Asks persons who opted in in the CRM by the acquisition campaign of their list.",
        lambda: stages.delivering.deliver_invites,
    ),
    rejected,
]
