"""`vibes-pipelines`: a thin face over the functions that the assets call.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 held by a guard.
"""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from vibes_pipelines.cli.callbacks import callbacks
from vibes_pipelines.cli.doctor import doctor
from vibes_pipelines.cli.env_file import env_file
from vibes_pipelines.cli.erase import erase
from vibes_pipelines.cli.events import events
from vibes_pipelines.cli.explain import explain
from vibes_pipelines.cli.init import init
from vibes_pipelines.cli.lost_runs import lost_runs
from vibes_pipelines.cli.preview import preview
from vibes_pipelines.cli.quarantine import quarantine
from vibes_pipelines.cli.report import report
from vibes_pipelines.cli.retention import retention
from vibes_pipelines.cli.tribe import tribe
from vibes_pipelines.cli.upload import upload_files
from vibes_pipelines.loading import kept_for_good, no_collections

HELD = 3
_ASKS_FOR_HELP = "vibes_pipelines.asks_for_help"
# They meet the sandbox alone, and never what the project's .env leads to.
_WITHOUT_ENV_FILE = frozenset({"demo", "sandbox"})


class _Command(click.Group):
    """Shows the errors that a user can cure as one message; any other keeps its traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ASKS_FOR_HELP] = not {"-h", "--help"}.isdisjoint(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except Exception as error:
            message = _message(error)
            if message is None:
                raise
            raise click.ClickException(message) from error


def _message(error: Exception) -> str | None:
    """What to tell of an error; None for a fault of the program."""
    if type(error).__module__.startswith("vibes_pipelines."):
        return str(error)
    import duckdb  # noqa: PLC0415 - slow to import, and needed for errors only
    import yaml  # noqa: PLC0415 - as above

    if isinstance(error, duckdb.Error):
        return str(error).partition("\n")[0]
    if isinstance(error, OSError | yaml.YAMLError):
        return " ".join(str(error).split())
    return None


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vibes-pipelines")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Keep a CRM and the Vibes Mobile Engagement Platform in agreement, and prove it.

    Settings come from the environment, else from the file .env of the working folder.
    """
    if ctx.invoked_subcommand in _WITHOUT_ENV_FILE or ctx.meta[_ASKS_FOR_HELP]:
        return
    read = ctx.with_resource(env_file())
    if read is not None:
        click.echo(f"settings that the environment lacks are read from {read}", err=True)


@main.command()
@click.option(
    "--persons",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="People in the sandbox.",
)
@click.option(
    "--days",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Simulated days; both sides are edited on the first three.",
)
@click.option(
    "--home", type=click.Path(path_type=Path), default=Path(".vibes/demo"), show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.option("--serve", is_flag=True, help="Then open the Dagster UI; the sandbox stays up.")
def demo(persons: int, days: int, home: Path, *, as_json: bool, serve: bool) -> None:
    """Run the daily job for simulated days, through Dagster, against the sandbox."""
    with no_collections():
        from vibes_pipelines.demo.run import run_demo  # noqa: PLC0415 - Dagster is slow to import

    run_demo(home.absolute(), persons, days, as_json=as_json, serve=serve)


@main.group()
def sandbox() -> None:
    """Stand-ins for the outside systems, on loopback."""


@sandbox.command("up")
@click.option(
    "--persons",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="People in the population.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".vibes/sandbox"),
    show_default=True,
)
@click.option(
    "--faults",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML with scripted faults.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the population.")
@click.option(
    "--lag-h", default=0, show_default=True, help="Age of what the share shows, in hours."
)
@click.option(
    "--switch",
    "readings",
    multiple=True,
    metavar="NAME=READING",
    help="How to read the documentation where it leaves room, e.g. extract_kinds=all; may be given "
    "more than once. docs/sandbox.md lists them.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the world in --home; people and seed as they were when it began.",
)
def sandbox_up(
    persons: int,
    home: Path,
    faults: Path | None,
    seed: int,
    lag_h: int,
    *,
    readings: tuple[str, ...],
    resume: bool,
) -> None:
    """Serve every stand-in until stopped; prints the environment that leads to them."""
    import yaml  # noqa: PLC0415 - slow to import

    from vibes_pipelines.sandbox.all_switches import AllSwitches  # noqa: PLC0415 - as above
    from vibes_pipelines.sandbox.service import serve  # noqa: PLC0415 - needs the extra `sandbox`

    named = dict(reading.partition("=")[::2] for reading in readings)
    try:
        switches = AllSwitches.from_mapping({n: yaml.safe_load(r) for n, r in named.items()})
    except (ValueError, yaml.YAMLError) as malformed:
        raise click.BadParameter(str(malformed), param_hint="--switch") from malformed
    serve(
        home.absolute(), persons, faults, seed=seed, lag_h=lag_h, resume=resume, switches=switches
    )


_FILE = click.Path(path_type=Path, exists=True)


@main.command("reconcile")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), required=True, help="sync.yaml"
)
@click.option(
    "--contacts", type=_FILE, required=True, help="Parquet, CSV or a landed snapshot folder."
)
@click.option(
    "--persons", type=_FILE, required=True, help="Parquet, CSV or a landed snapshot folder."
)
@click.option("--subscriptions", type=_FILE, multiple=True, help="May be given more than once.")
@click.option("--base", type=_FILE, help="Folder with the state both sides last agreed on.")
@click.option("--pending", type=_FILE, help="Delivered, accepted, not yet visible.")
@click.option("--blocked", type=_FILE, help="Rejected by the platform and unchanged since.")
@click.option("--as-of", help="The instant of the reconcile; default: the newest of the inputs.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the diff set.",
)
@click.option("--memory-limit", default="4GB", show_default=True)
@click.option("--threads", type=click.IntRange(1, 256))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def reconcile_files(  # noqa: PLR0913, PLR0917 - one parameter per option
    config_file: Path,
    contacts: Path,
    persons: Path,
    subscriptions: tuple[Path, ...],
    base: Path | None,
    pending: Path | None,
    blocked: Path | None,
    as_of: str | None,
    out: Path,
    memory_limit: str,
    threads: int | None,
    *,
    as_json: bool,
) -> None:
    """Write the diff set of two files; nothing is landed, approved or delivered."""
    with kept_for_good():
        from vibes_pipelines.sync_config import load_sync_config  # noqa: PLC0415
    with no_collections():
        from vibes_pipelines.reconcile.engine import Limits  # noqa: PLC0415
        from vibes_pipelines.reconcile.run import Inputs, reconcile  # noqa: PLC0415

    inputs = Inputs(
        contacts=contacts,
        persons=persons,
        subscriptions=subscriptions,
        base=base,
        pending=pending,
        blocked=blocked,
        as_of=_instant(as_of),
    )
    limits = Limits(memory_limit=_size(memory_limit), threads=threads)
    summary = reconcile(load_sync_config(config_file), inputs, out, limits)
    document = summary.to_document()
    if as_json:
        click.echo(json.dumps(document, sort_keys=True))
    else:
        for name, value in document.items():
            if isinstance(value, int | str):
                click.echo(f"{name:22} {value}")
    for message in dict.fromkeys(breach.message for breach in summary.breaches):
        click.echo(f"held: {message}", err=True)
    if summary.status == "held":
        sys.exit(HELD)


def _size(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)? ?[KMGT]i?B", text, re.ASCII | re.IGNORECASE):
        msg = f"{text!r} is not a size of memory; example: 4GB"
        raise click.BadParameter(msg, param_hint="--memory-limit")
    return text


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as malformed:
        msg = f"{text!r} is not an instant; example: 2026-01-31T06:00:00Z"
        raise click.BadParameter(msg, param_hint="--as-of") from malformed


@main.command()
@click.argument("diff_set")
@click.option("--reason", required=True, help="Why it may go out; kept in the ledger.")
@click.option(
    "--destination",
    type=click.Choice(["vibes", "apsis"]),
    default="vibes",
    show_default=True,
    help="Whose diff set.",
)
def approve(diff_set: str, reason: str, destination: str) -> None:
    """Release a held diff set. DIFF_SET is its hash, or at least six characters of it."""
    from vibes_pipelines.reconcile.destinations import DESTINATIONS  # noqa: PLC0415
    from vibes_pipelines.stages.delivering import approve as release_diff_set  # noqa: PLC0415
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415

    with open_project(None, DESTINATIONS[destination], may_create=False) as project:
        approved = release_diff_set(project, diff_set, reason)
    carriers = {
        "vibes": "the diff_set_sensor, or the job repush, delivers it",
        "apsis": "the job apsis_push, or `vibes-pipelines tribe full-sync --resume`, sends it",
    }
    click.echo(f"{approved[:12]} is approved; {carriers[destination]}")


main.add_command(callbacks)
main.add_command(doctor)
main.add_command(events)
main.add_command(explain)
main.add_command(init)
main.add_command(lost_runs)
main.add_command(preview)
main.add_command(report)
main.add_command(quarantine)
main.add_command(erase)
main.add_command(retention)
main.add_command(tribe)
main.add_command(upload_files)
