"""Ops: work that belongs to no day and makes no asset."""

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.metadata import as_markdown
from vibes_pipelines.orchestration.resources import ProjectResource


class EffectConfig(dg.Config):
    """How an op with effects runs.

    Attributes:
        dry_run: Say what would be done; nothing leaves, and nothing is marked or recorded.
    """

    dry_run: bool = True


@dg.op(pool="crm", out=dg.Out(dg.Nothing))
def drain_callback_inbox(
    context: dg.OpExecutionContext, config: EffectConfig, project: ProjectResource
) -> None:
    """Acts on every callback that waits; opt-outs at the platform reach the CRM first."""
    with project.open() as opened:
        drained = stages.inbox.drain(opened, dry_run=config.dry_run)
    context.log.info("%s", drained.sentence)
    context.add_output_metadata(
        {
            "dry_run": drained.dry_run,
            "applied": drained.applied,
            "ignored": drained.ignored,
            "parked": drained.parked,
            "by_reason": dg.MetadataValue.md(
                as_markdown(["reason", "callbacks"], list(drained.reasons.items()))
            ),
        }
    )


@dg.op(pool="vibes_api", out=dg.Out(dg.Nothing))
def carry_crm_changes(
    context: dg.OpExecutionContext, config: EffectConfig, project: ProjectResource
) -> None:
    """Sends what changed in the CRM since the last look to the platform, opt-outs first."""
    with project.open() as opened:
        carried = stages.changes.carry_changes(opened, dry_run=config.dry_run)
    context.log.info("%s", carried.sentence)
    context.add_output_metadata(
        {
            "dry_run": carried.dry_run,
            "contacts": carried.contacts,
            "opt_outs": carried.opt_outs,
            "persons": carried.persons,
            "accepted": carried.accepted,
            "rejected": carried.rejected,
            "unknown": carried.unknown,
            "left_to_daily": carried.left_to_daily,
            "why": dg.MetadataValue.text("; ".join(carried.why) or "nothing was held"),
            "rejected_by_class": dg.MetadataValue.md(
                as_markdown(["error class", "rows"], list(carried.error_classes.items()))
            ),
        }
    )


# In no pool: it is not to wait for a step of another job.
@dg.op(out=dg.Out(dg.Nothing))
def carry_waiting_opt_outs(
    context: dg.OpExecutionContext, config: EffectConfig, project: ProjectResource
) -> None:
    """Carries opt-outs both ways and nothing else, beside whatever else runs."""
    with project.open() as opened:
        carried = stages.opt_out_lane.carry_opt_outs(opened, dry_run=config.dry_run)
    context.log.info("%s", carried.sentence)
    to_crm, to_platform = carried.to_crm, carried.to_platform
    context.add_output_metadata(
        {
            "dry_run": config.dry_run,
            "to_crm_applied": to_crm.applied,
            "to_crm_ignored": to_crm.ignored,
            "to_crm_parked": to_crm.parked,
            "to_platform_opt_outs": to_platform.opt_outs,
            "to_platform_accepted": to_platform.accepted,
            "to_platform_rejected": to_platform.rejected,
            "to_platform_unknown": to_platform.unknown,
            "why": dg.MetadataValue.text("; ".join(to_platform.why) or "nothing was held"),
        }
    )


@dg.op(pool="vibes_events", out=dg.Out(dg.Nothing))
def send_new_events(
    context: dg.OpExecutionContext, config: EffectConfig, project: ProjectResource
) -> None:
    """Records outcomes, plans the CRM's new events, sends what is open: each once."""
    with project.open() as opened:
        run = stages.events.send_crm_events(opened, dry_run=config.dry_run)
    context.log.info("%s", run.sentence)
    context.add_output_metadata(
        {
            "dry_run": run.dry_run,
            "new": run.new,
            "refused": run.refused,
            "expired": run.expired,
            "outcomes": run.outcomes,
            "accepted": run.sent.accepted,
            "rejected": run.sent.rejected,
            "unclear": run.sent.unclear,
            "by_error_class": dg.MetadataValue.md(
                as_markdown(["error class", "events"], list(run.sent.error_classes.items()))
            ),
        }
    )


class ApprovalConfig(dg.Config):
    """Which held diff set is released, and why.

    Attributes:
        diff_set: Its hash, or the first six or more characters of it, as the red check shows it.
        reason: What you looked at; it stays in the ledger.
    """

    diff_set: str
    reason: str


@dg.op(out=dg.Out(dg.Nothing))
def approve_diff_set(
    context: dg.OpExecutionContext, config: ApprovalConfig, project: ProjectResource
) -> None:
    """Releases the newest diff set; `diff_set_sensor`, or the job `repush`, then delivers it."""
    with project.open() as opened:
        approved = stages.delivering.approve(opened, config.diff_set, config.reason)
    context.log.info("approved %s", approved[:12])
    context.add_output_metadata({"diff_set": approved})
