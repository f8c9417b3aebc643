"""`vibes-pipelines preview`: the first diff set, shown before anything is landed or sent."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vibes_pipelines.stages.preview import Preview

_ROADS = {
    "opt_outs/api": "opt-outs to the platform, by API",
    "opt_outs/file": "opt-outs to the platform, by import file",
    "opt_outs/crm": "opt-outs to the CRM",
    "crm/crm": "fields to the CRM",
    "persons/api": "persons, by API",
    "persons/file": "persons, by import file",
    "invites/api": "invitations, by API: each is a text message",
}

_WENT = {"superseded": "withdrawn", "unknown": "unreported"}
"""What a status of the ledger is called here, where its own name says too little."""


@click.command()
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), help="The day to be shown (UTC); default: today."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def preview(day: datetime | None, *, as_json: bool) -> None:
    """Show what the daily job would change, without landing or sending anything.

    What is landed already is used; everything else is read anew into a folder that is removed.
    Values are masked: letters are x, digits 9.
    """
    from vibes_pipelines.orchestration.resources import ShareResource  # noqa: PLC0415 - slow
    from vibes_pipelines.settings import Settings  # noqa: PLC0415 - as above
    from vibes_pipelines.stages.preview import preview_day  # noqa: PLC0415 - as above

    today = datetime.now(UTC).replace(tzinfo=None)
    if day is not None and day > today and not Settings().has_simulated_days:
        msg = f"{day:%Y-%m-%d} is yet to come; today is {today:%Y-%m-%d} (UTC)"
        raise click.BadParameter(msg, param_hint="--day")
    chosen = f"{day or today:%Y-%m-%d}"
    connect = ShareResource().connector()
    found = preview_day(dict(os.environ), chosen, connect, lambda told: click.echo(told, err=True))
    click.echo(json.dumps(found.as_json()) if as_json else "\n".join(_lines(found)))


def _lines(found: "Preview") -> Iterator[str]:
    summary = found.summary
    yield f"{found.day}: {summary.contacts:,} contacts, {summary.persons:,} persons"
    for name in ("added", "updated", "unchanged", "filtered", "quarantined", "pending", "blocked"):
        yield f"  {name:12} {getattr(summary, name):>9,}"
    yield f"  {'persons only':12} {summary.persons_only:>9,}   nobody in the CRM points to them"
    yield from _what_goes(found)
    yield from _quarantine(found)
    yield from _samples(found)
    yield from _held(found)
    yield from _approving(found)


def _what_goes(found: "Preview") -> Iterator[str]:
    if found.went:
        yield "went already"
        for status, rows in found.went.items():
            yield f"  {_WENT.get(status, status):12} {rows:>9,}"
    yield "would go"
    for road, text in _ROADS.items():
        kinds = {
            name.rpartition("/")[2]: rows
            for name, rows in found.operations.items()
            if name.startswith(f"{road}/")
        }
        if kinds:
            counted = ", ".join(f"{rows:,} {kind}" for kind, rows in sorted(kinds.items()))
            seconds = found.seconds.get(road)
            about = f", about {max(seconds, 1):,.0f} s" if seconds else ""
            yield f"  {text}: {counted}{about}"
    if found.unanswered:
        yield f"  of these {found.unanswered:,} were sent and have no answer yet"
    for why, rows in found.deferred.items():
        yield f"  not today: {rows:,} {why}"
    if not found.operations:
        yield "  nothing"
    yield f"  cost: {found.calls:,} API calls, {found.files:,} import files"


def _quarantine(found: "Preview") -> Iterator[str]:
    summary = found.summary
    if summary.quarantine_kinds:
        rows = sum(summary.quarantine_kinds.values())
        yield (
            f"quarantine: {summary.quarantined:,} contacts and {summary.quarantined_persons:,} "
            f"persons, for {rows:,} reasons; not acted on until somebody decides"
        )
        for kind, rows in sorted(summary.quarantine_kinds.items()):
            yield f"  {kind:24} {rows:>9,}"


def _samples(found: "Preview") -> Iterator[str]:
    if found.samples:
        yield "samples, masked"
        for one in found.samples:
            change = f"{one.before or 'nothing'} -> {one.after or 'nothing'}"
            yield f"  {one.operation:6} {one.field:22} {change}   ({one.reason})"


def _held(found: "Preview") -> Iterator[str]:
    for message in dict.fromkeys(breach.message for breach in found.summary.breaches):
        yield f"held by a guard: {message}"
    for lane, why in found.held.items():
        reason = why.partition("; vibes-pipelines approve")[0]
        yield f"held: {lane}: {reason}"


def _approving(found: "Preview") -> Iterator[str]:
    yield "nothing was landed or sent"
    if found.is_through:
        yield "nothing is left of this day that a job would send"
    elif found.held:
        yield (
            "next: run the daily job for this day; it holds its diff set and names the hash. "
            "`vibes-pipelines approve <hash> --reason TEXT` releases all of the above at once, "
            "your reason stays in the ledger, and the job repush, with effects, sends it."
        )
        yield "later days go out by themselves, unless a guard holds them or the mapping changes"
    elif found.is_planned:
        yield "next: the job repush, with effects, sends what is left; no approval is needed"
    else:
        yield "next: the daily job with effects sends this; no approval is needed"
