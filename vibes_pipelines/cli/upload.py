"""`vibes-pipelines upload-files`: import files for the upload page, when SFTP cannot be used."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vibes_pipelines.stages.handing_over import ForUpload
    from vibes_pipelines.vibes.import_writer import WrittenFile

NOT_ALL = 1
HELD = 3

UNTIL = "at once, before the next daily run"
THEN = (
    f"upload {UNTIL}; afterwards delete, do not upload: newer values may have been sent, which an "
    "older file would set back"
)
MEANWHILE = (
    "crm_change_sensor may carry newer values meanwhile: stop it (opt-outs of the CRM wait then), "
    "and start it once the page has imported the files; or run this again right before you upload: "
    "what was overtaken is named"
)
OVERTAKEN = (
    "something newer became known since it was handed over: delete it, do not upload; what the "
    "platform does not show after the visibility lag is sent anew"
)
NOT_THERE = (
    "handed over before, and not there any more. If they were uploaded, all is well. If they are "
    "lost, no job sends their rows today: of opt-outs the next day's diff set sends anew what the "
    "platform does not show, of persons one after the visibility lag"
)


def today() -> str:
    """The day that runs now, in UTC like the partitions."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


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
    them at once, before the next daily run; afterwards delete them, do not upload: a file of an
    earlier day sets back what was sent since. So does one whose rows real time has overtaken: stop
    crm_change_sensor, if you have it, until the page has imported the files.

    It hands over what is reconciled. Where today is not, it says so and ends with 1.

    Run again it writes nothing twice, and lists what was handed over and still stands there; what
    does not (ends with 1); whose rows were overtaken (ends with 1); and files of other diff sets in
    the folder.
    """
    from vibes_pipelines.stages.handing_over import hand_over_files  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project, _half_told() as told:
        found = hand_over_files(project, out.absolute(), also_begun=also_begun, tell=told.append)
    click.echo(json.dumps(_as_json(found)) if as_json else "\n".join(_lines(found)))
    _end_with_what_is_not_there(found, also_begun=also_begun)


def _end_with_what_is_not_there(found: "ForUpload", *, also_begun: bool) -> None:
    not_all = [*_of_another_day(found), *_not_there(found), *_begun(found, also_begun=also_begun)]
    for line in (*(f"held: {lane}: {why}" for lane, why in found.held.items()), *not_all):
        click.echo(line, err=True)
    if found.held:
        sys.exit(HELD)
    if not_all or any(handed.overtaken for handed in found.lanes.values()):
        sys.exit(NOT_ALL)


def _of_another_day(found: "ForUpload") -> Iterator[str]:
    now = today()
    if found.day < now:
        yield (
            f"the newest diff set is of {found.day}: {now} is not reconciled, and nothing of it is "
            "in a file. Its opt-outs leave by API where real time carries them (callback_inbox, "
            "crm_change_sensor), else when the day is reconciled; without SFTP it cannot be where "
            "sync.yaml lands extracts"
        )


def _not_there(found: "ForUpload") -> Iterator[str]:
    gone = [(lane, file) for lane, handed in found.lanes.items() for file in handed.not_there]
    if gone:
        yield f"files: {len(gone)}, {NOT_THERE}:"
        yield from (f"{_line(file)}, {lane}" for lane, file in gone)


def _begun(found: "ForUpload", *, also_begun: bool) -> Iterator[str]:
    begun = _count_begun(found)
    if begun:
        cure = (
            "none of their rows is left to be handed over: something newer became known"
            if also_begun
            else "--also-begun hands them over, too"
        )
        yield (
            f"files begun on the file server: {begun}; whether they arrived is not known. The jobs "
            f"look for them there when it is back, and send again what did not arrive; {cure}"
        )


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
    lanes = found.lanes.items()
    return {
        "day": found.day,
        "is_of_today": found.day >= today(),
        "upload": UNTIL,
        "files": [
            {
                "lane": lane,
                "path": str(file.path),
                "rows": file.rows,
                "handed_over_before": before,
                "overtaken": handed.overtaken.get(file.path, 0),
            }
            for lane, handed in lanes
            for before, files in ((True, handed.before), (False, handed.files))
            for file in files
        ],
        "not_there": [
            {"lane": lane, "path": str(file.path), "rows": file.rows}
            for lane, handed in lanes
            for file in handed.not_there
        ],
        "old": [str(path) for path in found.old],
        "withdrawn": sum(handed.withdrawn for _, handed in lanes),
        "begun": _count_begun(found),
        "held": dict(found.held),
    }


def _lines(found: "ForUpload") -> Iterator[str]:
    yield from _of_the_lanes(found)
    withdrawn = sum(handed.withdrawn for handed in found.lanes.values())
    if withdrawn:
        yield f"{withdrawn:,} rows were taken out: something newer became known"
    if found.old:
        yield "of another diff set, or held: delete, do not upload:"
        yield from map(str, found.old)


def _of_the_lanes(found: "ForUpload") -> Iterator[str]:
    lanes = found.lanes.values()
    good = [file for one in lanes for file in one.before if file.path not in one.overtaken]
    new = [file for one in lanes for file in one.files]
    for handed in lanes:
        yield from (f"{_line(f)}, handed over before" for f in handed.before if f in good)
        yield from map(_line, handed.files)
    count = len(good) + len(new)
    if count:
        yield f"files of {found.day}: {count}, to be uploaded in this order; {THEN}"
        if found.in_real_time:
            yield MEANWHILE
        yield "the next days compare what the platform shows, and send anew what is missing"
    else:
        yield f"{found.day}: no file waits to be handed over"
    for handed in lanes:
        for path, rows in handed.overtaken.items():
            yield f"{path}  overtaken rows: {rows:,}; {OVERTAKEN}"


def _line(file: "WrittenFile") -> str:
    return f"{file.path}  {file.rows:,} rows"


def _count_begun(found: "ForUpload") -> int:
    return sum(handed.begun for handed in found.lanes.values())
