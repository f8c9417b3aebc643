"""Phase one: both sides as narrow tables of identifiers, a fingerprint and a few flags.

`contact`: row_number, contact_key, person_key, mdn (E.164), mdn_text (what was not E.164), passes
(the sync conditions), has_issue, fingerprint, and per consent `state_i`, `changed_at_i`.
`person`: row_number, person_key, external_person_id, mdn, fingerprint. Equal fingerprints mean
equal values of every mapped field; the payload itself is read later, for few rows.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.reconcile.conditions import condition
from vibes_pipelines.reconcile.consent import (
    UNREADABLE,
    changed_at_columns,
    state_column,
)
from vibes_pipelines.reconcile.phone import digits, is_e164_text, quick_e164, to_e164_each
from vibes_pipelines.reconcile.sources import ROW, Source
from vibes_pipelines.reconcile.sql import all_of, any_of
from vibes_pipelines.reconcile.values import Quick, as_text, quick
from vibes_pipelines.sync_config import SyncConfig

_NO_REGION = "ZZ"
_PHONE_BATCH = 50_000


def build_contact(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source, persons: Source
) -> None:
    """Creates table `contact`.

    Raises:
        ReconcileError: for a column that the sync config maps and the contacts do not have.
    """
    connection.execute(_contact_sql(config, contacts, persons))
    if config.contacts.mdn is not None:
        _ask_the_library(connection, "contact", config.contacts.mdn.default_region)


def build_person(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source, persons: Source
) -> None:
    """Creates table `person`.

    Raises:
        ReconcileError: for a custom field or identifier that the persons do not have.
    """
    connection.execute(_person_sql(config, contacts, persons))
    region = config.contacts.mdn.default_region if config.contacts.mdn else _NO_REGION
    _ask_the_library(connection, "person", region)
    connection.execute(
        "UPDATE person SET mdn = mdn_text, mdn_text = NULL WHERE mdn_text IS NOT NULL"
    )


def _contact_sql(config: SyncConfig, contacts: Source, persons: Source) -> str:
    key = as_text(*contacts.column(config.contacts.key, "contacts.key"))
    person_key, mdn_text, region = "NULL::VARCHAR", "NULL::VARCHAR", _NO_REGION
    if config.contacts.person_key is not None:
        column = contacts.column(config.contacts.person_key, "contacts.person_key")
        person_key = f"lower({as_text(*column)})"
    if config.contacts.mdn is not None:
        mdn_text = as_text(*contacts.column(config.contacts.mdn.column, "contacts.mdn.column"))
        region = config.contacts.mdn.default_region
    passes = all_of(condition(one, contacts) for one in config.contacts.conditions)
    inner = [
        f"{ROW} AS row_number",
        f"{key} AS contact_key",
        f"{person_key} AS person_key",
        f"{mdn_text} AS phone",
        f"{passes} AS passes",
    ]
    stand_ins = _stand_ins(config, contacts, persons)
    inner += [f"{one.contact} AS quick_{index}" for index, one in enumerate(stand_ins)]
    marks, kept = [one.doubt for one in stand_ins if one.doubt is not None], []
    for index, consent in enumerate(config.consents):
        changed_at, is_unreadable = changed_at_columns(consent, contacts)
        inner += [
            f"{state_column(consent, contacts)} AS state_{index}",
            f"{changed_at} AS changed_at_{index}",
            f"{is_unreadable} AS is_unreadable_{index}",
        ]
        kept += [f"state_{index}", f"changed_at_{index}", f"is_unreadable_{index}"]
        marks += [f"state_{index} = {UNREADABLE}", f"is_unreadable_{index}"]
    return f"""
        CREATE TEMP TABLE contact AS
        WITH cell AS (SELECT {", ".join(inner)} FROM {contacts.relation}),
             dialled AS (SELECT *, {digits("phone")} AS dialled FROM cell),
             numbered AS (SELECT *, {quick_e164("dialled", region)} AS mdn FROM dialled)
        SELECT row_number, contact_key, person_key, mdn, passes,
               {_fingerprint(len(stand_ins))} AS fingerprint,
               CASE WHEN mdn IS NULL THEN phone END AS mdn_text,
               {any_of(marks)} AS has_issue{"".join(f", {name}" for name in kept)}
        FROM numbered"""


def _person_sql(config: SyncConfig, contacts: Source, persons: Source) -> str:
    external = as_text(*persons.column("external_person_id", "contacts.key (persons input)"))
    person_key, mdn = "NULL::VARCHAR", "NULL::VARCHAR"
    if persons.has("person_key") or config.contacts.person_key or config.consents:
        column = persons.column("person_key", "contacts.person_key or consents (persons input)")
        person_key = f"lower({as_text(*column)})"
    if persons.has("mdn") or config.contacts.mdn:
        mdn = as_text(*persons.column("mdn", "contacts.mdn (persons input)"))
    stand_ins = _stand_ins(config, contacts, persons)
    named = [f"{one.person} AS quick_{index}" for index, one in enumerate(stand_ins)]
    return f"""
        CREATE TEMP TABLE person AS
        WITH cell AS (SELECT {ROW} AS row_number, {person_key} AS person_key,
                             {external} AS external_person_id, {mdn} AS phone, {", ".join(named)}
                      FROM {persons.relation}),
             numbered AS (SELECT *, CASE WHEN {is_e164_text("phone")} THEN phone END AS mdn
                          FROM cell)
        SELECT row_number, person_key, external_person_id, mdn,
               {_fingerprint(len(stand_ins))} AS fingerprint,
               CASE WHEN mdn IS NULL THEN phone END AS mdn_text
        FROM numbered"""


def _stand_ins(config: SyncConfig, contacts: Source, persons: Source) -> list[Quick]:
    return [
        quick(
            field,
            contacts.column(field.from_, f"fields.from: {field.from_}"),
            persons.column(field.to, f"fields.to: {field.to}"),
            f"quick_{index}",
        )
        for index, field in enumerate(config.fields)
    ]


def _fingerprint(fields: int) -> str:
    return f"hash({', '.join(f'quick_{index}' for index in range(fields))})"


def _ask_the_library(connection: duckdb.DuckDBPyConnection, table: str, region: str) -> None:
    """Turns `mdn_text` into `mdn` wherever phonenumbers can; each distinct text is asked once."""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE odd_phone AS
        SELECT mdn_text, row_number() OVER () AS position
        FROM (SELECT DISTINCT mdn_text FROM {table} WHERE mdn_text IS NOT NULL)""")
    connection.execute("CREATE OR REPLACE TEMP TABLE phone (mdn_text VARCHAR, mdn VARCHAR)")
    [(odd,)] = connection.execute("SELECT count(*) FROM odd_phone").fetchall()
    for first in range(1, odd + 1, _PHONE_BATCH):
        rows = connection.execute(
            "SELECT mdn_text FROM odd_phone WHERE position BETWEEN ? AND ?",
            [first, first + _PHONE_BATCH - 1],
        ).fetchall()
        known = [pair for pair in to_e164_each((t for (t,) in rows), region) if pair[1] is not None]
        connection.execute(
            "INSERT INTO phone SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
            [[text for text, _ in known], [mdn for _, mdn in known]],
        )
    connection.execute(f"""
        UPDATE {table} SET mdn = phone.mdn, mdn_text = NULL
        FROM phone WHERE {table}.mdn_text = phone.mdn_text""")
