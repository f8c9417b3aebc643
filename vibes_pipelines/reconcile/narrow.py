"""Narrow rows: hashed identifiers, a fingerprint and a few flags, as SQL over one side.

Of contacts: row_number, key_text, person_key_text, key, person_key, mdn, passes (the sync
conditions), fingerprint, phone, has_issue and per consent `state_i`, `changed_at_i`,
`is_unreadable_i`. Of persons: the same up to phone, without passes. An mdn is the number of its
E.164; phone is the text of what is none yet. Equal fingerprints mean equal values of every mapped
field.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.conditions import condition, is_unreadable
from vibes_pipelines.reconcile.consent import (
    UNREADABLE,
    changed_at_columns,
    state_column,
)
from vibes_pipelines.reconcile.home_numbers import numbered
from vibes_pipelines.reconcile.identifiers import Identifiers, hashed
from vibes_pipelines.reconcile.judged_phones import judge_phones
from vibes_pipelines.reconcile.phone import e164_number, odd_number
from vibes_pipelines.reconcile.sources import ROW, Source
from vibes_pipelines.reconcile.sql import all_of, any_of, clean
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.sync_config import SyncConfig

_NO_REGION = "ZZ"


@dataclass(frozen=True)
class StandIn:
    """SQL that stands for one field's canonical text on one side; see `values.quick`."""

    value: str
    doubt: str | None = None


def region_of(config: SyncConfig) -> str:
    """The region of numbers without a country code; one that has none when no mdn is mapped."""
    return config.contacts.mdn.default_region if config.contacts.mdn else _NO_REGION


def quick_name(index: int) -> str:
    """The name of the stand-in of one field within the SQL below."""
    return f"quick_{index}"


def contact_rows_sql(
    config: SyncConfig,
    contacts: Source,
    ids: Identifiers,
    stand_ins: Sequence[StandIn],
    salt: int,
    raw: Sequence[str] = (),
) -> str:
    """SQL for the narrow rows of contacts; the columns `raw` are carried along as `raw_i`.

    Raises:
        ReconcileError: for a column that the sync config maps and the contacts do not have.
    """
    passes = all_of(condition(one, contacts) for one in config.contacts.conditions)
    inner = [*_identifier_texts(ids), f"{passes} AS passes", *_named(stand_ins)]
    inner += [f"{column} AS raw_{index}" for index, column in enumerate(raw)]
    marks, kept = [one.doubt for one in stand_ins if one.doubt is not None], []
    for index, one in enumerate(config.contacts.conditions):
        if one.compared_type is not None:  # who cannot be compared has not left the conditions
            inner.append(f"{is_unreadable(one, contacts)} AS is_incomparable_{index}")
            marks.append(f"is_incomparable_{index}")
    for index, consent in enumerate(config.consents):
        changed_at, unreadable = changed_at_columns(consent, contacts)
        inner += [
            f"{state_column(consent, contacts)} AS state_{index}",
            f"{changed_at} AS changed_at_{index}",
            f"{unreadable} AS is_unreadable_{index}",
        ]
        kept += consent_columns(index)
        marks += [f"state_{index} = {UNREADABLE}", f"is_unreadable_{index}"]
    kept += [f"raw_{index}" for index in range(len(raw))]
    return f"""
        WITH cell AS (SELECT {", ".join(inner)} FROM {contacts.relation}),
             {numbered("cell", "phone", region_of(config))}
        SELECT {_hashed_columns(salt)}, mdn, passes,
               {_fingerprint(len(stand_ins))} AS fingerprint, {_LEFT_OVER} AS phone,
               {any_of(marks)} AS has_issue{"".join(f", {name}" for name in kept)}
        FROM numbered"""


def person_rows_sql(
    persons: Source, ids: Identifiers, stand_ins: Sequence[StandIn], salt: int
) -> str:
    """SQL for the narrow rows of persons."""
    inner = [*_identifier_texts(ids), *_named(stand_ins)]
    return f"""
        WITH cell AS (SELECT {", ".join(inner)} FROM {persons.relation}),
             numbered AS (SELECT *, {e164_number("phone")} AS mdn FROM cell)
        SELECT {_hashed_columns(salt)}, mdn,
               {_fingerprint(len(stand_ins))} AS fingerprint, {_LEFT_OVER} AS phone
        FROM numbered"""


def consent_columns(index: int) -> list[str]:
    """The names of the columns of one consent in the narrow rows of contacts."""
    return [f"state_{index}", f"changed_at_{index}", f"is_unreadable_{index}"]


def _named(stand_ins: Sequence[StandIn]) -> list[str]:
    return [f"{one.value} AS {quick_name(index)}" for index, one in enumerate(stand_ins)]


def _identifier_texts(ids: Identifiers) -> list[str]:
    """The phone as it is given where that is text: most are numbers without any cleaning."""
    phone = "NULL::VARCHAR"
    if ids.phone is not None:
        phone = ids.phone[0] if ids.phone[1] == "VARCHAR" else as_text(*ids.phone)
    return [
        f"{ROW} AS row_number",
        f"{ids.key} AS key_text",
        f"{ids.person_key} AS person_key_text",
        f"{phone} AS phone",
    ]


def _hashed_columns(salt: int) -> str:
    key, person_key = hashed("key_text", salt), hashed("person_key_text", salt)
    return f"row_number, key_text, person_key_text, {key} AS key, {person_key} AS person_key"


_LEFT_OVER = f"CASE WHEN mdn IS NULL THEN {clean('phone')} END"


def _fingerprint(fields: int) -> str:
    return f"hash({', '.join(quick_name(index) for index in range(fields))})"


def ask_the_library(connection: duckdb.DuckDBPyConnection, table: str, region: str) -> None:
    """Turns `phone` into `mdn` wherever the rule allows; each distinct text is judged once."""
    judge_phones(connection, f"SELECT phone FROM {table} WHERE phone IS NOT NULL", region)
    connection.execute(f"""
        UPDATE {table} SET mdn = judged.mdn, phone = NULL
        FROM judged_phone judged WHERE judged.mdn IS NOT NULL AND {table}.phone = judged.phone""")


def name_odd_numbers(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """What is no phone number still is an mdn at Vibes, and may be shared: numbers below zero."""
    connection.execute(f"UPDATE {table} SET mdn = {odd_number('phone')} WHERE phone IS NOT NULL")
