"""`vibes-pipelines erase`: takes one person out of the platform and of everything we keep."""

import getpass
import json
import sys
from dataclasses import asdict

import click


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

    Exit code 1 when an identifier is left in a file that is not ours to change, or is too short to
    be searched for there; and when the platform was to be asked but nothing stored names the
    person there.
    """
    from vibes_pipelines.stages.erasing import erase as erase_person  # noqa: PLC0415 - slow
    from vibes_pipelines.stages.erasing_platform import NOBODY  # noqa: PLC0415 - as above
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
    for path in erased.left:
        click.echo(f"left: {path} still holds an identifier and is not ours to change", err=True)
    if erased.not_searched:
        click.echo(
            f"not searched: {erased.not_searched} identifiers are too short to be looked for in "
            "files that are not ours; look into DAGSTER_HOME and the data folder yourself",
            err=True,
        )
    if NOBODY in erased.platform:
        click.echo(
            "platform: nothing stored names this person there, so nobody was erased there; look "
            "for it by its number (`explain`), and erase its person_key too",
            err=True,
        )
    if erased.left or erased.not_searched or NOBODY in erased.platform:
        sys.exit(1)
