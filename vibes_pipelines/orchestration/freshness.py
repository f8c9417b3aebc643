"""Whether the newest day is there: a deadline for every daily asset, and a look for its partition.

Dagster's freshness asks when an asset was last made; a rebuilt past day makes it fresh. The check
asks for the partition of the day itself and whether more than dry runs made it, and has a schedule
of its own, for it is to speak when nothing ran.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.keys import REPORT
from vibes_pipelines.orchestration.links import check_link
from vibes_pipelines.orchestration.partitions import DAILY
from vibes_pipelines.orchestration.resources import ProjectResource

DEADLINE_H = 9
"""The hour, UTC, at which the day is to be there: two hours after the schedule starts it."""

MADE_TODAY = dg.FreshnessPolicy.cron(
    deadline_cron=f"0 {DEADLINE_H} * * *", lower_bound_delta=timedelta(hours=DEADLINE_H)
)


def with_deadline(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The same assets, each to be made between midnight and the deadline, UTC."""
    return [
        one.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=MADE_TODAY))
        for one in assets
    ]


def expected_day(now: datetime) -> str:
    """The newest day that has to be there: today from the deadline on, before it yesterday."""
    instant = now.astimezone(UTC)
    day = instant.date() if instant.hour >= DEADLINE_H else instant.date() - timedelta(days=1)
    return day.isoformat()


def look(
    made: Iterable[str], now: datetime, is_dry: Callable[[str], bool] = lambda _day: False
) -> dg.AssetCheckResult:
    """Whether the newest expected day is among the days that were made, and not by dry runs alone.

    `is_dry` tells whether that is so of a day; it is asked of the one that is there.
    """
    expected, newest = expected_day(now), max(made, default=None)
    is_there = newest is not None and newest >= expected
    is_unsent = is_there and is_dry(str(newest))
    said = f"{newest} is made" if is_there else f"{expected} is not made; the newest is {newest}"
    if is_unsent:
        said += ", but only as a dry run: nothing of it was sent"
    return dg.AssetCheckResult(
        passed=is_there and not is_unsent,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said,
        metadata={
            "expected": expected,
            "newest": newest or "none",
            **check_link("newest_day_is_made"),
        },
    )


@dg.asset_check(asset=REPORT)
def newest_day_is_made(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """The report of the newest day that must be there by now is there, and the day was sent."""

    def is_dry(day: str) -> bool:
        with project.open() as opened:
            return stages.planning.was_only_looked_at(opened, day)

    made = context.op_execution_context.instance.get_materialized_partitions(REPORT)
    return look(made & set(DAILY.get_partition_keys()), datetime.now(UTC), is_dry)


NEWEST_DAY = dg.AssetCheckKey(REPORT, "newest_day_is_made")

look_for_newest_day = dg.define_asset_job(
    "look_for_newest_day",
    selection=dg.AssetSelection.checks(NEWEST_DAY),
    description="See whether the newest day was made; makes and sends nothing.",
)

newest_day_schedule = dg.ScheduleDefinition(
    name="newest_day_schedule",
    job=look_for_newest_day,
    cron_schedule=f"30 {DEADLINE_H} * * *",
    execution_timezone="UTC",
    description="Half an hour after the deadline: see whether the day was made.",
)
