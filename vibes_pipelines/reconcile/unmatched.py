"""Contacts that stopped meeting the conditions: what `contacts.when_unmatched` does about them.

Creates `unmatched` (contact_row, person_row, and how both are named): contacts that are filtered
and in no doubt, whose person is there, and of which the base knows that they met the conditions
before. With `clear` their clears stand in `unmatched_proposal`; `opt_out` is carried out in
`consent`.
Where the destination deletes them they stand in `deletion` too.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.reconcile.base import Base, create_base_row
from vibes_pipelines.reconcile.changes import CHANGES, entry, present
from vibes_pipelines.reconcile.identifiers import refuse_collision, texts_sql
from vibes_pipelines.reconcile.scan import Sides
from vibes_pipelines.reconcile.sources import ROW, Source
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.reconcile.values import platform_text
from vibes_pipelines.sync_config import MappedField, SyncConfig


def build_unmatched(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    sides: Sides,
    base: Base | None,
    *,
    deletes: bool = False,
) -> None:
    """Creates the tables above, and with `clear` `unmatched_value`.

    Raises:
        HashCollision: a contact was paired with a person whose key only has the same hash.
    """
    connection.execute(_UNMATCHED)
    connection.execute(_DELETION)
    connection.execute(_PROPOSAL)
    policy = config.contacts.when_unmatched
    if (policy != "keep" or deletes) and base is not None and base.is_recorded:
        _find_unmatched(connection, config, base)
        if deletes:
            connection.execute(_DELETE_UNMATCHED)
    if policy == "clear":
        connection.execute(_values_sql(config, sides.persons))
        [(found,)] = connection.execute("SELECT count(*) FROM unmatched").fetchall()
        if found:
            connection.execute(_clears_sql(config))


def _find_unmatched(connection: duckdb.DuckDBPyConnection, config: SyncConfig, base: Base) -> None:
    connection.execute(_OUTSIDE)
    connection.execute(_named_sql())
    refuse_collision(
        connection, "SELECT * FROM outside_name WHERE contact_key <> external_person_id"
    )
    create_base_row(connection, base, "SELECT * FROM outside_name")
    of_base = base.values_sql(config, "SELECT base_row FROM base_row")
    connection.execute(f"""
        INSERT INTO unmatched
        SELECT contact_row, row_number, contact_key, person_key, mdn, matched_by FROM outside_name
        WHERE row_number IN (
            SELECT row_number FROM base_row JOIN ({of_base}) USING (base_row) WHERE has_matched)""")


def is_cleared(field: MappedField) -> bool:
    """Whether `clear` empties this field: what the platform owns, or was only filled, stays."""
    return field.authority in {"crm", "newest"}


_UNMATCHED = """
    CREATE TEMP TABLE unmatched (
        contact_row BIGINT, person_row BIGINT, contact_key VARCHAR, person_key VARCHAR, mdn VARCHAR,
        matched_by VARCHAR)"""

_PROPOSAL = f"""
    CREATE TEMP TABLE unmatched_proposal (
        contact_row BIGINT, contact_key VARCHAR, person_key VARCHAR, mdn VARCHAR,
        matched_by VARCHAR, is_add BOOLEAN, is_unmatched BOOLEAN, changes {CHANGES},
        crm_changes {CHANGES})"""

_DELETION = """
    CREATE TEMP TABLE deletion (
        external_person_id VARCHAR, person_key VARCHAR, matched_by VARCHAR)"""

_DELETE_UNMATCHED = """
    INSERT INTO deletion
    SELECT contact_key, person_key, matched_by FROM unmatched"""

_OUTSIDE = """
    CREATE TEMP TABLE outside AS
    SELECT contact_row, person_row, matched_by FROM match WHERE NOT passes AND NOT is_odd"""


def _named_sql() -> str:
    return f"""
        CREATE TEMP TABLE outside_name AS
        SELECT contact_row, person_row AS row_number, matched_by, p.person_key,
               p.key AS external_person_id, c.key AS contact_key, coalesce(p.mdn, c.mdn) AS mdn
        FROM outside
        JOIN ({texts_sql("contact", "SELECT contact_row FROM outside")}) c
          ON c.row_number = contact_row
        JOIN ({texts_sql("person", "SELECT person_row FROM outside")}) p
          ON p.row_number = person_row"""


def _values_sql(config: SyncConfig, persons: Source) -> str:
    texts = "".join(
        f", {platform_text(f.type, *persons.column(f.to, f'fields.to: {f.to}'))} AS value_{index}"
        for index, f in enumerate(config.fields)
    )
    return f"""
        CREATE TEMP TABLE unmatched_value AS
        SELECT {ROW} AS row_number{texts} FROM {persons.relation}
        WHERE {ROW} IN (SELECT person_row FROM unmatched)"""


def _clears_sql(config: SyncConfig) -> str:
    clears = {
        field.to: f"CASE WHEN v.value_{index} IS NOT NULL THEN {_clear(field, index)} END"
        for index, field in enumerate(config.fields)
        if is_cleared(field)
    }
    return f"""
        INSERT INTO unmatched_proposal BY NAME
        SELECT contact_row, contact_key, person_key, mdn, matched_by, false AS is_add,
               {present(clears)} AS changes, CAST([] AS {CHANGES}) AS crm_changes,
               true AS is_unmatched
        FROM unmatched
        JOIN unmatched_value v ON v.row_number = person_row"""


def _clear(field: MappedField, index: int) -> str:
    return entry(
        literal(field.to), "clear", f"v.value_{index}", "NULL::VARCHAR", literal("unmatched")
    )
