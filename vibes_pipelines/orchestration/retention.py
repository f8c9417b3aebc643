"""The job that removes what is kept for longer than sync.yaml says."""

import dagster as dg

from vibes_pipelines import stages
from vibes_pipelines.orchestration.keys import EFFECT_TAG
from vibes_pipelines.orchestration.metadata import as_markdown
from vibes_pipelines.orchestration.ops import EffectConfig
from vibes_pipelines.orchestration.resources import ProjectResource

COLUMNS = ["destination", "data", "before", "count"]


@dg.op(out=dg.Out(dg.Nothing))
def remove_what_is_old(
    context: dg.OpExecutionContext, config: EffectConfig, project: ProjectResource
) -> None:
    """Removes each class of data that is older than `policies.retention` lets it be."""
    old = stages.retention
    with project.open() as opened, old.other_projects(opened.settings) as (others, unknown):
        removed = [
            found
            for one in (opened, *others)
            for found in old.apply_retention(one, dry_run=config.dry_run)
        ]
    for told in unknown:
        context.log.warning("left: %s; remove it yourself", told)
    rows = [(one.destination, one.data, one.before, one.count) for one in removed]
    context.log.info("%s", "; ".join(one.line for one in removed) or "nothing is landed yet")
    context.add_output_metadata(
        {
            "dry_run": config.dry_run,
            "classes": dg.MetadataValue.md(
                as_markdown(["destination", "data", "before", "count"], rows)
            ),
        }
    )


@dg.job(
    description="Remove what is kept for longer than policies.retention. Dry run unless told.",
    tags=EFFECT_TAG,
)
def apply_retention() -> None:
    """One op; it belongs to no day."""
    remove_what_is_old()
