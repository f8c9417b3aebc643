"""`vibes-pipelines callbacks …`: the receiver of callbacks, its registrations, what is parked."""

import json
import sys
from typing import Any

import click

from vibes_pipelines.cli.serve import serve_callbacks


@click.group()
def callbacks() -> None:
    """Take in what the platform posts when something happens there."""


callbacks.add_command(serve_callbacks)

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
_PRUNE = click.option(
    "--prune", is_flag=True, help="Also cancel what of ours sync.yaml does not name."
)


@callbacks.command("plan")
@_PRUNE
@_JSON
def plan_callbacks(*, prune: bool, as_json: bool) -> None:
    """Show what `apply` would register and cancel.

    Registrations to another address than `callbacks.url` are foreign and never touched.
    """
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.registrations import (  # noqa: PLC0415 - as above
        plan_registrations,
        unnamed_lists,
        unregistered_lists,
    )

    with open_project() as project:
        steps = plan_registrations(project, prune=prune)
    _show([step.as_json() for step in steps], [step.line for step in steps], as_json=as_json)
    for list_id in unregistered_lists(steps):
        click.echo(f"list {list_id}: opt-outs are not told until this is applied", err=True)
    for list_id in unnamed_lists(project.config, steps):
        told = f"list {list_id}: opt-outs are told to nobody, for callbacks.lists leaves it out"
        click.echo(told, err=True)


@callbacks.command("apply")
@_PRUNE
@_JSON
def apply_callbacks(*, prune: bool, as_json: bool) -> None:
    """Register what sync.yaml names and is missing; the receiver has to answer already.

    Exit code 1 when the platform refused any of it, or did not answer.
    """
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.registrations import apply_registrations  # noqa: PLC0415 - as above

    with open_project() as project:
        steps = apply_registrations(project, prune=prune)
    _show([step.as_json() for step in steps], [step.line for step in steps], as_json=as_json)
    if any(step.outcome not in {None, "accepted"} for step in steps):
        sys.exit(1)


@callbacks.group()
def parked() -> None:
    """The desk: callbacks that nobody could act on."""


_IDS = click.argument("ids", nargs=-1, required=True, type=click.IntRange(min=1))
_REASON = click.option("--reason", required=True, help="Why; kept beside the callback.")


@parked.command("list")
@_JSON
def list_parked_callbacks(*, as_json: bool) -> None:
    """Show what is parked, the oldest event first; nothing personal."""
    from vibes_pipelines.stages.parked import list_parked  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        found = list_parked(project)
    _show([one.as_json() for one in found], [one.line for one in found], as_json=as_json)


@parked.command("retry")
@_IDS
@_REASON
def retry_parked_callbacks(ids: tuple[int, ...], reason: str) -> None:
    """Read parked callbacks again and let them wait for the next drain."""
    from vibes_pipelines.stages.parked import retry_parked  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        waiting = retry_parked(project, ids, reason)
    click.echo(
        f"{len(waiting)} wait for the next drain, {len(set(ids)) - len(waiting)} still parked"
    )


@parked.command("drop")
@_IDS
@_REASON
def drop_parked_callbacks(ids: tuple[int, ...], reason: str) -> None:
    """End parked callbacks without an effect."""
    from vibes_pipelines.stages.parked import drop_parked  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        dropped = drop_parked(project, ids, reason)
    click.echo(f"{len(dropped)} dropped")


def _show(documents: list[dict[str, Any]], lines: list[str], *, as_json: bool) -> None:
    click.echo(json.dumps(documents) if as_json else "\n".join(lines) or "nothing")
