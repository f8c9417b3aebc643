"""`vibes-pipelines quarantine …`: the desk where a person decides about rows in doubt."""

import getpass
import json
from typing import Literal

import click

_REASON = click.option("--reason", required=True, help="Why; kept in the ledger.")
_BY = click.option(
    "--by", "decided_by", default=getpass.getuser, show_default="your login", help="Who decides."
)
_REVEAL = click.option(
    "--reveal", is_flag=True, help="Show personal values in clear; mind where you copy them."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.group()
def quarantine() -> None:
    """Look at the rows in doubt, and decide about them with a reason."""


@quarantine.command("list")
@click.option("--kind", help="Only this kind, e.g. shared_mdn.")
@click.option("--all", "shows_all", is_flag=True, help="Also what is ignored or resolved.")
@_REVEAL
@_JSON
def list_quarantine(kind: str | None, *, shows_all: bool, reveal: bool, as_json: bool) -> None:
    """Show the cases of the newest day; values are masked."""
    from vibes_pipelines.stages.masking import hash_key  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above
    from vibes_pipelines.stages.quarantine_desk import list_cases  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        cases = list_cases(project, kind)
        key = None if reveal else hash_key(project.settings.home)
    if as_json:
        click.echo(json.dumps([case.as_json(key) for case in cases], sort_keys=True))
        return
    shown = [case for case in cases if shows_all or case.state not in {"ignored", "resolved"}]
    for case in shown:
        click.echo(case.line(key))
    hidden = len(cases) - len(shown)
    click.echo(f"{len(shown)} cases" + (f", {hidden} more with --all" if hidden else ""), err=True)


@quarantine.command("show")
@click.argument("case")
@_REVEAL
@_JSON
def show_case(case: str, *, reveal: bool, as_json: bool) -> None:
    """Show one case with its evidence. CASE is its id, or at least six characters of it."""
    from vibes_pipelines.stages.masking import hash_key  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above
    from vibes_pipelines.stages.quarantine_desk import find_case  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        found = find_case(project, case)
        key = None if reveal else hash_key(project.settings.home)
    document = found.as_json(key)
    if as_json:
        click.echo(json.dumps(document, sort_keys=True))
        return
    for name, value in document.items():
        if isinstance(value, list | tuple):
            for other in value:
                click.echo(f"{name:19} {other}")
        elif isinstance(value, dict):
            for part, told in value.items():
                click.echo(f"{name} {part:10} {'-' if told is None else told}")
        elif value is not None:
            click.echo(f"{name:19} {value}")


@quarantine.command("resolve")
@click.argument("case")
@click.option(
    "--as",
    "action",
    required=True,
    type=click.Choice(["link", "ignore", "new-person"]),
    help="link: the contact is the person of --person-key. ignore: until its evidence changes. "
    "new-person: nobody at the platform has an identifier of it.",
)
@click.option("--person-key", help="The person of a link.")
@_REASON
@_BY
def resolve_case(
    case: str,
    action: Literal["link", "ignore", "new-person"],
    person_key: str | None,
    reason: str,
    decided_by: str,
) -> None:
    """Decide about a case; the decision counts from the next day on, until it is undone."""
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.quarantine_desk import resolve  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        decision = resolve(project, case, action, reason, decided_by, person_key)
    click.echo(
        f"{decision.case_id}: {action}; counts from the first day after {decision.after_day}"
    )


@quarantine.command("undo")
@click.argument("case")
@_REASON
@_BY
def undo_case(case: str, reason: str, decided_by: str) -> None:
    """Take a decision back; the case is open again from the next day on."""
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.quarantine_desk import undo  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        undo(project, case, reason, decided_by)
    click.echo(f"{case}: undone; it is open again from the next day on")
