"""One step over the days of its run: each day is made, and a day that is missing stops no other.

A backfill over a range is one run with one step for each asset, or for each op of a delivery. A day
that cannot be made, since nothing was landed on it, fails the step that records the asset at its
end; what was made of the other days is recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.links import links_of
from vibes_pipelines.orchestration.metadata import Metadata

Made = Mapping[dg.AssetKey, Metadata]
"""What each asset of a step shows of one day."""

T = TypeVar("T")


@dataclass(frozen=True)
class Days(Generic[T]):
    """What was made of each day of a run, and why the others are missing."""

    made: Mapping[str, T]
    missing: Mapping[str, str] = field(default_factory=dict)


def days_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Sequence[str]:
    """The days of the run.

    Raises:
        dagster.Failure: it was started without any.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        msg = "this run is of no day; choose a partition, which is the day, and launch it again"
        raise dg.Failure(msg, allow_retries=False)
    return context.partition_keys


def day_by_day(
    days: Sequence[str], make: Callable[[str], T], *, newest_first: bool = False
) -> Days[T]:
    """Makes every day. Of a run of one day that is missing, the error stays the one that it is."""
    made, missing = dict[str, T](), dict[str, str]()
    for day in reversed(days) if newest_first else days:
        try:
            made[day] = make(day)
        except stages.missing_days.MISSING as absent:
            if len(days) == 1:
                raise
            missing[day] = str(absent)
    return Days(made, missing)


def each_day(
    context: dg.AssetExecutionContext,
    keys: Sequence[dg.AssetKey],
    make: Callable[[str], Made],
    *,
    newest_first: bool = False,
) -> Iterator[Any]:
    """Makes every day of the run; yields what Dagster is to record of the assets `keys`.

    Raises:
        dagster.Failure: as `recorded`; the error of the day itself where the run is of one day.
    """
    found = day_by_day(days_of(context), make, newest_first=newest_first)
    yield from recorded(context, keys, found)


def recorded(
    context: dg.AssetExecutionContext, keys: Sequence[dg.AssetKey], days: Days[Made]
) -> Iterator[Any]:
    """What Dagster is to record of the assets `keys`.

    Raises:
        dagster.Failure: some days are missing; names each, after recording the others.
    """
    if days.missing:
        yield from _materializations(days.made, keys)
        raise dg.Failure(_sentence(days), allow_retries=False)
    for day, shown in days.made.items():
        for key in keys:
            metadata = {**shown[key], **links_of(key)}
            context.add_asset_metadata(metadata, asset_key=key, partition_key=day)
    for key in keys:
        yield dg.MaterializeResult(asset_key=key)


def _materializations(
    made: Mapping[str, Made], keys: Sequence[dg.AssetKey]
) -> Iterator[dg.AssetMaterialization]:
    """What a step that fails in the end has made: what its results would have recorded is lost."""
    for day, shown in sorted(made.items()):
        for key in keys:
            metadata = {**shown[key], **links_of(key)}
            yield dg.AssetMaterialization(key, metadata=metadata, partition=day)


def _sentence(days: Days[Made]) -> str:
    missing, whole = days.missing, len(days.made) + len(days.missing)
    why = "; ".join(f"{day}: {told}" for day, told in sorted(missing.items()))
    return f"{len(missing)} of {whole} days are missing, all others were made. {why}"
