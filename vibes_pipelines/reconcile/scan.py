"""Phase one from plain files: each side is read once, and the two are joined by their keys.

Creates `joined` (one row per contact and person of its key, or either alone: contact_row,
person_row, differs, the contact's narrow row, and of the person linked_key, linked_person_key and
linked_mdn), the narrow rows `contact` and `person`, and `contact_text`, `person_text`: row_number
and key, person_key, mdn as texts, where a bad_mdn stands as it was given.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from dataclasses import dataclass

import duckdb

from vibes_pipelines.reconcile.identifiers import Identifiers
from vibes_pipelines.reconcile.joins import joins_as_written
from vibes_pipelines.reconcile.narrow import (
    StandIn,
    ask_the_library,
    consent_columns,
    contact_rows_sql,
    name_odd_numbers,
    person_rows_sql,
    quick_name,
    region_of,
)
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.values import Quick, quick
from vibes_pipelines.sync_config import SyncConfig


@dataclass(frozen=True)
class Sides:
    """Both inputs with their identifiers. `salt` makes other hashes of the same identifiers.

    `is_landed`: the narrow rows come from landed hashes, not from a scan.
    """

    contacts: Source
    persons: Source
    contact_ids: Identifiers
    person_ids: Identifiers
    salt: int = 0
    is_landed: bool = False


def scan_sides(connection: duckdb.DuckDBPyConnection, config: SyncConfig, sides: Sides) -> None:
    """Creates the tables above, and `raw_contact`: `contact_text` of those that may differ, `raw`.

    `raw` is the list of the mapped columns' values as texts, in the order of `raw_columns`.

    Raises:
        ReconcileError: for a column that the sync config maps and a side does not have.
    """
    stand_ins = _stand_ins(config, sides)
    _scan_persons(connection, config, sides, [StandIn(one.person) for one in stand_ins])
    contact_ins = [StandIn(one.contact, one.doubt) for one in stand_ins]
    with joins_as_written(connection):
        connection.execute(_joined_sql(config, sides, contact_ins))
    ask_the_library(connection, "joined_cell", region_of(config))
    # What no column is mapped to is not written a million times, but shown by the view.
    unmapped = "" if config.contacts.person_key is not None else f", {_NO_PERSON_KEY}"
    connection.execute(f"""
        CREATE TEMP VIEW joined AS
        SELECT *, phone IS NOT NULL AS bad_mdn{unmapped} FROM joined_cell""")
    connection.execute(_CONTACT_CELL.format(once=_once(connection, sides.contacts)))
    connection.execute("""
        CREATE TEMP VIEW contact AS
        SELECT * EXCLUDE (key_text, person_key_text, phone, raw) FROM contact_cell""")
    connection.execute(_texts_sql("contact"))
    connection.execute(f"{_texts_sql('contact', 'raw_contact', ', raw')} WHERE raw IS NOT NULL")
    for side in ("contact", "person"):
        connection.execute(f"CREATE TEMP VIEW {side}_name AS SELECT * FROM {side}_text")
    _create_links(connection, has_person_key=config.contacts.person_key is not None)


def _create_links(connection: duckdb.DuckDBPyConnection, *, has_person_key: bool) -> None:
    """Creates `linked`, every contact with the person of its key, and `unlinked_person`."""
    agrees = "coalesce(mdn = linked_mdn, mdn IS NULL)"
    if has_person_key:
        agrees += " AND coalesce(person_key = linked_person_key, person_key IS NULL)"
    connection.execute(f"""
        CREATE TEMP VIEW linked AS
        SELECT contact_row, person_row, passes, differs,
               has_issue OR bad_mdn AS is_odd, person_key IS NOT NULL AS by_person_key,
               person_row IS NOT NULL AND {agrees} AS agrees
        FROM joined WHERE contact_row IS NOT NULL""")
    connection.execute("""
        CREATE TEMP VIEW unlinked_person AS
        SELECT person_row AS row_number, linked_key AS key
        FROM joined WHERE contact_row IS NULL""")


def _scan_persons(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    sides: Sides,
    stand_ins: list[StandIn],
) -> None:
    rows = person_rows_sql(sides.persons, sides.person_ids, stand_ins, sides.salt)
    connection.execute(f"CREATE TEMP TABLE person_cell AS {rows}")
    ask_the_library(connection, "person_cell", region_of(config))
    name_odd_numbers(connection, "person_cell")
    connection.execute("""
        CREATE TEMP VIEW person AS
        SELECT * EXCLUDE (key_text, person_key_text, phone) FROM person_cell""")
    connection.execute(_texts_sql("person"))


def raw_columns(config: SyncConfig, contacts: Source) -> list[tuple[str, str]]:
    """The columns, with their types, that the values of a contact are read from.

    Raises:
        ReconcileError: for a column that the sync config maps and the contacts do not have.
    """
    read = {name: field.to for field in config.fields for name in field.contact_columns}
    return sorted({contacts.column(name, f"fields: {to}") for name, to in read.items()})


def _joined_sql(config: SyncConfig, sides: Sides, stand_ins: list[StandIn]) -> str:
    """The contacts stream past the persons, and those that may differ keep their raw values."""
    raw = [column for column, _ in raw_columns(config, sides.contacts)]
    # As texts, because a list of structs costs a write per column even where there is no list.
    texts = ", ".join(f"c.raw_{index}::VARCHAR" for index in range(len(raw)))
    person_key = "" if config.contacts.person_key is None else _PERSON_KEY
    kept = [name for index in range(len(config.consents)) for name in consent_columns(index)]
    rows = contact_rows_sql(config, sides.contacts, sides.contact_ids, stand_ins, sides.salt, raw)
    return f"""
        CREATE TEMP TABLE joined_cell AS
        SELECT c.row_number AS contact_row, c.key_text, c.key{person_key},
               c.mdn, c.phone, c.passes, c.has_issue{"".join(f", c.{name}" for name in kept)},
               p.row_number AS person_row, p.key AS linked_key, p.mdn AS linked_mdn,
               c.fingerprint <> p.fingerprint AS differs,
               CASE WHEN c.row_number IS NOT NULL AND ({_IS_WANTED})
                    THEN [{texts}]::VARCHAR[] END AS raw
        FROM ({rows}) c FULL JOIN person p ON c.key = p.key"""


_PERSON_KEY = ", c.person_key_text, c.person_key, p.person_key AS linked_person_key"
_NO_PERSON_KEY = """NULL::VARCHAR AS person_key_text, NULL::UBIGINT AS person_key,
                    NULL::UBIGINT AS linked_person_key"""

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


def _once(connection: duckdb.DuckDBPyConnection, contacts: Source) -> str:
    """What keeps a contact to one row where several persons have its key."""
    [(joined, rows)] = connection.execute(
        f"SELECT count(contact_row), (SELECT count(*) FROM {contacts.relation}) FROM joined"
    ).fetchall()
    return "DISTINCT ON (contact_row)" if joined > rows else ""


def _texts_sql(side: str, name: str = "", more: str = "") -> str:
    return f"""
        CREATE TEMP VIEW {name or f"{side}_text"} AS
        SELECT row_number, key_text AS key, person_key_text AS person_key,
               CASE WHEN mdn > 0 THEN '+' || mdn ELSE phone END AS mdn,
               phone IS NOT NULL AS bad_mdn{more}
        FROM {side}_cell"""


def _stand_ins(config: SyncConfig, sides: Sides) -> list[Quick]:
    return [
        quick(
            field,
            sides.contacts.column(field.from_, f"fields.from: {field.from_}"),
            sides.persons.column(field.to, f"fields.to: {field.to}"),
            quick_name(index),
        )
        for index, field in enumerate(config.fields)
    ]
