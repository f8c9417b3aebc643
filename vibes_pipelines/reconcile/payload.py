"""Phase two: the canonical texts of the mapped fields, read only for the rows that need them.

Creates `candidate` (contact_row, person_row or NULL for an add, matched_by) and `contact_value`,
`person_value`, `base_value` (only with a base) with one text column `value_i` per mapped field; a
contact whose value is an unknown option or cannot be read becomes a finding. Semi-joins, because
the scan then skips what no row needs; a join would have it decode every value.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.reconcile.consent import UNREADABLE
from vibes_pipelines.reconcile.identifiers import texts_sql
from vibes_pipelines.reconcile.scan import Sides
from vibes_pipelines.reconcile.sources import ROW, Source
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.reconcile.values import (
    INVALID_VALUE,
    UNKNOWN_OPTION,
    as_text,
    can_be_marked,
    contact_text,
    platform_text,
)
from vibes_pipelines.sync_config import SyncConfig


def build_values(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    sides: Sides,
    base: Source | None,
) -> None:
    """Creates the tables above and adds the findings on values."""
    connection.execute(_CANDIDATE)
    connection.execute(_RAW_VALUE)
    connection.execute(_contact_value_sql(config, sides))
    if connection.execute("SELECT 1 FROM contact WHERE has_issue LIMIT 1").fetchall():
        _find_bad_values(connection, config)
    connection.execute(_person_value_sql(config, sides))
    if base is not None:
        connection.execute(_base_value_sql(config, base))


def _contact_value_sql(config: SyncConfig, sides: Sides) -> str:
    texts = "".join(
        f", {contact_text(f, *sides.contacts.column(f.from_, f'fields.from: {f.from_}'))}"
        f" AS value_{i}"
        for i, f in enumerate(config.fields)
    )
    return f"""
        CREATE TEMP TABLE contact_value AS
        SELECT {ROW} AS row_number{texts} FROM raw_value"""


def _person_value_sql(config: SyncConfig, sides: Sides) -> str:
    texts = "".join(
        f", {platform_text(f.type, *sides.persons.column(f.to, f'fields.to: {f.to}'))} AS value_{i}"
        for i, f in enumerate(config.fields)
    )
    return f"""
        CREATE TEMP TABLE person_value AS
        SELECT {ROW} AS row_number{texts} FROM {sides.persons.relation}
        WHERE {ROW} IN (SELECT person_row FROM candidate)"""


def _base_value_sql(config: SyncConfig, base: Source) -> str:
    """The base's row of a candidate: by person_key, else by external_person_id; one row or none."""
    identifiers = [
        f"{f'lower({text})' if name == 'person_key' else text} AS {name}"
        if base.has(name)
        else f"NULL::VARCHAR AS {name}"
        for name, text in (
            (name, as_text(*base.column(name, "the base")) if base.has(name) else "")
            for name in ("person_key", "external_person_id")
        )
    ]
    texts = [
        f"{platform_text(f.type, *base.column(f.to, 'the base'))} AS value_{i}"
        if base.has(f.to)
        else f"NULL::VARCHAR AS value_{i}"
        for i, f in enumerate(config.fields)
    ]
    names = ", ".join(f"b.value_{index}" for index in range(len(config.fields)))
    return f"""
        CREATE TEMP TABLE base_value AS
        WITH b AS (SELECT {", ".join(identifiers)}, {", ".join(texts)} FROM {base.relation}),
        wanted AS (SELECT q.row_number, q.person_key, q.key AS external_person_id
                   FROM ({texts_sql("person", "SELECT person_row FROM candidate")}) q),
        found AS (
            SELECT w.row_number, 1 AS rank, {names} FROM wanted w JOIN b USING (person_key)
            UNION ALL
            SELECT w.row_number, 2 AS rank, {names} FROM wanted w JOIN b USING (external_person_id)
            WHERE w.person_key IS NULL OR b.person_key IS NULL)
        SELECT * EXCLUDE (rank) FROM found
        QUALIFY count(*) OVER (PARTITION BY row_number, rank) = 1
            AND rank = min(rank) OVER (PARTITION BY row_number)"""


def _find_bad_values(connection: duckdb.DuckDBPyConnection, config: SyncConfig) -> None:
    for kind, mark, words in (
        ("unknown_option", UNKNOWN_OPTION, "not among the options of"),
        ("invalid_value", INVALID_VALUE, "cannot be read as the type of"),
    ):
        marked = [
            f"CASE WHEN starts_with(v.value_{index}, {literal(mark)}) THEN {literal(field.to)} END"
            for index, field in enumerate(config.fields)
            if can_be_marked(field)
        ]
        if kind == "invalid_value":
            marked += [
                f"CASE WHEN c.state_{index} = {UNREADABLE} OR c.is_unreadable_{index}"
                f" THEN {literal(consent.from_)} END"
                for index, consent in enumerate(config.consents)
            ]
        if marked:
            connection.execute(
                f"""
                INSERT INTO finding
                SELECT 'contact', v.row_number, ?, ? || ' ' || array_to_string(names, ', ')
                FROM (SELECT v.row_number,
                             list_sort(list_filter([{", ".join(marked)}],
                                                   lambda name: name IS NOT NULL)) AS names
                      FROM contact_value v JOIN contact c USING (row_number)
                      WHERE c.has_issue) v
                WHERE len(names) > 0""",
                [kind, words],
            )


# Every contact that passes, is not in doubt so far, and is new, loosely matched, or different.
_CANDIDATE = """
    CREATE TEMP TABLE candidate AS
    SELECT contact_row, person_row, matched_by FROM match
    WHERE differs AND passes AND NOT is_odd
    UNION ALL
    SELECT l.contact_row, NULL, NULL
    FROM loose l
    ANTI JOIN claim ON claim.contact_row = l.contact_row
    ANTI JOIN finding ON finding.source = 'contact' AND finding.row_number = l.contact_row
    WHERE l.passes AND NOT l.has_issue"""

# A table of its own, because texts made while it is unpacked take several times as long.
_RAW_VALUE = f"""
    CREATE TEMP TABLE raw_value AS
    SELECT {ROW}, one.*
    FROM (SELECT {ROW}, unnest(raw) AS one FROM raw_contact
          WHERE {ROW} IN (
              SELECT contact_row FROM candidate
              UNION ALL SELECT row_number FROM contact WHERE has_issue))"""
