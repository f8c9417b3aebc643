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

HELD = 3


@click.command("upload-files")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder for the files; it is made when it is missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def upload_files(out: Path, *, as_json: bool) -> None:
    """Write the import files of the newest diff set for the platform's upload page.

    For a day on which the SFTP account cannot be used. The files hold personal data. The ledger
    takes them for handed over: upload all of them, for no job sends their rows any more.
    """
    from vibes_pipelines.stages.handing_over import hand_over_files  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project, _half_told(out):
        found = hand_over_files(project, out.absolute())
    click.echo(json.dumps(_as_json(found)) if as_json else "\n".join(_lines(found)))
    for lane, why in found.held.items():
        click.echo(f"held: {lane}: {why}", err=True)
    if found.held:
        sys.exit(HELD)


@contextmanager
def _half_told(out: Path) -> Iterator[None]:
    """After a failure in the middle: no list of files is printed, and some may be there."""
    try:
        yield
    except BaseException:
        if out.is_dir() and any(out.iterdir()):
            told = (
                f"what stands in {out} is handed over all the same: upload it, then run this again"
            )
            click.echo(told, err=True)
        raise


def _as_json(found: "ForUpload") -> dict[str, Any]:
    return {
        "day": found.day,
        "files": [
            {"lane": lane, "path": str(file.path), "rows": file.rows}
            for lane, handed in found.lanes.items()
            for file in handed.files
        ],
        "withdrawn": sum(handed.withdrawn for handed in found.lanes.values()),
        "at_server": sum(handed.at_server for handed in found.lanes.values()),
        "held": dict(found.held),
    }


def _lines(found: "ForUpload") -> Iterator[str]:
    files = [file for handed in found.lanes.values() for file in handed.files]
    for file in files:
        yield f"{file.path}  {file.rows:,} rows"
    if files:
        yield (
            f"upload these {len(files)} in this order, then delete them; the next days compare "
            "what the platform shows and send anew what is missing"
        )
    else:
        yield f"{found.day}: no file waits to be handed over"
    withdrawn = sum(handed.withdrawn for handed in found.lanes.values())
    if withdrawn:
        yield f"{withdrawn:,} rows were taken out: something newer became known"
    at_server = sum(handed.at_server for handed in found.lanes.values())
    if at_server:
        yield f"{at_server} files went to the file server already and wait for their report there"
