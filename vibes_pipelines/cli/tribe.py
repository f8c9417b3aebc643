"""`vibes-pipelines tribe …`: Tribe CRM to APSIS One by hand."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vibes_pipelines.stages.full_sync import Ended

HELD = 3
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def tribe() -> None:
    """Synchronise Tribe CRM with APSIS One: full syncs, messages, overviews."""


@tribe.command("full-sync")
@click.option("--dry-run", is_flag=True, help="Read and compare; write to neither side.")
@click.option("--resume", is_flag=True, help="Take up today's sync that was cut or held.")
@_json
def run_full_sync(*, dry_run: bool, resume: bool, as_json: bool) -> None:
    """Read both sides whole, compare, and write what differs. Ctrl-C cancels."""
    from vibes_pipelines.stages.apsis_sync import open_apsis  # noqa: PLC0415 - as elsewhere
    from vibes_pipelines.stages.full_sync import full_sync  # noqa: PLC0415

    with open_apsis() as sync:
        ended = full_sync(
            sync,
            resume=resume,
            dry_run=dry_run,
            tell=lambda line: click.echo(line, err=True),
        )
    click.echo(json.dumps(_document(ended), sort_keys=True) if as_json else _table(ended))
    if ended.state == "held" and not dry_run:
        sys.exit(HELD)
    if ended.state in {"failed", "cancelled"}:
        sys.exit(1)


@tribe.command()
@_json
def status(*, as_json: bool) -> None:
    """Show the newest full syncs, waiting messages, and whether a full sync is needed."""
    from vibes_pipelines.stages.apsis_sync import open_apsis  # noqa: PLC0415 - as elsewhere
    from vibes_pipelines.stages.full_sync import full_syncs, is_running  # noqa: PLC0415
    from vibes_pipelines.stages.full_sync_need import full_sync_need  # noqa: PLC0415
    from vibes_pipelines.stages.tribe_messages import messages_waiting  # noqa: PLC0415

    with open_apsis() as sync:
        syncs, need = full_syncs(sync), full_sync_need(sync)
        document: dict[str, Any] = {
            "is_running": is_running(sync),
            "needs_full_sync": need.is_needed,
            "why": list(need.reasons),
            "messages_waiting": len(messages_waiting(sync)),
            "full_syncs": [
                {
                    "sync_id": one.sync_id,
                    "started_at": one.started_at.isoformat(),
                    "state": one.state,
                    "phase": one.phase,
                    "progress": {k: v for k, v in one.progress.items() if k != "config"},
                }
                for one in syncs
            ],
        }
    if as_json:
        click.echo(json.dumps(document, sort_keys=True))
        return
    running = "a full sync runs" if document["is_running"] else "no full sync runs"
    click.echo(f"{running}; {document['messages_waiting']} messages wait")
    click.echo(need.sentence)
    for one in syncs:
        written = one.progress.get("written", 0)
        click.echo(
            f"{one.started_at:%Y-%m-%d %H:%M} {one.sync_id} {one.state:10} {one.phase:10}"
            f" written {written}"
        )


@tribe.command()
@click.option("--reason", required=True, help="Kept with the full sync.")
def cancel(reason: str) -> None:
    """Stop the running full sync between two calls; what was written stays."""
    from vibes_pipelines.stages.apsis_sync import open_apsis  # noqa: PLC0415 - as elsewhere
    from vibes_pipelines.stages.full_sync import cancel as cancel_sync  # noqa: PLC0415

    with open_apsis() as sync:
        cancelled = cancel_sync(sync, reason)
    if cancelled is None:
        raise click.ClickException("no full sync runs")
    click.echo(f"{cancelled.sync_id} stops; `vibes-pipelines tribe status` shows when it has")


@tribe.command()
def messages() -> None:
    """Apply the messages of Tribe that wait, as the sensor does."""
    from vibes_pipelines.stages.apsis_sync import open_apsis  # noqa: PLC0415 - as elsewhere
    from vibes_pipelines.stages.tribe_messages import apply_messages  # noqa: PLC0415

    with open_apsis() as sync:
        click.echo(apply_messages(sync).sentence)


@tribe.command()
@click.argument("name")
def overview(name: str) -> None:
    """Carry one overview to its tag now: NAME of `destinations.apsis.overviews`."""
    from vibes_pipelines.stages.apsis_overviews import carry_overview  # noqa: PLC0415
    from vibes_pipelines.stages.apsis_sync import open_apsis  # noqa: PLC0415 - as elsewhere

    with open_apsis() as sync:
        click.echo(carry_overview(sync, name).sentence)


def _document(ended: "Ended") -> dict[str, Any]:
    messages = ended.messages.sentence if ended.messages else None
    return {
        "sync_id": ended.sync_id,
        "day": ended.day,
        "state": ended.state,
        "reason": ended.reason,
        "messages": messages,
        **ended.results.to_document(),
    }


def _table(ended: "Ended") -> str:
    shown = {k: v for k, v in _document(ended).items() if v not in (None, {})}
    return "\n".join(f"{name:16} {value}" for name, value in shown.items())
