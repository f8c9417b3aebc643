"""Delivery assets: the only ones with effects outside this project.

Each delivery is a graph of the same three ops: plan, send, account. A dry run is the default: it
plans, says what it would send, and sends nothing. The schedule and the sensor pass
`dry_run: false`. A backfill keeps the default, and more than one day is refused.
"""

import textwrap
import time
from collections.abc import Iterator
from itertools import starmap
from typing import Any

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.day_metadata import made_of
from vibes_pipelines.orchestration.days import Made, each_day
from vibes_pipelines.orchestration.delivery_ops import (
    AFTER,
    account_for_delivery,
    plan_delivery,
    send_over,
    to_each_op,
)
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
from vibes_pipelines.orchestration.metadata import SHOWN_COLUMNS, content_hash, file_metadata
from vibes_pipelines.orchestration.partitions import DAILY, SINGLE_RUN
from vibes_pipelines.orchestration.resources import ProjectResource

DRY_RUN = (
    "A dry run unless its config says `dry_run: false`, as the schedule and the sensors do. "
    "Only the newest diff set goes out, and only what no guard holds."
)

SHOWN = SHOWN_COLUMNS | {"category", "advice", "fields", "attempts"}
"""Columns of the rejected rows that name nobody."""

ADVICE_WIDTH = 50
"""Characters that the UI shows beside the list of partitions on a small screen."""


def _delivery_asset(
    key: dg.AssetKey, deps: list[dg.AssetKey], kinds: set[str], pool: str, description: str
) -> dg.AssetsDefinition:
    """One delivery; only `send` waits for its pool, the one that talks to the outside."""

    @dg.graph_asset(
        key=key,
        ins={"_".join(dep.path): dg.AssetIn(dep, dagster_type=dg.Nothing) for dep in deps},
        config=to_each_op,
        description=f"{description}\n\n{DRY_RUN}",
        partitions_def=DAILY,
        backfill_policy=SINGLE_RUN,
        group_name="delivery",
        kinds=kinds,
        owners=OWNERS,
        tags=PII,
    )
    def delivery(**made: Any) -> Any:
        after = dict(zip(AFTER, made.values(), strict=False))
        planned = plan_delivery.alias("plan")(**after)
        return account_for_delivery.alias("account")(send_over(pool).alias("send")(planned))

    return delivery


def _advised(error_class: str, rows: int, category: str, advice: str) -> str:
    """One error class and its cure, in lines of our own: the UI breaks none beside wide tables."""
    lines = textwrap.wrap(advice, ADVICE_WIDTH)
    return "  \n".join([f"**{error_class}** ({category}), rows: {rows}", *lines])


class RejectedConfig(dg.Config):
    """What is done before the rows are written.

    Attributes:
        read_reports: Read the reports that import files of any day await, as far as they are there.
            The receipts are in the ledger then; nothing is planned or sent.
    """

    read_reports: bool = False


@dg.asset(
    key=REJECTED,
    deps=[OPT_OUTS, CRM_WRITE_BACK, PERSON_IMPORT, API_PUSH, INVITES],
    partitions_def=DAILY,
    backfill_policy=SINGLE_RUN,
    group_name="delivery",
    kinds={"parquet"},
    owners=OWNERS,
    tags=PII,
    pool="vibes_sftp",
)
def rejected(
    context: dg.AssetExecutionContext, config: RejectedConfig, project: ProjectResource
) -> Iterator[dg.MaterializeResult[None]]:
    """What could not be delivered, row by row, with what to do about it; sends nothing."""
    with project.open() as opened:

        def make(day: str) -> Made:
            began = time.monotonic()
            if config.read_reports:
                read = stages.delivering.read_late_reports(opened, day)
                context.log.info("%s", read.sentence)
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
    ),
    _delivery_asset(
        CRM_WRITE_BACK,
        [SUBSCRIPTION_CHANGES, CRM_CHANGES],
        {"sqlalchemy"},
        "crm",
        "Writes the platform's opt-outs, and the fields it is the authority for, to the CRM.",
    ),
    _delivery_asset(
        PERSON_IMPORT,
        [PERSON_CHANGES, OPT_OUTS],
        {"sftp"},
        "vibes_sftp",
        "Uploads the person changes that go by import file, and reads the platform's reports.",
    ),
    _delivery_asset(
        API_PUSH,
        [PERSON_CHANGES, OPT_OUTS],
        {"http"},
        "vibes_api",
        "Pushes the person changes that go by API, within the platform's rate limit.",
    ),
    _delivery_asset(
        INVITES,
        [SUBSCRIPTION_CHANGES, OPT_OUTS],
        {"http"},
        "vibes_api",
        "Asks persons who opted in in the CRM by the acquisition campaign of their list.",
    ),
    rejected,
]
