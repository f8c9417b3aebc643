"""`vibes-pipelines upload-files`: import files for the upload page, when SFTP cannot be used."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vibes_pipelines.stages.handing_over import ForUpload
    from vibes_pipelines.vibes.import_writer import WrittenFile

NOT_ALL = 1
HELD = 3

UNTIL = "before the next daily run"
THEN = (
    f"upload {UNTIL}; afterwards delete, do not upload: newer values may have been sent, which an "
    "older file would set back"
)


@click.command("upload-files")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder for the files; it is made when it is missing.",
)
@click.option(
    "--also-begun",
    is_flag=True,
    help=(
        "Hand over those files, too, whose upload to the file server was begun. If they arrived "
        "there, the second time finds every person and every opt-out as it asks for."
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def upload_files(out: Path, *, also_begun: bool, as_json: bool) -> None:
    """Write the import files of the newest diff set for the platform's upload page.

    For a day on which the SFTP account cannot be used. The files hold personal data. The ledger
    takes them for handed over: upload all of them, for no job sends their rows any more. Upload
    them before the next daily run; afterwards delete them, do not upload: a file of an earlier day
    sets back what was sent since.

    Run again it writes nothing twice, and lists what was handed over and still stands in the
    folder.
    """
    from vibes_pipelines.stages.handing_over import hand_over_files  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project, _half_told() as told:
        found = hand_over_files(project, out.absolute(), also_begun=also_begun, tell=told.append)
    click.echo(json.dumps(_as_json(found)) if as_json else "\n".join(_lines(found)))
    _end_with_what_is_not_there(found)


def _end_with_what_is_not_there(found: "ForUpload") -> None:
    for lane, why in found.held.items():
        click.echo(f"held: {lane}: {why}", err=True)
    begun = _begun(found)
    if begun:
        told = (
            f"files begun on the file server: {begun}; whether they arrived is not known. The jobs "
            "look for them there when it is back, and send again what did not arrive; --also-begun "
            "hands them over, too"
        )
        click.echo(told, err=True)
    if found.held or begun:
        sys.exit(HELD if found.held else NOT_ALL)


@contextmanager
def _half_told() -> Iterator[list["WrittenFile"]]:
    """After a failure in the middle: no list is printed, and some files are handed over."""
    recorded: list[WrittenFile] = []
    try:
        yield recorded
    except BaseException:
        standing = [file for file in recorded if file.path.is_file()]
        if standing:
            click.echo("before this failed these were handed over:", err=True)
            for line in (*map(_line, standing), THEN):
                click.echo(line, err=True)
        raise


def _as_json(found: "ForUpload") -> dict[str, Any]:
    return {
        "day": found.day,
        "upload": UNTIL,
        "files": [
            {"lane": lane, "path": str(file.path), "rows": file.rows, "handed_over_before": before}
            for lane, handed in found.lanes.items()
            for before, files in ((True, handed.before), (False, handed.files))
            for file in files
        ],
        "withdrawn": sum(handed.withdrawn for handed in found.lanes.values()),
        "begun": _begun(found),
        "held": dict(found.held),
    }


def _lines(found: "ForUpload") -> Iterator[str]:
    count = 0
    for handed in found.lanes.values():
        yield from (f"{_line(file)}, handed over before" for file in handed.before)
        yield from map(_line, handed.files)
        count += len(handed.before) + len(handed.files)
    if count:
        yield f"files of {found.day}: {count}, to be uploaded in this order; {THEN}"
        yield "the next days compare what the platform shows, and send anew what is missing"
    else:
        yield f"{found.day}: no file waits to be handed over"
    withdrawn = sum(handed.withdrawn for handed in found.lanes.values())
    if withdrawn:
        yield f"{withdrawn:,} rows were taken out: something newer became known"


def _line(file: "WrittenFile") -> str:
    return f"{file.path}  {file.rows:,} rows"


def _begun(found: "ForUpload") -> int:
    return sum(handed.begun for handed in found.lanes.values())
