"""Asset checks: the properties that must hold before anything downstream may run.

A blocking check of severity ERROR stops what is downstream of its asset; the two lanes of a diff
set have their own check each, so that a held lane never holds an opt-out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

from vibes_pipelines import crm, stages, store
from vibes_pipelines.orchestration.day_metadata import page_link
from vibes_pipelines.orchestration.days import days_of
from vibes_pipelines.orchestration.keys import (
    CERTIFICATE,
    FEEDS,
    OPT_OUTS,
    PERSON_CHANGES,
    SUBSCRIPTION_CHANGES,
)
from vibes_pipelines.orchestration.links import check_link
from vibes_pipelines.orchestration.metadata import Metadata
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.reconcile.summary import Summary

SUBSCRIPTIONS = "share/subscriptions"

HELD_DAY = "held_day"
"""What a guard check calls the day whose diff set is held."""

# Per feed: the columns that every row needs, and the columns that name a row (empty: none do).
_FEED_RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "share/persons": (("person_key", "external_person_id", "mdn"), ("person_key",)),
    "share/subscriptions": (
        ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date"),
        ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date"),
    ),
    "extract/current_subscribers": (
        ("person_key", "mdn_e164_format", "subscription_list_id"),
        ("person_key", "subscription_list_id"),
    ),
    "extract/subscriptions": (("person_key", "subscription_list_id", "subscription_event"), ()),
    "crm/contacts": ((), ()),
}


# The hash in quotes: YAML would read one of digits only as a number.
_RELEASE = """When the changes are meant, launch this from *Jobs*, `approve`, *Launchpad*:

```yaml
ops:
  approve_diff_set:
    config:
      diff_set: "{diff_set}"
      reason: "what you looked at"
```

`diff_set_sensor` then delivers it."""


def _verdict(faults: Sequence[str], days: int, check: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not faults,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(faults) or "holds",
        metadata={"days": days, "days_with_faults": len(faults), **check_link(check)},
    )


def _per_day(
    context: dg.AssetCheckExecutionContext,
    project: ProjectResource,
    fault: Callable[["stages.project.Project", str], str | None],
) -> dg.AssetCheckResult:
    with project.open() as opened:
        days = days_of(context.op_execution_context)
        found = [(day, fault(opened, day)) for day in days]
    [key] = context.selected_asset_check_keys
    return _verdict([f"{day}: {text}" for day, text in found if text], len(days), key.name)


def _schema_check(feed: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=FEEDS[feed], name="columns_as_mapped", blocking=True)
    def columns_as_mapped(
        context: dg.AssetCheckExecutionContext, project: ProjectResource
    ) -> dg.AssetCheckResult:
        """Every column that the reconcile needs was landed."""

        def fault(opened: "stages.project.Project", day: str) -> str | None:
            landed = stages.reconciling.snapshot_of(opened, feed, day).manifest.columns
            missing = [column for column in _needed(opened, feed) if column not in landed]
            return f"missing {', '.join(missing)}" if missing else None

        return _per_day(context, project, fault)

    return columns_as_mapped


def _needed(project: "stages.project.Project", feed: str) -> list[str]:
    required = list(_FEED_RULES[feed][0])
    if feed == "share/persons":
        required += [field.to for field in project.config.fields]
    if feed == "crm/contacts":
        required += crm.mapped_columns.mapped_columns(project.config)
    return required


def _unique_check(feed: str, columns: tuple[str, ...]) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=FEEDS[feed], name="primary_key_unique", blocking=True)
    def primary_key_unique(
        context: dg.AssetCheckExecutionContext, project: ProjectResource
    ) -> dg.AssetCheckResult:
        """No two rows have the same whole key; a doubled feed is stopped here."""

        def fault(opened: "stages.project.Project", day: str) -> str | None:
            landed = stages.reconciling.snapshot_of(opened, feed, day)
            repeated = stages.feed_faults.repeated_keys(landed.data, columns)
            return (
                f"{repeated} keys ({', '.join(columns)}) stand more than once" if repeated else None
            )

        return _per_day(context, project, fault)

    return primary_key_unique


@dg.asset_check(asset=FEEDS[SUBSCRIPTIONS], blocking=True)
def input_share_within_guard(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """Subscriptions are not far fewer than the day before; a cut table would lose opt-outs."""
    return _per_day(context, project, _too_few_subscriptions)


def _too_few_subscriptions(project: "stages.project.Project", day: str) -> str | None:
    earlier = [landed for landed in project.snapshots.days(SUBSCRIPTIONS) if landed < day]
    if not earlier:
        return None
    rows = stages.reconciling.snapshot_of(project, SUBSCRIPTIONS, day).manifest.rows
    before = stages.reconciling.snapshot_of(project, SUBSCRIPTIONS, earlier[-1]).manifest.rows
    least = project.config.guards.min_input_share
    if rows >= least * before:
        return None
    return (
        f"{rows} rows, fewer than {least:.0%} (guards.min_input_share) of the {before} of "
        f"{earlier[-1]}; look for a partial table, then move the landed day away to land it anew"
    )


@dg.asset_check(
    asset=FEEDS["extract/current_subscribers"], additional_deps=[FEEDS["share/subscriptions"]]
)
def subscribers_agree_with_share(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """The extract and the share, two accounts of one platform, show the same active subscribers."""

    def fault(opened: "stages.project.Project", day: str) -> str | None:
        extract = stages.reconciling.snapshot_of(opened, "extract/current_subscribers", day)
        share = stages.reconciling.snapshot_of(opened, "share/subscriptions", day)
        differing = stages.feed_faults.differing_subscriptions(extract.data, share.data)
        return f"{differing} subscriptions are active in only one of them" if differing else None

    result = _per_day(context, project, fault)
    return result._replace(severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=PERSON_CHANGES, blocking=True)
def every_contact_is_accounted_for(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """Every contact ends in exactly one place, and the counts add up to what was landed."""

    def fault(opened: "stages.project.Project", day: str) -> str | None:
        summary = stages.reconciling.read_summary(opened, day)
        landed = stages.reconciling.snapshot_of(opened, "crm/contacts", day).manifest.rows
        ends = _ends(summary)
        if sum(ends.values()) == summary.contacts == landed:
            return None
        return f"{landed} contacts landed, {summary.contacts} read, {json.dumps(ends)} ended"

    return _per_day(context, project, fault)


def _ends(summary: Summary) -> dict[str, int]:
    names = ["added", "updated", "unchanged", "filtered", "quarantined", "pending", "blocked"]
    return {name: getattr(summary, name) for name in names}


def _guards(
    context: dg.AssetCheckExecutionContext, project: ProjectResource, lane: "store.records.Lane"
) -> dg.AssetCheckResult:
    """Whether a guard holds the lane; if so, also what to look at and how to release it.

    A check shows its last evaluation, whichever days that was of. So a run over older days repeats
    that the newest diff set is held; as a warning, for it stops nothing of those days.
    """
    days = days_of(context.op_execution_context)
    held: list[_Held] = []

    def fault(opened: "stages.project.Project", day: str) -> str | None:
        held[:] = _held(opened, day, lane) or held
        return held[0].said if held and held[0].day == day else None

    result = _per_day(context, project, fault)
    if not held:
        with project.open() as opened:
            newest = opened.ledger.newest_diff_set()
            if newest is not None and newest.day not in days:
                held = _held(opened, newest.day, lane)
    if not held:
        return result
    [one] = held
    shown: Metadata = {
        **page_link(one.day),
        HELD_DAY: one.day,
        "to_release": dg.MetadataValue.md(_RELEASE.format(diff_set=one.diff_set[:12])),
    }
    of_this_run = one.day in days
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR if of_this_run else dg.AssetCheckSeverity.WARN,
        description=result.description if of_this_run else f"{one.day} is still held: {one.said}",
        metadata={**shown, **result.metadata},
    )


@dataclass(frozen=True)
class _Held:
    """A day whose diff set is held, and what the check says of it."""

    day: str
    diff_set: str
    said: str


def _held(project: "stages.project.Project", day: str, lane: "store.records.Lane") -> list[_Held]:
    reason = stages.delivering.held_lanes(project, day).get(lane)
    if reason is None:
        return []
    diff_set = stages.reconciling.read_summary(project, day).diff_set
    return [_Held(day, diff_set, f"{reason} (or the job approve, as in to_release)")]


@dg.asset_check(asset=PERSON_CHANGES, blocking=True)
def person_changes_within_guards(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """Adds, updates and clears are within their caps, or a person approved this diff set."""
    return _guards(context, project, "persons")


@dg.asset_check(asset=SUBSCRIPTION_CHANGES, blocking=True)
def opt_outs_within_guards(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """Opt-outs are within their cap, or a person approved this diff set."""
    return _guards(context, project, "opt_outs")


@dg.asset_check(asset=CERTIFICATE)
def nothing_is_unexplained(
    context: dg.AssetCheckExecutionContext, project: ProjectResource
) -> dg.AssetCheckResult:
    """Every earlier send is confirmed, pending, rejected or superseded."""

    def fault(opened: "stages.project.Project", day: str) -> str | None:
        unexplained = stages.certifying.read_certificate(opened, day).unexplained
        return f"{unexplained} sends are not visible and not explained" if unexplained else None

    return _per_day(context, project, fault)


@dg.asset_check(asset=OPT_OUTS)
def opt_outs_arrive_in_time(project: ProjectResource) -> dg.AssetCheckResult:
    """No opt-out is under way for long, whichever way: a day warns, five business days fail."""
    with project.open() as opened:
        clock = stages.opt_outs.opt_out_clock(opened)
    late = dg.AssetCheckSeverity.ERROR if clock.late else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=not clock.over_a_day,
        severity=late,
        description=clock.sentence,
        metadata={
            "oldest_h": round(clock.oldest.total_seconds() / 3600, 1),
            "over_a_day": clock.over_a_day,
            "late": clock.late,
            **{f"open_{way}": rows for way, rows in clock.open.items()},
            **check_link("opt_outs_arrive_in_time"),
        },
    )


CHECKS = [
    *(_schema_check(feed) for feed in _FEED_RULES),
    *(_unique_check(feed, key) for feed, (_, key) in _FEED_RULES.items() if key),
    input_share_within_guard,
    subscribers_agree_with_share,
    every_contact_is_accounted_for,
    person_changes_within_guards,
    opt_outs_within_guards,
    nothing_is_unexplained,
    opt_outs_arrive_in_time,
]
