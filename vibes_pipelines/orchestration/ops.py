"""Ops: work that belongs to no day and makes no asset."""

import dagster as dg

from vibes_pipelines.orchestration.metadata import as_markdown
from vibes_pipelines.orchestration.resources import ProjectResource
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
    """Acts on every callback that waits: an opt-out at the platform is written to the CRM."""
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
