"""One step over the days of its run: each day is made, and a day that is missing stops no other.

A backfill over a range is one run with one step for each asset. A day that cannot be made, since
nothing was landed on it, fails the step at its end; what was made of the other days is recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.links import links_of
from vibes_pipelines.orchestration.metadata import Metadata

Made = Mapping[dg.AssetKey, Metadata]
"""What each asset of a step shows of one day."""


def each_day(
    context: dg.AssetExecutionContext,
    keys: Sequence[dg.AssetKey],
    make: Callable[[str], Made],
    *,
    newest_first: bool = False,
) -> Iterator[Any]:
    """Makes every day of the run; yields what Dagster is to record of the assets `keys`.

    Of a run of one day that is missing, the error stays the one that it is.

    Raises:
        dagster.Failure: of several days some are missing; names each, after recording the others.
    """
    days = context.partition_keys
    made, missing = dict[str, Made](), dict[str, str]()
    for day in reversed(days) if newest_first else days:
        try:
            made[day] = make(day)
        except stages.missing_days.MISSING as absent:
            if len(days) == 1:
                raise
            missing[day] = str(absent)
    if missing:
        yield from _recorded(made, keys)
        raise dg.Failure(_sentence(missing, len(days)), allow_retries=False)
    for day, shown in made.items():
        for key in keys:
            metadata = {**shown[key], **links_of(key)}
            context.add_asset_metadata(metadata, asset_key=key, partition_key=day)
    for key in keys:
        yield dg.MaterializeResult(asset_key=key)


def _recorded(
    made: Mapping[str, Made], keys: Sequence[dg.AssetKey]
) -> Iterator[dg.AssetMaterialization]:
    """What a step that fails in the end has made: what its results would have recorded is lost."""
    for day, shown in sorted(made.items()):
        for key in keys:
            metadata = {**shown[key], **links_of(key)}
            yield dg.AssetMaterialization(key, metadata=metadata, partition=day)


def _sentence(missing: Mapping[str, str], days: int) -> str:
    why = "; ".join(f"{day}: {told}" for day, told in sorted(missing.items()))
    return f"{len(missing)} of {days} days are missing, all others were made. {why}"
