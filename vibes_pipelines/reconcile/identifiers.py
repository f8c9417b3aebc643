"""Identifiers of both sides: their canonical texts, and the hashes that stand in for them.

Comparing hashes is several times cheaper than comparing texts. Every equality of hashes that leads
to an effect or a finding is checked on the texts, and a collision makes the reconcile start again
with another salt. A contact and a person of equal values, which need nothing, are left paired by a
64-bit hash of the key alone.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.sync_config import SyncConfig

NONE = "NULL::VARCHAR"
IDENTIFIERS = ("key", "person_key", "mdn")
"""The columns of the narrow rows that identify a contact or person."""


class HashCollision(Exception):  # noqa: N818 - it is no error: the run starts again
    """Two different identifiers of this input have one hash."""


@dataclass(frozen=True)
class Identifiers:
    """SQL over one input: the clean texts of its identifiers, `NONE` where the side has none.

    `key` is the contact's key or the person's external_person_id; `phone` is (column, type).
    """

    key: str
    person_key: str
    phone: tuple[str, str] | None


def texts_sql(side: str, rows_sql: str) -> str:
    """SQL for row_number, key, person_key, mdn, all as texts, of some rows of contact or person."""
    return f"SELECT * FROM {side}_text WHERE row_number IN ({rows_sql})"


def contact_identifiers(config: SyncConfig, contacts: Source) -> Identifiers:
    """The identifiers of the contacts.

    Raises:
        ReconcileError: for a column that the sync config maps and the contacts do not have.
    """
    wanted = config.contacts
    key = as_text(*contacts.column(wanted.key, "contacts.key"))
    person_key, phone = NONE, None
    if wanted.person_key is not None:
        person_key = _person_key(contacts.column(wanted.person_key, "contacts.person_key"))
    if wanted.mdn is not None:
        phone = contacts.column(wanted.mdn.column, "contacts.mdn.column")
    return Identifiers(key, person_key, phone)


def person_identifiers(config: SyncConfig, persons: Source) -> Identifiers:
    """The identifiers of the persons; those that the sync config does not use may be missing.

    Raises:
        ReconcileError: for an identifier that the sync config uses and the persons do not have.
    """
    key = as_text(*persons.column("external_person_id", "contacts.key (persons input)"))
    person_key, phone = NONE, None
    if persons.has("person_key") or config.contacts.person_key or config.consents:
        wanted_by = "contacts.person_key or consents (persons input)"
        person_key = _person_key(persons.column("person_key", wanted_by))
    if persons.has("mdn") or config.contacts.mdn:
        phone = persons.column("mdn", "contacts.mdn (persons input)")
    return Identifiers(key, person_key, phone)


def hashed(text: str, salt: int) -> str:
    """SQL for the hash of an identifier's clean text, which should be a column; NULL has none."""
    salted = f"{text}, {salt}" if salt else text
    return f"CASE WHEN {text} IS NOT NULL THEN hash({salted}) END"


def refuse_collision(connection: duckdb.DuckDBPyConnection, rows_sql: str) -> None:
    """Checks that no row shows two texts with one hash.

    Raises:
        HashCollision: `rows_sql` yields a row.
    """
    if connection.execute(f"SELECT 1 FROM ({rows_sql}) LIMIT 1").fetchall():
        raise HashCollision


def _person_key(column: tuple[str, str]) -> str:
    return f"lower({as_text(*column)})"
