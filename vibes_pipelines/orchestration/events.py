"""The job that tells the platform what happened in the CRM, and its op."""

import dagster as dg

from vibes_pipelines.orchestration.assets.delivery import EFFECT_TAG
from vibes_pipelines.orchestration.metadata import as_markdown
from vibes_pipelines.orchestration.resources import ProjectResource


class EventsConfig(dg.Config):
    """How events are sent.

    Attributes:
        dry_run: Count what is new in the CRM; nothing is planned, sent or recorded.
    """

    dry_run: bool = True


@dg.op(pool="vibes_events", out=dg.Out(dg.Nothing))
def send_new_events(
    context: dg.OpExecutionContext, config: EventsConfig, project: ProjectResource
) -> None:
    """Records outcomes, plans the CRM's new events, sends what is open: each once."""
    from vibes_pipelines.stages.events import send_crm_events  # noqa: PLC0415 - HTTP is slow to import

    with project.open() as opened:
        run = send_crm_events(opened, dry_run=config.dry_run)
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


@dg.job(
    description="Send the CRM's new events to the platform. Dry run unless told.",
    tags=EFFECT_TAG,
)
def send_events() -> None:
    """One op; it belongs to no day."""
    send_new_events()


def events_run_config(*, dry_run: bool) -> dg.RunConfig:
    """The run config that says whether events are sent."""
    return dg.RunConfig(ops={send_new_events.name: {"config": {"dry_run": dry_run}}})
