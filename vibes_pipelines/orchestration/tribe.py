"""Tribe to APSIS One in Dagster: one group of assets, its jobs, schedule and check.

The full sync is one step, because it is one act: it holds a lease from the first read to the last
write. What it does is in `stages.full_sync`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,  # what define_asset_job returns; dagster exports no name for it
)

from vibes_pipelines import stages
from vibes_pipelines.orchestration.keys import EFFECT_TAG, OUTSIDE, OWNERS, PII
from vibes_pipelines.orchestration.links import check_link
from vibes_pipelines.orchestration.metadata import Metadata, as_markdown

GROUP = "apsis"
EVERY_MORNING = "30 5 * * *"
EVERY_NIGHT = "15 3 * * *"
"""New contacts come daily at the latest."""

CONTACTS = dg.AssetKey(["apsis", "contacts"])
PROFILES = dg.AssetKey(["apsis", "profiles"])
CHANGES = dg.AssetKey(["apsis", "changes"])
DELIVERY = dg.AssetKey(["apsis", "delivery"])
OUTSIDE_PROFILES = dg.AssetKey(["outside", "apsis_profiles"])

APSIS_SPECS = [
    dg.AssetSpec(
        OUTSIDE_PROFILES,
        group_name="outside",
        owners=OWNERS,
        tags=PII,
        kinds={"http"},
        description="The profiles of one section of APSIS One.",
    )
]


class ApsisResource(dg.ConfigurableResource[object]):
    """The project of APSIS One, opened for a step and closed after it."""

    @contextmanager
    def open(self) -> "Iterator[stages.apsis_sync.ApsisSync]":
        """The project of this environment."""
        with stages.apsis_sync.open_apsis() as sync:
            yield sync


class FullSyncConfig(dg.Config):
    """How a full sync runs.

    Attributes:
        dry_run: Read both sides and compare; nothing is written to either.
        resume: Take up the newest one of today that was cut, cancelled, held or has failed.
    """

    dry_run: bool = True
    resume: bool = False


def _spec(key: dg.AssetKey, deps: list[dg.AssetKey], description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=deps,
        description=description,
        group_name=GROUP,
        owners=OWNERS,
        tags=PII,
        kinds={"http"},
    )


@dg.multi_asset(
    name="tribe_to_apsis",
    specs=[
        _spec(CONTACTS, [OUTSIDE["crm/contacts"]], "Every contact, as APSIS One is to have it."),
        _spec(PROFILES, [OUTSIDE_PROFILES], "What is known of the profiles and their consents."),
        _spec(CHANGES, [CONTACTS, PROFILES], "The diff set: every change to make, and why."),
        _spec(DELIVERY, [CHANGES], "What was written, and what came of it."),
    ],
    can_subset=False,
    op_tags=EFFECT_TAG,
    pool="tribe_to_apsis",
)
def tribe_to_apsis(
    context: dg.AssetExecutionContext, config: FullSyncConfig, apsis: ApsisResource
) -> Iterator[dg.MaterializeResult[None]]:
    """A full sync; its counts are the metadata, and a run that was cancelled or held says so."""
    with apsis.open() as sync:
        ended = stages.full_sync.full_sync(
            sync, resume=config.resume, dry_run=config.dry_run, tell=context.log.info
        )
    shown = _metadata(ended)
    if ended.state not in {"finished", "held" if config.dry_run else "finished"}:
        raise dg.Failure(ended.sentence, metadata=shown, allow_retries=False)
    for key in (CONTACTS, PROFILES, CHANGES):
        yield dg.MaterializeResult(asset_key=key, metadata={"day": ended.day})
    yield dg.MaterializeResult(asset_key=DELIVERY, metadata=shown)


def _metadata(ended: "stages.full_sync.Ended") -> Metadata:
    results = ended.results.to_document()
    counts = {name: value for name, value in results.items() if isinstance(value, int)}
    wanted = as_markdown(["change", "rows"], list(ended.results.wanted.items()))
    failed = as_markdown(["class", "rows"], list(ended.results.failed.items()))
    held = as_markdown(["lane", "why"], list(ended.results.held.items()))
    return {
        "state": ended.state,
        "sync_id": ended.sync_id,
        "why": ended.reason or "",
        "diff_set": ended.results.diff_set or "",
        **counts,
        "wanted": dg.MetadataValue.md(wanted),
        "failed_by_class": dg.MetadataValue.md(failed),
        "held_lanes": dg.MetadataValue.md(held),
        "messages_after_it": ended.messages.sentence if ended.messages else "",
    }


@dg.asset_check(
    asset=DELIVERY,
    name="no_full_sync_needed",
    description="The mapping is the one of the last full sync; says what changed, and what needs "
    "one.",
)
def no_full_sync_needed(apsis: ApsisResource) -> dg.AssetCheckResult:
    """Fails softly: nothing is wrong with what is there, but it is not what sync.yaml says."""
    with apsis.open() as sync:
        need = stages.full_sync_need.full_sync_need(sync)
    return dg.AssetCheckResult(
        passed=not need.is_needed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"why": need.sentence, **check_link("no_full_sync_needed")},
    )


class MessagesConfig(dg.Config):
    """Whether there are effects; a dry run only says what waits."""

    dry_run: bool = True


@dg.op(tags=EFFECT_TAG, pool="tribe_to_apsis")
def apply_tribe_messages(
    context: dg.OpExecutionContext, config: MessagesConfig, apsis: ApsisResource
) -> None:
    """Applies the messages of Tribe that wait."""
    with apsis.open() as sync:
        if config.dry_run:
            context.log.info(
                "dry run: %s messages wait", len(stages.tribe_messages.messages_waiting(sync))
            )
            return
        applied = stages.tribe_messages.apply_messages(sync)
    context.log.info("%s", applied.sentence)
    context.add_output_metadata({"messages": applied.sentence})


tribe_full_sync = dg.define_asset_job(
    "tribe_full_sync",
    selection=dg.AssetSelection.assets(CONTACTS, PROFILES, CHANGES, DELIVERY),
    description="Read Tribe and APSIS One whole, compare, write. Dry run unless told.",
    tags=EFFECT_TAG,
)

apsis_push = dg.define_asset_job(
    "apsis_push",
    selection=dg.AssetSelection.assets(CONTACTS, PROFILES, CHANGES, DELIVERY).without_checks(),
    config=dg.RunConfig(
        ops={tribe_to_apsis.op.name: FullSyncConfig(dry_run=False, resume=True)},
    ),
    description="Send, with effects, what the newest full sync of today left open.",
    tags=EFFECT_TAG,
)


@dg.job(
    description="Apply the messages of Tribe to APSIS One. Dry run unless told.", tags=EFFECT_TAG
)
def tribe_messages() -> None:
    """One op; it belongs to no day."""
    apply_tribe_messages()


@dg.op(tags=EFFECT_TAG, pool="tribe_to_apsis")
def carry_recurring_overviews(
    context: dg.OpExecutionContext, config: MessagesConfig, apsis: ApsisResource
) -> None:
    """Carries every recurring overview to its tag; one that fails holds up no other."""
    failures = list[Exception]()
    with apsis.open() as sync:
        for name in stages.apsis_overviews.recurring(sync):
            if config.dry_run:
                context.log.info("dry run: overview %s would be carried", name)
                continue
            try:
                context.log.info("%s", stages.apsis_overviews.carry_overview(sync, name).sentence)
            except Exception as failed:
                context.log.exception("overview %s was not carried", name)
                failures.append(failed)
    if failures:
        raise failures[0]


@dg.job(
    description="Carry the recurring overviews to their tags. Dry run unless told.",
    tags=EFFECT_TAG,
)
def apsis_overviews() -> None:
    """One op; full syncs leave overviews alone."""
    carry_recurring_overviews()


apsis_overviews_schedule = dg.ScheduleDefinition(
    name="apsis_overviews_schedule",
    job=apsis_overviews,
    cron_schedule=EVERY_MORNING,
    run_config=dg.RunConfig(ops={carry_recurring_overviews.name: MessagesConfig(dry_run=False)}),
    description="Recurring overviews show their changes the next morning.",
)

tribe_full_sync_schedule = dg.ScheduleDefinition(
    name="tribe_full_sync_schedule",
    job=tribe_full_sync,
    cron_schedule=EVERY_NIGHT,
    run_config=dg.RunConfig(ops={tribe_to_apsis.op.name: FullSyncConfig(dry_run=False)}),
    description="A full sync every night, with effects: new contacts come daily at the latest.",
)

TRIBE_JOBS: list[UnresolvedAssetJobDefinition | dg.JobDefinition] = [
    tribe_full_sync,
    apsis_push,
    tribe_messages,
    apsis_overviews,
]
TRIBE_SCHEDULES = [tribe_full_sync_schedule, apsis_overviews_schedule]
