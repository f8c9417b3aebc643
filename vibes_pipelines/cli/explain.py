"""`vibes-pipelines explain`: everything that is stored about one person, for an operator."""

from datetime import date

import click


def parse_day(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """The callback of a `--day` option: an ISO date."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as malformed:
        raise click.BadParameter(f"{text!r} is not a day; example: 2026-01-31") from malformed


@click.command()
@click.argument("person")
@click.option("--field", help="Only this: a custom field, a list, or its CRM column.")
@click.option("--day", callback=parse_day, help="Only this day, e.g. 2026-01-31.")
@click.option(
    "--destination",
    type=click.Choice(["vibes", "apsis"]),
    default="vibes",
    show_default=True,
    help="Of which destination.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def explain(
    person: str, field: str | None, day: str | None, destination: str, *, as_json: bool
) -> None:
    """Say why a person has the values it has, and what became of every change.

    PERSON is the contact's key (the external_person_id), else a person_key, else an mdn in E.164.
    Days come newest first, from what is stored; nothing outside is asked.

    Personal values are printed in clear, for you asked for this one person. Nothing is logged; mind
    where you copy it.
    """
    from vibes_pipelines.reconcile.destinations import DESTINATIONS  # noqa: PLC0415 - slow to import
    from vibes_pipelines.report.explain import UnknownFieldError  # noqa: PLC0415 - slow to import
    from vibes_pipelines.report.explain import explain as explain_person  # noqa: PLC0415
    from vibes_pipelines.report.explain_render import render  # noqa: PLC0415
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415

    with open_project(None, DESTINATIONS[destination], may_create=False) as project:
        try:
            explanation = explain_person(project, person, field, day)
        except UnknownFieldError as unmapped:
            raise click.BadParameter(str(unmapped), param_hint="--field") from unmapped
    click.echo(explanation.to_json() if as_json else render(explanation))
