"""The ops that every delivery is made of: plan, send, account.

Each does its part for whatever delivery it stands in. What one hands to the next are counts; what
is to be sent stands in the ledger, and `send` looks there by itself what is released and open.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.day_metadata import made_of
from vibes_pipelines.orchestration.days import Days, Made, day_by_day, days_of, recorded
from vibes_pipelines.orchestration.delivery_metadata import (
    columns_metadata,
    plan_metadata,
    sent_metadata,
    stands_metadata,
)
from vibes_pipelines.orchestration.keys import EFFECT_TAG
from vibes_pipelines.orchestration.resources import ProjectResource

AFTER = ("after", "and_after")
"""The inputs of `plan`: what has to be made before. An input each, for a check that blocks an asset
cannot be waited for in a list of them."""

T = TypeVar("T")


class DeliveryConfig(dg.Config):
    """How a delivery runs.

    Attributes:
        dry_run: Plan and report only; nothing leaves.
        force_reason: Deliver a day that is not the newest, and why; never blank. It stands in the
            metadata and the log of the run.
    """

    dry_run: bool = True
    force_reason: str | None = None


@dg.config_mapping
def to_each_op(given: DeliveryConfig) -> dict[str, Any]:
    """A delivery is configured as a whole."""
    config = {"config": {"dry_run": given.dry_run, "force_reason": given.force_reason}}
    return dict.fromkeys(("plan", "send", "account"), config)


@dataclass(frozen=True)
class Sent:
    """What was sent of one day, and the seconds that it took."""

    delivered: "stages.delivering.Delivered"
    seconds: float


@dg.op(
    ins={name: dg.In(dg.Nothing) for name in AFTER},
    out=dg.Out(dg.Nothing),
    tags=EFFECT_TAG,
)
def plan_delivery(
    context: dg.AssetExecutionContext, config: DeliveryConfig, project: ProjectResource
) -> None:
    """Looks whether the diff set is released, and which operations go which way; sends nothing.

    Their intents are in the ledger then, unless it is a dry run.
    """
    options = _options(context, config)
    with project.open() as opened:

        def make(day: str) -> "stages.planning.Planned":
            planned = stages.planning.plan_delivery(opened, day, _name(context), options)
            context.log.info("%s: %s", day, planned.sentence)
            return planned

        planned = _day_by_day(context, make)
    context.add_output_metadata(plan_metadata(planned))


@cache
def send_over(pool: str) -> dg.OpDefinition:
    """The op that sends what is open in the ledger, one at a time in its pool."""

    @dg.op(
        name=f"send_over_{pool}",
        ins={"planned": dg.In(dg.Nothing)},
        out=dg.Out(Days),
        tags=EFFECT_TAG,
        pool=pool,
    )
    def send(
        context: dg.AssetExecutionContext, config: DeliveryConfig, project: ProjectResource
    ) -> Days[Sent]:
        """Sends what is open in the ledger, under the lease of its lane, and reads the answers.

        It looks by itself whether the diff set is released: it may run long after its plan.
        """
        options = _options(context, config)
        with project.open() as opened:

            def make(day: str) -> Sent:
                began = time.monotonic()
                delivered = stages.delivering.SENDS[_name(context)](opened, day, options)
                context.log.info("%s", delivered.sentence)
                if options.force_reason:
                    context.log.warning("%s is forced: %s", day, options.force_reason)
                return Sent(delivered, time.monotonic() - began)

            sent = _day_by_day(context, make)
        if len(sent.made) == 1:
            [one] = sent.made.values()
            context.add_output_metadata(sent_metadata(one.delivered, options))
        return sent

    return send


@dg.op(ins={"sent": dg.In(Days)}, out=dg.Out(dg.Nothing), tags=EFFECT_TAG)
def account_for_delivery(
    context: dg.AssetExecutionContext,
    config: DeliveryConfig,
    project: ProjectResource,
    sent: Days[Sent],
) -> Iterator[Any]:
    """Records what was sent, and how its operations stand in the ledger now; talks to nobody."""
    key, options = context.assets_def.key, _options(context, config)
    with project.open() as opened:

        def shown(day: str, one: Sent) -> Made:
            began = time.monotonic() - one.seconds
            delivered = one.delivered
            roads = stages.planning.DELIVERIES[_name(context)].roads
            return {
                key: {
                    **stands_metadata(opened, delivered.diff_set, roads),
                    **sent_metadata(delivered, options),
                    **made_of(opened, day, began),
                    **columns_metadata(opened, key),
                }
            }

        made = {day: shown(day, one) for day, one in sent.made.items()}
    yield from recorded(context, [key], Days(made, sent.missing))


def _options(
    context: dg.AssetExecutionContext, config: DeliveryConfig
) -> "stages.delivering.Options":
    """How to deliver.

    Raises:
        dagster.Failure: a reason is blank, or what is no dry run is of several days.
    """
    days = days_of(context)
    if len(days) > 1 and not config.dry_run:
        msg = f"a delivery carries one day, not {len(days)}; start one run for the newest day"
        raise dg.Failure(msg, allow_retries=False)
    if config.force_reason is not None and not config.force_reason.strip():
        msg = "force_reason is blank; say why this day is delivered, or leave it out"
        raise dg.Failure(msg, allow_retries=False)
    return stages.delivering.Options(config.dry_run, config.force_reason, context.log.info)


def _name(context: dg.AssetExecutionContext) -> str:
    """Which of `planning.DELIVERIES` the op stands in."""
    return str(context.assets_def.key.path[-1])


def _day_by_day(context: dg.AssetExecutionContext, make: Callable[[str], T]) -> Days[T]:
    """Makes every day; of a range, `account` fails for those that are missing."""
    days = day_by_day(days_of(context), make)
    for day, why in days.missing.items():
        context.log.warning("%s is missing: %s", day, why)
    return days
