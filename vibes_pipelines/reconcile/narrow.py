"""Phase one: both sides as narrow rows of hashed identifiers, a fingerprint and a few flags.

`contact`: row_number, key, person_key, mdn, bad_mdn, passes (the sync conditions), has_issue,
fingerprint, and per consent `state_i`, `changed_at_i`, `is_unreadable_i`. `person`: row_number,
key (of its external_person_id), person_key, mdn, fingerprint. Here an mdn is the number of its
E.164, below zero where a person's is none. Equal fingerprints mean equal values of every mapped
field. `contact_text`, `person_text`: row_number and key, person_key and mdn as texts; where
bad_mdn, it stands as it was given.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.conditions import condition
from vibes_pipelines.reconcile.consent import (
    UNREADABLE,
    changed_at_columns,
    state_column,
)
from vibes_pipelines.reconcile.identifiers import Identifiers, hashed
from vibes_pipelines.reconcile.joins import joins_as_written
from vibes_pipelines.reconcile.phone import (
    e164_number,
    national_digits,
    odd_number,
    quick_number,
    to_e164_each,
)
from vibes_pipelines.reconcile.sources import ROW, Source
from vibes_pipelines.reconcile.sql import all_of, any_of, clean
from vibes_pipelines.reconcile.values import Quick, as_text, quick
from vibes_pipelines.sync_config import SyncConfig

_NO_REGION = "ZZ"
_PHONE_BATCH = 50_000


@dataclass(frozen=True)
class Sides:
    """Both inputs with their identifiers. `salt` makes other hashes of the same identifiers."""

    contacts: Source
    persons: Source
    contact_ids: Identifiers
    person_ids: Identifiers
    salt: int = 0


def build_contact(connection: duckdb.DuckDBPyConnection, config: SyncConfig, sides: Sides) -> None:
    """Creates `joined`, `contact`, `contact_text` and `raw_contact`; needs `person`.

    Raises:
        ReconcileError: for a column that the sync config maps and the contacts do not have.
    """
    with joins_as_written(connection):
        connection.execute(_joined_sql(config, sides))
    if config.contacts.mdn is not None:
        _ask_the_library(connection, "joined", config.contacts.mdn.default_region)
    connection.execute(_CONTACT_CELL.format(once=_once(connection, sides.contacts)))
    connection.execute("""
        CREATE TEMP VIEW contact AS
        SELECT * EXCLUDE (key_text, person_key_text, phone, raw), phone IS NOT NULL AS bad_mdn
        FROM contact_cell""")
    connection.execute(_TEXTS.format(side="contact"))


def _once(connection: duckdb.DuckDBPyConnection, contacts: Source) -> str:
    """What keeps a contact to one row where several persons have its key."""
    [(joined, rows)] = connection.execute(
        f"SELECT count(contact_row), (SELECT count(*) FROM {contacts.relation}) FROM joined"
    ).fetchall()
    return "DISTINCT ON (contact_row)" if joined > rows else ""


def build_person(connection: duckdb.DuckDBPyConnection, config: SyncConfig, sides: Sides) -> None:
    """Creates `person`.

    Raises:
        ReconcileError: for a custom field or identifier that the persons do not have.
    """
    connection.execute(_person_sql(config, sides))
    region = config.contacts.mdn.default_region if config.contacts.mdn else _NO_REGION
    _ask_the_library(connection, "person_cell", region)
    connection.execute(f"""
        UPDATE person_cell SET mdn = {odd_number("phone")} WHERE phone IS NOT NULL""")
    connection.execute("""
        CREATE TEMP VIEW person AS
        SELECT * EXCLUDE (key_text, person_key_text, phone) FROM person_cell""")
    connection.execute(_TEXTS.format(side="person"))


def _joined_sql(config: SyncConfig, sides: Sides) -> str:
    """The contacts stream past the persons once, and those that differ keep their raw values."""
    contacts = sides.contacts
    region = config.contacts.mdn.default_region if config.contacts.mdn else _NO_REGION
    passes = all_of(condition(one, contacts) for one in config.contacts.conditions)
    stand_ins = _stand_ins(config, sides)
    inner = [*_identifier_texts(sides.contact_ids), f"{passes} AS passes"]
    inner += [f"{one.contact} AS quick_{index}" for index, one in enumerate(stand_ins)]
    raw = sorted({contacts.column(f.from_, f"fields.from: {f.from_}")[0] for f in config.fields})
    inner += [f"{column} AS raw_{index}" for index, column in enumerate(raw)]
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
    raw_columns = "".join(f", raw_{index}" for index in range(len(raw)))
    packed = ", ".join(f"{column}: raw_{index}" for index, column in enumerate(raw))
    return f"""
        CREATE TEMP TABLE joined AS
        WITH cell AS (SELECT {", ".join(inner)} FROM {contacts.relation}),
             called AS (SELECT *, {national_digits("phone", region)} AS national FROM cell),
             numbered AS (SELECT *, {quick_number("national")} AS mdn FROM called),
             c AS (SELECT {_hashed_columns(sides.salt)}, mdn, passes,
                          {_fingerprint(len(stand_ins))} AS fingerprint, {_LEFT_OVER} AS phone,
                          {any_of(marks)} AS has_issue{"".join(f", {name}" for name in kept)}
                          {raw_columns}
                   FROM numbered)
        SELECT c.row_number AS contact_row, c.key_text, c.person_key_text, c.key, c.person_key,
               c.mdn, c.phone, c.passes, c.has_issue{"".join(f", c.{name}" for name in kept)},
               p.row_number AS person_row, p.key AS linked_key, p.person_key AS linked_person_key,
               p.mdn AS linked_mdn, c.fingerprint <> p.fingerprint AS differs,
               CASE WHEN c.row_number IS NOT NULL AND ({_IS_WANTED}) THEN [{{{packed}}}] END AS raw
        FROM c FULL JOIN person p ON c.key = p.key"""


# Whose values may be asked for: what differs, and what is not sure to be paired by its key.
_IS_WANTED = """
    p.row_number IS NULL OR c.fingerprint <> p.fingerprint OR c.has_issue OR c.phone IS NOT NULL
    OR coalesce(c.mdn <> p.mdn, c.mdn IS NOT NULL)
    OR coalesce(c.person_key <> p.person_key, c.person_key IS NOT NULL)"""

_CONTACT_CELL = """
    CREATE TEMP VIEW contact_cell AS
    SELECT {once} contact_row AS row_number,
           * EXCLUDE (contact_row, person_row, linked_key, linked_person_key, linked_mdn, differs)
    FROM joined WHERE contact_row IS NOT NULL"""


def _person_sql(config: SyncConfig, sides: Sides) -> str:
    stand_ins = _stand_ins(config, sides)
    inner = _identifier_texts(sides.person_ids)
    inner += [f"{one.person} AS quick_{index}" for index, one in enumerate(stand_ins)]
    return f"""
        CREATE TEMP TABLE person_cell AS
        WITH cell AS (SELECT {", ".join(inner)} FROM {sides.persons.relation}),
             numbered AS (SELECT *, {e164_number("phone")} AS mdn FROM cell)
        SELECT {_hashed_columns(sides.salt)}, mdn,
               {_fingerprint(len(stand_ins))} AS fingerprint, {_LEFT_OVER} AS phone
        FROM numbered"""


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


_TEXTS = """
    CREATE TEMP VIEW {side}_text AS
    SELECT row_number, key_text AS key, person_key_text AS person_key,
           CASE WHEN mdn > 0 THEN '+' || mdn ELSE phone END AS mdn,
           phone IS NOT NULL AS bad_mdn
    FROM {side}_cell"""

_LEFT_OVER = f"CASE WHEN mdn IS NULL THEN {clean('phone')} END"


def _stand_ins(config: SyncConfig, sides: Sides) -> list[Quick]:
    return [
        quick(
            field,
            sides.contacts.column(field.from_, f"fields.from: {field.from_}"),
            sides.persons.column(field.to, f"fields.to: {field.to}"),
            f"quick_{index}",
        )
        for index, field in enumerate(config.fields)
    ]


def _fingerprint(fields: int) -> str:
    return f"hash({', '.join(f'quick_{index}' for index in range(fields))})"


def _ask_the_library(connection: duckdb.DuckDBPyConnection, table: str, region: str) -> None:
    """Turns `phone` into `mdn` wherever phonenumbers can; each distinct text is asked once."""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE odd_phone AS
        SELECT phone, row_number() OVER () AS position
        FROM (SELECT DISTINCT phone FROM {table} WHERE phone IS NOT NULL)""")
    [(odd,)] = connection.execute("SELECT count(*) FROM odd_phone").fetchall()
    if not odd:
        return
    connection.execute("CREATE OR REPLACE TEMP TABLE known_phone (phone VARCHAR, mdn BIGINT)")
    for first in range(1, odd + 1, _PHONE_BATCH):
        rows = connection.execute(
            "SELECT phone FROM odd_phone WHERE position BETWEEN ? AND ?",
            [first, first + _PHONE_BATCH - 1],
        ).fetchall()
        asked = to_e164_each((text for (text,) in rows), region)
        known = [(text, int(e164)) for text, e164 in asked if e164 is not None]
        connection.execute(
            "INSERT INTO known_phone SELECT unnest(?::VARCHAR[]), unnest(?::BIGINT[])",
            [[text for text, _ in known], [mdn for _, mdn in known]],
        )
    connection.execute(f"""
        UPDATE {table} SET mdn = known_phone.mdn, phone = NULL
        FROM known_phone WHERE {table}.phone = known_phone.phone""")
