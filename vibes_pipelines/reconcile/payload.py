"""Phase two: the canonical texts of the mapped fields, read only for the rows that need them.

Creates `candidate` (contact_row, person_row or NULL for an add, matched_by) and `contact_value`,
`person_value` with one text column `value_i` per mapped field; where an authority is `newest`, also
the instants `changed_at_i` and the person's `updated_at`. A contact whose value is an unknown
option or cannot be read becomes a finding. Semi-joins, because the scan then skips what no row
needs; a join would have it decode every value.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.reconcile.characters import find_wrong_texts
from vibes_pipelines.reconcile.consent import UNREADABLE
from vibes_pipelines.reconcile.identifiers import NONE, Identifiers
from vibes_pipelines.reconcile.moments import moment_of
from vibes_pipelines.reconcile.scan import Sides, raw_columns
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
) -> None:
    """Creates the tables above and adds the findings on values."""
    connection.execute(_CANDIDATE)
    connection.execute(_DOUBTFUL if sides.is_landed else _raw_value_sql(config, sides.contacts))
    connection.execute(_contact_value_sql(config, sides))
    if connection.execute("SELECT 1 FROM contact WHERE has_issue LIMIT 1").fetchall():
        _find_bad_values(connection, config)
    connection.execute(_person_value_sql(config, sides))
    find_wrong_texts(connection, config)
    if sides.is_landed:
        for side in ("contact", "person"):
            connection.execute(_NAMES.format(side=side))


def _contact_value_sql(config: SyncConfig, sides: Sides) -> str:
    texts = "".join(
        f", {contact_text(f, *sides.contacts.column(f.from_, f'fields.from: {f.from_}'))}"
        f" AS value_{i}"
        for i, f in enumerate(config.fields)
    )
    texts += "".join(
        f", {moment_of(*sides.contacts.column(column, f'fields.changed_at: {column}'))} AS {name}"
        for name, column in contact_times(config).items()
    )
    if not sides.is_landed:
        return f"""
            CREATE TEMP TABLE contact_value AS
            SELECT {ROW} AS row_number{texts} FROM raw_value"""
    return f"""
        CREATE TEMP TABLE contact_value AS
        SELECT {_identified(sides.contact_ids)}{texts} FROM {sides.contacts.relation}
        WHERE {ROW} IN (SELECT contact_row FROM candidate
                        UNION ALL SELECT contact_row FROM doubtful)"""


def _person_value_sql(config: SyncConfig, sides: Sides) -> str:
    texts = "".join(
        f", {platform_text(f.type, *sides.persons.column(f.to, f'fields.to: {f.to}'))} AS value_{i}"
        for i, f in enumerate(config.fields)
    )
    if contact_times(config):
        texts += f", {_updated_at(sides.persons)} AS updated_at"
    names, doubtful = f"{ROW} AS row_number", ""
    if sides.is_landed:
        names = _identified(sides.person_ids)
        doubtful = """
            UNION ALL SELECT person_row FROM doubtful
            UNION ALL SELECT row_number FROM finding WHERE source = 'person'"""
    return f"""
        CREATE TEMP TABLE person_value AS
        SELECT {names}{texts} FROM {sides.persons.relation}
        WHERE {ROW} IN (SELECT person_row FROM candidate {doubtful})"""


def _raw_value_sql(config: SyncConfig, contacts: Source) -> str:
    """A table of its own, because texts made while it is unpacked take several times as long."""
    columns = "".join(
        f", {_typed(f'raw[{index}]', kind)} AS {column}"
        for index, (column, kind) in enumerate(raw_columns(config, contacts), start=1)
    )
    return f"""
        CREATE TEMP TABLE raw_value AS
        SELECT {ROW}{columns} FROM raw_contact
        WHERE {ROW} IN (SELECT contact_row FROM candidate
                        UNION ALL SELECT row_number FROM contact WHERE has_issue)"""


def _typed(text: str, kind: str) -> str:
    """SQL for a value in its own type again; a record is only read as text."""
    is_record = kind.startswith(("STRUCT", "MAP", "UNION", "VARIANT")) and not kind.endswith("]")
    return text if is_record or kind == "VARCHAR" else f"CAST({text} AS {kind})"


def contact_times(config: SyncConfig) -> dict[str, str]:
    """Per `changed_at_i` of the contacts' values the contact column it is read from."""
    return {
        f"changed_at_{index}": field.changed_at
        for index, field in enumerate(config.fields)
        if field.changed_at is not None
    }


def _updated_at(persons: Source) -> str:
    """When anything of the person last changed, where the share's `updated_at` is mapped."""
    if not persons.has("updated_at"):
        return "NULL::TIMESTAMP"
    return moment_of(*persons.column("updated_at", "authority newest"))


def _identified(ids: Identifiers) -> str:
    """The columns that name a row: landed data is read once for names and values."""
    phone = as_text(*ids.phone) if ids.phone else NONE
    return f"{ROW} AS row_number, {ids.key} AS key, {ids.person_key} AS person_key, {phone} AS mdn"


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

# Contacts in doubt, also those whose values are yet to be judged, with the one person they claim.
_DOUBTFUL = """
    CREATE TEMP TABLE doubtful AS
    WITH suspect AS (
        SELECT row_number AS contact_row FROM finding WHERE source = 'contact'
        UNION SELECT row_number FROM contact WHERE has_issue),
    link AS (
        SELECT contact_row, person_row FROM pair SEMI JOIN suspect USING (contact_row)
        UNION ALL SELECT contact_row, person_row FROM claim SEMI JOIN suspect USING (contact_row))
    SELECT contact_row, CASE WHEN count(DISTINCT person_row) = 1 THEN min(person_row) END
               AS person_row
    FROM suspect LEFT JOIN link USING (contact_row) GROUP BY contact_row"""

_NAMES = """
    CREATE TEMP VIEW {side}_name AS
    SELECT v.row_number, v.key, v.person_key, n.bad_mdn,
           CASE WHEN n.mdn > 0 THEN '+' || n.mdn ELSE v.mdn END AS mdn
    FROM {side}_value v JOIN {side} n USING (row_number)"""
