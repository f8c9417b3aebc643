"""`vibes-pipelines report`: the daily report as a page to read."""

import webbrowser
from datetime import UTC, datetime

import click

from vibes_pipelines.cli.explain import parse_day


@click.command()
@click.option("--day", callback=parse_day, help="The day, e.g. 2026-01-31; default: the newest.")
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def report(day: str | None, *, opens: bool) -> None:
    """Write the page of a day and the index over days; print where the page is.

    The pages are in the folder `reports` of VIBES_HOME. They hold counts and masks, no personal
    data, and need no network. Nothing is landed, planned or sent.
    """
    from vibes_pipelines.report.day_page import landed_days, write_report  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - slow to import

    with open_project(may_create=False) as project:
        landed = landed_days(project)
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        if day is not None and day > today and not project.settings.has_simulated_days:
            msg = f"{day} is yet to come; today is {today} (UTC)"
            raise click.BadParameter(msg, param_hint="--day")
        if day is None and not landed:
            msg = "no day is landed yet; run the daily job, or `vibes-pipelines demo`, first"
            raise click.ClickException(msg)
        page = write_report(project, day or landed[-1])
    click.echo(page)
    if opens and not webbrowser.open(page.as_uri()):
        click.echo("no browser could be started; open the file yourself", err=True)
