"""Which contact is which person: every link that is stored, and what an earlier erasure knew.

A link is a pair (external_person_id, person_key), each in the form in which files and tables are
searched: the person_key in lower case. A person that is linked by its number only has such a pair
in the diff set that linked it, and in the ledger.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import sqlalchemy as sa

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.decisions import CONTACT_RECORD
from vibes_pipelines.reconcile.judged_phones import judge_phones
from vibes_pipelines.reconcile.narrow import region_of
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.stages.landed_texts import landed_texts
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import PREFIX, pseudonym
from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.models import (
    callbacks,
    case_decisions,
    operations,
    realtime_operations,
)

Pair = tuple[str | None, str | None]
_NAMED = (operations, realtime_operations, callbacks)
_CHANGES = "person_changes.parquet"
TAIL = 7
"""Last digits by which texts are chosen that may be the same number, before they are judged."""


def stored_pairs(
    project: Project, engine: duckdb.DuckDBPyConnection, persons: Sequence[Path], asked: str
) -> set[Pair]:
    """The links as landed, reconciled, decided or recorded, where either side is asked for."""
    changes = sorted(project.diff_set_folder("").glob(f"????-??-??/{_CHANGES}"))
    found: set[Pair] = set()
    for files in (persons, changes):
        if files:
            found |= set(
                engine.execute(
                    "SELECT DISTINCT external_person_id, lower(person_key)"  # noqa: S608 - our own paths
                    f" FROM {parquet(*files, union_by_name=True)}"
                    " WHERE external_person_id = ? OR lower(person_key) = ?",
                    [asked, asked.lower()],
                ).fetchall()
            )
    return found | _recorded(project, asked)


def linked_by_number(
    project: Project,
    engine: duckdb.DuckDBPyConnection,
    contacts: Path,
    persons: Path,
    external: str,
) -> set[str]:
    """The person_key that the next reconcile would link to a contact by its number alone.

    As there: a person without a contact, and a number that one contact and one person have.
    """
    mapped = project.config.contacts
    if mapped.mdn is None:
        return set()
    landed = landed_texts(engine, [contacts], key=mapped.key, phone=mapped.mdn.column)
    engine.execute(
        f"CREATE OR REPLACE TEMP TABLE phoned AS SELECT {clean('key')} AS key, phone,"  # noqa: S608
        f" right(regexp_replace(phone, '[^0-9]', '', 'g'), {TAIL}) AS tail FROM {landed}"
    )
    alike = engine.execute(
        "SELECT key, phone FROM phoned WHERE tail <> '' AND tail IN"
        " (SELECT tail FROM phoned WHERE key = ?)",
        [external],
    ).fetchall()
    numbers = e164(project, engine, [phone for found, phone in alike if found == external])
    if numbers & e164(project, engine, [phone for found, phone in alike if found != external]):
        return set()
    found = engine.execute(
        f"SELECT lower(person_key), external_person_id FROM {parquet(persons)}"  # noqa: S608
        " WHERE list_contains(?, mdn)",
        [sorted(numbers)],
    ).fetchall()
    return {row[0] for row in found if len(found) == 1 and row[0] and not row[1]}


def e164(project: Project, engine: duckdb.DuckDBPyConnection, texts: Iterable[str]) -> set[str]:
    """The numbers that texts of the CRM are, each with its plus."""
    return set(e164_of(project, engine, texts).values())


def e164_of(
    project: Project, engine: duckdb.DuckDBPyConnection, texts: Iterable[str]
) -> dict[str, str]:
    """The number that each text of the CRM is; those that are none are left out."""
    engine.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT unnest(?) AS phone", [list(texts)])
    judge_phones(engine, "SELECT phone FROM given", region_of(project.config))
    found = engine.execute(
        "SELECT phone, mdn FROM judged_phone SEMI JOIN given USING (phone) WHERE mdn IS NOT NULL"
    ).fetchall()
    return {phone: f"+{mdn}" for phone, mdn in found}


def _recorded(project: Project, asked: str) -> set[Pair]:
    queries = [
        sa.select(table.c.external_person_id, sa.func.lower(table.c.person_key))
        .where(
            sa.or_(
                table.c.external_person_id == asked,
                sa.func.lower(table.c.person_key) == asked.lower(),
            )
        )
        .distinct()
        for table in _NAMED
    ]
    decided = case_decisions.c
    links = sa.select(decided.record, decided.target).where(
        decided.action == "link",
        sa.or_(decided.record == f"{CONTACT_RECORD}{asked}", decided.target == asked.lower()),
    )
    ledger = open_engine(project.settings.ledger_url)
    try:
        with ledger.begin() as connection:
            found = {(row[0], row[1]) for q in queries for row in connection.execute(q)}
            rows = connection.execute(links).all()
    finally:
        ledger.dispose()
    return found | {(row.record.removeprefix(CONTACT_RECORD), row.target) for row in rows}


def erased_before(project: Project, asked: str) -> set[Pair]:
    """Links of a person who was erased: the key asked for, and its others in callbacks since then.

    An erasure keeps pseudonyms; what came later is compared with them. Empty: nobody was erased
    who had this key.
    """
    key = hash_key(project.settings.keys_home)
    with closing(Erasures(project.settings.inbox_url)) as book:
        known = [frozenset(one.pseudonyms) for one in book.all()]
    own = {pseudonym(asked, key), pseudonym(asked.lower(), key)}
    names = frozenset[str]().union(*(one for one in known if own & one))
    if not names:
        return set()
    externals = {e for e in _arrived(project, "external_person_id") if pseudonym(e, key) in names}
    arrived = {one.lower() for one in _arrived(project, "person_key")}
    keys = {one for one in arrived if pseudonym(one, key) in names}
    if pseudonym(asked, key) not in names:
        keys.add(asked.lower())
    elif asked.lower() not in keys:
        externals.add(asked)
    external = asked if asked in externals else min(externals, default=None)
    return {(external, one) for one in keys} or {(external, None)}


def _arrived(project: Project, column: str) -> Iterable[str]:
    table = callbacks.c[column]
    query = sa.select(table).where(table.is_not(None), table.not_like(f"{PREFIX}%")).distinct()
    ledger = open_engine(project.settings.inbox_url)
    try:
        with ledger.begin() as connection:
            return set(connection.execute(query).scalars())
    finally:
        ledger.dispose()
