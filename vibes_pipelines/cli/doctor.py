"""`vibes-pipelines doctor`: everything that a set-up needs, one line for each look."""

import json
import os
import sys
from datetime import date

import click

from vibes_pipelines.cli.env_file import read_env_file


@click.command()
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Judge share and extracts for this day (UTC); default: today.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def doctor(day: date | None, *, as_json: bool) -> None:
    """Check every connection, object, column, right, list, clock and folder; changes nothing.

    One line each: ok, warn, fail with its cure, or not checked, because of what it waits for. Exit
    code 1 when anything failed. The SFTP account is opened once, and never inside its gap.
    """
    from vibes_pipelines.orchestration.resources import ShareResource  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.doctor.bench import Bench  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.doctor.findings import Line  # noqa: PLC0415
    from vibes_pipelines.stages.doctor.registry import CHECKS  # noqa: PLC0415
    from vibes_pipelines.stages.doctor.run import examine, is_well  # noqa: PLC0415

    environment = dict(os.environ)

    def tell(line: Line) -> None:
        if not as_json:
            click.echo(line.text)

    chosen = f"{day:%Y-%m-%d}" if day else ""
    with Bench(environment, ShareResource().connector(), chosen, env_file=read_env_file()) as bench:
        lines = examine(bench, CHECKS, tell)
    if as_json:
        click.echo(json.dumps([line.as_json() for line in lines]))
    else:
        click.echo(_summary([line.status for line in lines]))
    if not is_well(lines):
        sys.exit(1)


def _summary(statuses: list[str]) -> str:
    counted = ", ".join(
        f"{statuses.count(status)} {status}"
        for status in ("ok", "warn", "fail", "not checked")
        if status in statuses
    )
    then = (
        "cure what failed, then run it again"
        if "fail" in statuses
        else "next: vibes-pipelines preview"
    )
    return f"{counted}; {then}"
