"""Ops: work that belongs to no day and makes no asset."""

import dagster as dg

from vibes_pipelines.orchestration.metadata import as_markdown
from vibes_pipelines.orchestration.resources import ProjectResource
from vibes_pipelines.stages.changes import carry_changes
from vibes_pipelines.stages.inbox import drain


class InboxConfig(dg.Config):
    """How the callback inbox is drained.

    Attributes:
        dry_run: Say what would be done; nothing reaches the CRM, and nothing is marked.
    """

    dry_run: bool = True


@dg.op(pool="crm", out=dg.Out(dg.Nothing))
def drain_callback_inbox(
    context: dg.OpExecutionContext, config: InboxConfig, project: ProjectResource
) -> None:
    """Acts on every callback that waits; opt-outs at the platform reach the CRM first."""
    with project.open() as opened:
        drained = drain(opened, dry_run=config.dry_run)
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


class ChangesConfig(dg.Config):
    """How changes of the CRM are carried.

    Attributes:
        dry_run: Say what would be sent; nothing reaches the platform, and nothing is marked.
    """

    dry_run: bool = True


@dg.op(pool="vibes_api", out=dg.Out(dg.Nothing))
def carry_crm_changes(
    context: dg.OpExecutionContext, config: ChangesConfig, project: ProjectResource
) -> None:
    """Sends what changed in the CRM since the last look to the platform, opt-outs first."""
    with project.open() as opened:
        carried = carry_changes(opened, dry_run=config.dry_run)
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
