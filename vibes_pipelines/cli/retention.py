"""`vibes-pipelines retention …`: what is older than sync.yaml lets it be."""

import json

import click

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")


@click.group()
def retention() -> None:
    """Remove what is kept for longer than `policies.retention` of sync.yaml says."""


@retention.command("plan")
@_JSON
def plan(*, as_json: bool) -> None:
    """Show what `apply` would remove, per class of data."""
    _run(as_json=as_json, dry_run=True)


@retention.command("apply")
@_JSON
def apply(*, as_json: bool) -> None:
    """Remove it. Days that a next run needs stay in any case."""
    _run(as_json=as_json, dry_run=False)


def _run(*, as_json: bool, dry_run: bool) -> None:
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.retention import (  # noqa: PLC0415 - as above
        apply_retention,
        other_projects,
    )

    with (
        open_project(may_create=False) as project,
        other_projects(project.settings) as (others, unknown),
    ):
        removed = [
            found for one in (project, *others) for found in apply_retention(one, dry_run=dry_run)
        ]
    for told in unknown:
        click.echo(f"left: {told}; remove it yourself", err=True)
    if as_json:
        click.echo(json.dumps([one.as_json() for one in removed], sort_keys=True))
        return
    for one in removed:
        click.echo(one.line)
