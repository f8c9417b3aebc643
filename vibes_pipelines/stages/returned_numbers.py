"""Contacts that are new and have the number of somebody who was erased: perhaps the same person.

They go into quarantine as `erased_number` until somebody says that they are a new person. Who is at
the platform already, and who was there before the erasure, is not doubted.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.reconcile.decisions import COLUMNS, CONTACT_RECORD, ERASED_NUMBER
from vibes_pipelines.reconcile.destinations import VIBES
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.identifiers import contact_identifiers, person_identifiers
from vibes_pipelines.reconcile.judged_phones import judge_phones
from vibes_pipelines.reconcile.narrow import region_of
from vibes_pipelines.reconcile.sources import open_source
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.stages.masking import hash_key, keyed_hash
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.quarantine_desk import DECISIONS, decisions_file
from vibes_pipelines.store.erased_numbers import ErasedNumbers
from vibes_pipelines.store.snapshots import Snapshot


def decisions_of(
    project: Project, day: str, folder: Path, contacts: Snapshot, persons: Snapshot
) -> Path | None:
    """The decisions that count on `day`, with a row for each contact that is in doubt."""
    decisions = decisions_file(project, day, folder)
    doubted = _doubted(project, day, contacts, persons)
    if not doubted:
        return decisions
    rows = [
        {"action": ERASED_NUMBER, "source": "contact", "record": f"{CONTACT_RECORD}{key}"}
        for key in doubted
    ]
    path = folder / DECISIONS
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    tables = [pq.read_table(decisions, schema=schema)] if decisions else []
    pq.write_table(pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema)]), path)
    return path


def _doubted(project: Project, day: str, contacts: Snapshot, persons: Snapshot) -> list[str]:
    if project.destination is not VIBES or project.config.contacts.mdn is None:
        return []
    with closing(ErasedNumbers(project.settings.inbox_url)) as book:
        erased = book.in_doubt(day)
    if not erased:
        return []
    key = hash_key(project.settings.keys_home)
    return sorted(
        contact
        for contact, number in _numbers_of_new(project, contacts, persons)
        if keyed_hash(f"+{number}", key) in erased
    )


def _numbers_of_new(
    project: Project, contacts: Snapshot, persons: Snapshot
) -> list[tuple[str, int]]:
    """(contact key, number without its plus) of contacts that are no person's external id."""
    with (
        tempfile.TemporaryDirectory(prefix="returned-") as workspace,
        engine(Limits(), Path(workspace)) as duck,
    ):
        new = open_source(duck, "contacts", contacts.folder, Path(workspace))
        there = open_source(duck, "persons", persons.folder, Path(workspace))
        named = contact_identifiers(project.config, new)
        if named.phone is None:
            return []
        at_the_platform = person_identifiers(project.config, there).key
        duck.execute(
            f"CREATE TEMP TABLE fresh AS SELECT key, phone FROM"
            f" (SELECT {named.key} AS key, {as_text(*named.phone)} AS phone FROM {new.relation})"
            f" WHERE key IS NOT NULL AND phone IS NOT NULL AND key NOT IN"
            f" (SELECT known FROM (SELECT {at_the_platform} AS known FROM {there.relation})"
            f" WHERE known IS NOT NULL)"
        )
        judge_phones(duck, "SELECT phone FROM fresh", region_of(project.config))
        found: list[tuple[str, int]] = duck.execute(
            "SELECT DISTINCT key, mdn FROM fresh JOIN judged_phone USING (phone)"
            " WHERE mdn IS NOT NULL"
        ).fetchall()
    return found
