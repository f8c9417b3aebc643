"""`vibes-pipelines erase`: takes one person out of the platform and of everything we keep."""

import getpass
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vibes_pipelines.stages.erasing import Erased


@click.command()
@click.argument("person")
@click.option("--reason", required=True, help="Why; kept in the ledger. Name nobody in it.")
@click.option(
    "--by", "decided_by", default=getpass.getuser, show_default="your login", help="Who decides."
)
@click.option("--dry-run", is_flag=True, help="Only count; nothing is changed anywhere.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def erase(person: str, reason: str, decided_by: str, *, dry_run: bool, as_json: bool) -> None:
    """Erase a person: at the platform, and from every file and table here.

    PERSON is the contact's key (the external_person_id), or a person_key. Rows stay as blank ones,
    so that every count stays. Erase the person in the CRM too: until then its row is kept out, and
    stands in the quarantine as `erased`. After a failure, the same command goes on.

    Exit code 1 when an identifier is left in what is not ours to change, or is too short to
    be searched for there; when the platform was to be asked but nothing stored names the person
    there; when a profile stays at APSIS One; and when a table of PostgreSQL is too large to be
    rewritten.
    """
    from vibes_pipelines.stages.erasing import erase as erase_person  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.project import open_project  # noqa: PLC0415 - as above

    with open_project(may_create=False) as project:
        erased = erase_person(project, person, reason, decided_by, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(asdict(erased), sort_keys=True))
    else:
        verb = "would be blanked" if dry_run else "are blank"
        for name, counts in (("files", erased.files), ("ledger", erased.ledger)):
            for place, rows in counts.items():
                click.echo(f"{name:9} {place:20} {rows} rows {verb}")
        for answer, count in erased.platform.items():
            click.echo(f"platform  {answer:20} {count}")
    if _tell_what_is_left(erased):
        sys.exit(1)


def _tell_what_is_left(erased: "Erased") -> bool:
    """Says on standard error what somebody has to do; whether there is anything."""
    from vibes_pipelines.stages.apsis_erasing import CURES  # noqa: PLC0415 - slow to import
    from vibes_pipelines.stages.erasing_platform import NOBODY  # noqa: PLC0415 - as above

    told = [
        f"left: {place} still holds an identifier and is not ours to change"
        for place in erased.left
    ]
    if erased.not_searched:
        told.append(
            f"not searched: {erased.not_searched} identifiers are too short to be looked for in "
            "what is not ours; look into the storage of Dagster and the data folder yourself"
        )
    told += [
        f"not rewritten: the table {table} is too large to be locked for it, and its pages may "
        f"still hold what was blanked; run VACUUM FULL {table} in a quiet hour"
        for table in erased.not_rewritten
    ]
    if NOBODY in erased.platform:
        told.append(
            "platform: nothing stored names this person there, so nobody was erased there; look "
            "for it by its number (`explain`), and erase its person_key too"
        )
    told += [cure for answer, cure in CURES.items() if answer in erased.platform]
    for line in told:
        click.echo(line, err=True)
    return bool(told)
