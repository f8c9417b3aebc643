"""`vibes-pipelines events …`: events told to the platform, and what became of them."""

import json
import sys
from typing import Any

import click


class _JsonObject(click.ParamType[Any]):
    """A JSON object such as {"order": 7}."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except ValueError as malformed:
            self.fail(f"not JSON: {malformed}", param, ctx)
        if not isinstance(found, dict):
            self.fail('not a JSON object; example: {"order": 7}', param, ctx)
        return found


_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def events() -> None:
    """Tell the platform what happened, so that it may send a message."""


@events.command("send")
@click.argument("event_type")
@click.option(
    "--key",
    required=True,
    help="What makes it the same event when this is run again, e.g. an order's number.",
)
@click.option("--contact", help="Whom it is about: the contact's key (external_person_id).")
@click.option("--mdn", help="Whom it is about: the mobile number in E.164.")
@click.option("--data", type=_JsonObject(), default="{}", help="More of event_data.")
@click.option("--debug", type=_JsonObject(), default="{}", help="Carried along to callbacks only.")
@_as_json
def send_event(
    event_type: str,
    key: str,
    contact: str | None,
    mdn: str | None,
    data: dict[str, Any],
    debug: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Send one event of EVENT_TYPE; run again with the same type and key, nothing is sent twice."""
    if not key.strip():
        msg = "is blank, which would make all events one; is a variable not set?"
        raise click.BadParameter(msg, param_hint="--key")
    from vibes_pipelines.stages.events import send_one  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    named = {"external_person_id": contact, "mdn": mdn}
    who = {name: value for name, value in named.items() if value is not None}
    with open_project() as project:
        receipt = send_one(project, event_type, key, event_data=data | who, debug_data=debug)
    told = {
        "event_id": receipt.event_id,
        "status": receipt.status,
        "error_class": receipt.error_class,
        "message": receipt.message,
    }
    _tell(told, as_json=as_json)
    if receipt.status != "accepted":
        sys.exit(1)


@events.command("send-new")
@click.option("--dry-run", is_flag=True, help="Count what is new; send nothing.")
@_as_json
def send_new(*, dry_run: bool, as_json: bool) -> None:
    """Send what is new in the table that `events` of sync.yaml names, and what is still open."""
    from dataclasses import asdict  # noqa: PLC0415 - needed here only

    from vibes_pipelines.stages.events import send_crm_events  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project() as project:
        if project.config.events is None:
            msg = (
                "sync.yaml has no section events, so that no table is read; add it (docs/events.md)"
                ", or tell single events by `events send`"
            )
            raise click.ClickException(msg)
        run = send_crm_events(project, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(asdict(run), sort_keys=True))
    else:
        click.echo(run.sentence)


@events.command("status")
@_as_json
def status(*, as_json: bool) -> None:
    """Count events by where they stand, and by what their callbacks said became of them."""
    from vibes_pipelines.stages.events import event_status  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        found = event_status(project)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for name, count in found["events"].items():
        click.echo(f"{name:22} {count}")
    for outcome in found["outcomes"]:
        said = " ".join(filter(None, (outcome["stage"], outcome["state"], outcome["reason"])))
        advice = f"; {outcome['advice']}" if outcome["advice"] else ""
        click.echo(f"outcome {said}: {outcome['callbacks']}{advice}")


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, sort_keys=True))
        return
    for name, value in told.items():
        if value is not None:
            click.echo(f"{name:22} {value}")
