"""Erasing a person at APSIS One, and from what is kept here for it alone: reads, merges, overviews.

A profile is deleted only where `destinations.apsis.when_erased` allows it: for ever, in the whole
account, with its consents and events. Otherwise what stays there is counted, for somebody to act.
An opt-out that was read there stays known under the pseudonym, as it does of everybody.
"""

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.apsis.definitions import CRM_ID, EMAIL, EMAIL_KEYSPACE
from vibes_pipelines.apsis.errors import ApsisError, ApsisLocked
from vibes_pipelines.stages.apsis_erasing_links import apsis_settings, is_of_feed
from vibes_pipelines.stages.apsis_landing import READS, known_of, newest_reads
from vibes_pipelines.stages.apsis_merges import MERGES
from vibes_pipelines.stages.apsis_opt_out_times import OPT_OUT
from vibes_pipelines.stages.apsis_sync import ApsisSync, open_apsis
from vibes_pipelines.stages.erasing_files import Naming
from vibes_pipelines.stages.erasing_parquet import count_changes, plain, rewrite_parquet, rows_with
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.store.database import open_engine, writer
from vibes_pipelines.store.models import cursors

if TYPE_CHECKING:
    from vibes_pipelines.apsis.client import ApsisClient

Answer = TypeVar("Answer")

DELETED = "apsis profile deleted"
ABSENT = "apsis profile not there"
LOCKED = "apsis profile locked"
KEPT = "apsis profile kept"
BY_ADDRESS = "apsis profile of the same address"

CURES = {
    KEPT: (
        "APSIS One: the profile stays, with its attributes, consents and events, and may be written"
        " to; delete it in APSIS One, or set destinations.apsis.when_erased: delete in sync.yaml"
        " and erase again"
    ),
    BY_ADDRESS: (
        "APSIS One: another profile, made under the e-mail address of this person, stays; look"
        " whose it is, and delete it in APSIS One"
    ),
}
"""What somebody has to do after an answer, since nothing here may."""

_OVERVIEWS = ("overview ", "overview_maybe ")
"""How the cursors begin that say who has the tag of an overview."""


def require_opt_outs_read(project: Project, subject: Subject) -> None:
    """Refuses a deletion of opt-outs that nobody has read yet, before anything is changed.

    Raises:
        ErasureError: the person opted out there since the last full sync, or APSIS One is away.
    """
    section = project.config.destinations.apsis
    if section is not None and section.when_erased == "delete":
        _ask(project, subject, _require_opt_outs_read)


def erase_at_apsis(project: Project, subject: Subject, decided_by: str) -> dict[str, int]:
    """Deletes the profile where sync.yaml allows it; returns what was found, done and left.

    Nothing where APSIS One is not set up, or the person has no contact key.

    Raises:
        ErasureError: APSIS One is away or refuses; the same erase again goes on.
    """
    return _ask(project, subject, lambda sync, key: _erase(sync, key, decided_by)) or {}


def _ask(
    project: Project, subject: Subject, do: Callable[[ApsisSync, str], Coroutine[Any, Any, Answer]]
) -> Answer | None:
    key = subject.external_person_id
    is_there = project.config.destinations.apsis is not None and apsis_settings(project.settings)
    if key is None or not is_there:
        return None
    try:
        with open_apsis(project.settings) as sync:
            return run_until_interrupted(do(sync, key))
    except ApsisError as failed:
        msg = f"APSIS One did not confirm the erasure: {failed}; run the same erase again"
        raise ErasureError(msg) from failed


async def _require_opt_outs_read(sync: ApsisSync, key: str) -> None:
    async with sync.client() as client:
        try:
            consents = await client.consents(key) or ()
        except ApsisLocked:
            return
    lists = {consent.list for consent in sync.section.consents}
    there = {f"{one.topic}|{one.channel}" for one in consents if one.type == OPT_OUT} & lists
    known = known_of(sync, newest_reads(sync), [key]).get(key)
    read = known.consents if known else {}
    if any(read.get(name, {}).get("type") != OPT_OUT for name in there):
        msg = (
            "the person opted out at APSIS One since the last full sync; run one, so that the CRM "
            "learns of it, then erase again"
        )
        raise ErasureError(msg)


async def _erase(sync: ApsisSync, key: str, decided_by: str) -> dict[str, int]:
    from vibes_pipelines.apsis.profiles import DeletionPermission  # noqa: PLC0415 - as its client

    async with sync.client() as client, sync.client(EMAIL_KEYSPACE) as by_address:
        try:
            profile = await client.profile(key)
        except ApsisLocked:
            return {LOCKED: 1}
        if profile is None:
            return {ABSENT: 1}
        answers = await _of_the_same_address(by_address, key, profile.attributes.get(EMAIL))
        if sync.section.when_erased != "delete":
            return answers | {KEPT: 1}
        granted_by = f"{decided_by}, by destinations.apsis.when_erased of sync.yaml"
        await client.delete(key, DeletionPermission(granted_by, "the person is erased"))
        if await client.profile(key) is not None:
            msg = "the profile is still there after its deletion; ask APSIS Support"
            raise ApsisError(msg)
    return answers | {DELETED: 1}


async def _of_the_same_address(
    by_address: "ApsisClient", key: str, address: object
) -> dict[str, int]:
    """A form makes profiles keyed by address; several people may share one, so it is only told."""
    if not isinstance(address, str) or not address:
        return {}
    try:
        other = await by_address.profile(address)
    except ApsisLocked:
        return {}
    is_other = other is not None and other.attributes.get(CRM_ID) != key
    return {BY_ADDRESS: 1} if is_other else {}


def blank_apsis_file(path: Path, naming: Naming, *, dry_run: bool) -> int | None:
    """Blanks the person in a file that only APSIS One has; None where it is another kind of file.

    Returns the rows that are blank now; with `dry_run`, those that would be changed.
    """
    if is_of_feed(path, READS):
        column = "key"
    elif path.parent.name == MERGES:
        column = "profile"
    else:
        return None

    def find(table: pa.Table) -> list[int]:
        return sorted(rows_with(table, {column}, lambda value: naming.is_key(plain(value))))

    def change(row: dict[str, Any]) -> dict[str, Any]:
        named = {column: pseudonym(row[column], naming.key)}
        return row | named | (_blank_read(row) if column == "key" else {})

    if dry_run:
        return count_changes(path, find, change)
    return rewrite_parquet(path, {column}, find, change)


def _blank_read(row: dict[str, Any]) -> dict[str, Any]:
    """Of a read profile opt-outs stay, for an opt-out is never forgotten."""
    consents = json.loads(row["consents"])
    kept = {name: state for name, state in consents.items() if state["type"] == OPT_OUT}
    return {
        "is_found": False,
        "attributes": json.dumps({}),
        "consents": json.dumps(kept, sort_keys=True),
    }


def blank_overviews(ledger_url: str, naming: Naming, *, dry_run: bool) -> dict[str, int]:
    """Takes the person out of the lists of who has the tag of an overview; rows by table."""
    engine, found = open_engine(ledger_url), 0
    try:
        with writer(engine).begin() as connection:
            for name, value in connection.execute(sa.select(cursors.c.name, cursors.c.value)).all():
                if not name.startswith(_OVERVIEWS):
                    continue
                listed = json.loads(value)
                kept = [one for one in listed if not naming.is_key(one)]
                if kept == listed:
                    continue
                found += 1
                if not dry_run:
                    update = sa.update(cursors).where(cursors.c.name == name)
                    connection.execute(update.values(value=json.dumps(kept)))
    finally:
        engine.dispose()
    return {"overviews": found} if found else {}
