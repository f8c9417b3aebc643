"""What one day's reconcile saw of agreement: the file from which the next base is made.

`agreement.parquet` lists the persons that do not simply agree with a contact that meets the
conditions, by their row in the persons input. `contact_key` names the contact of whoever differs,
or does not have its key; else it is the person's own. `fields` are those on which both sides agree;
`is_judged` is false for a person without a contact or in doubt, of which nothing new is known. Of
every person that is not listed, and where `fields` is NULL, all values agree. `number_since` tells
when the person's number was last seen to change. The file is no part of the diff set.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import json
from pathlib import Path

import duckdb

from vibes_pipelines.reconcile.base import FIELDS, content_hash, current_meanings, metadata_of
from vibes_pipelines.reconcile.errors import unreadable
from vibes_pipelines.reconcile.identifiers import texts_sql
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.reconcile.unmatched import is_cleared
from vibes_pipelines.sync_config import SyncConfig

AGREEMENT = "agreement.parquet"

_PERSONS = "persons"


def compared_persons(folder: Path) -> str | None:
    """The content hash of the landed persons that the agreement in this folder is about.

    Raises:
        ReconcileError: the file cannot be read.
    """
    file = folder / AGREEMENT
    if not file.is_file():
        return None
    stored = metadata_of(file, unreadable(file)).get(_PERSONS.encode())
    return stored.decode() if stored else None


def write_agreement(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, persons: Source, folder: Path
) -> None:
    """Writes the file from the tables of a finished reconcile."""
    meanings = literal(json.dumps(current_meanings(config), sort_keys=True))
    content = literal(content_hash(persons.path) or "")
    connection.execute(
        f"COPY ({_agreement_sql(config)} ORDER BY person_row)"
        f" TO {literal(str(folder / AGREEMENT))}"
        " (FORMAT parquet, COMPRESSION zstd,"
        f" KV_METADATA {{{FIELDS}: {meanings}, {_PERSONS}: {content}}})"
    )


def _agreement_sql(config: SyncConfig) -> str:
    return f"""
        WITH listed AS ({_listed_sql(config)})
        SELECT listed.*, period.since AS number_since
        FROM listed LEFT JOIN number_period period USING (person_row)
        UNION ALL
        SELECT person_row, NULL, NULL, true, true, false, since
        FROM number_period ANTI JOIN listed USING (person_row)"""


def _listed_sql(config: SyncConfig) -> str:
    equal = _names(
        config, [f"NOT list_contains(differing, {literal(f.to)})" for f in config.fields]
    )
    everything = _names(config, ["true"] * len(config.fields))
    return f"""
        WITH judged AS (
            SELECT contact_row, person_row, passes, differs FROM match
            ANTI JOIN (SELECT row_number FROM finding
                       WHERE source = 'contact' AND kind = 'invalid_value') doubt
              ON contact_row = doubt.row_number
            WHERE NOT is_odd),
        unnamed AS (
            SELECT contact_row, person_row FROM judged
            SEMI JOIN (SELECT row_number FROM person WHERE key IS NULL) p
              ON person_row = p.row_number
            WHERE NOT passes),
        name_of AS (
            SELECT person_row, key AS contact_key
            FROM ({texts_sql("contact", "SELECT contact_row FROM unnamed")}) c
            JOIN unnamed ON contact_row = c.row_number)
        SELECT row_number AS person_row, NULL::VARCHAR AS contact_key, []::VARCHAR[] AS fields,
               false AS is_judged, false AS passes, false AS is_settled
        FROM person ANTI JOIN judged ON judged.person_row = person.row_number
        UNION ALL
        SELECT person_row, contact_key, {equal}, true, true, false
        FROM (SELECT *, list_transform(cells, lambda cell: cell.field) AS differing
              FROM difference WHERE person_row IS NOT NULL)
        UNION ALL
        SELECT person_row, name_of.contact_key,
               CASE WHEN differs THEN {_cleared(config)} ELSE {everything} END,
               true, false, {_settled(config)}
        FROM judged LEFT JOIN unmatched USING (person_row) LEFT JOIN name_of USING (person_row)
        {_unmatched_values(config)}
        WHERE NOT judged.passes"""


def _names(config: SyncConfig, conditions: list[str]) -> str:
    """SQL for the list of fields whose condition holds."""
    cases = ", ".join(
        f"CASE WHEN {condition} THEN {literal(field.to)} END"
        for field, condition in zip(config.fields, conditions, strict=True)
    )
    return f"list_filter([{cases}], lambda name: name IS NOT NULL)"


def _unmatched_values(config: SyncConfig) -> str:
    if not _clears(config):
        return ""
    return "LEFT JOIN unmatched_value v ON v.row_number = unmatched.person_row"


def _cleared(config: SyncConfig) -> str:
    """What was cleared because the contact is unmatched is agreed: a return is a CRM change."""
    if not _clears(config):
        return "[]::VARCHAR[]"
    empty = [
        f"v.row_number IS NOT NULL AND v.value_{index} IS NULL" if is_cleared(field) else "false"
        for index, field in enumerate(config.fields)
    ]
    return _names(config, empty)


def _settled(config: SyncConfig) -> str:
    """SQL for: `when_unmatched` has nothing left to do for this contact."""
    if _clears(config):
        empty = " AND ".join(
            f"v.value_{index} IS NULL"
            for index, field in enumerate(config.fields)
            if is_cleared(field)
        )
        return f"v.row_number IS NOT NULL AND {empty or 'true'}"
    if config.contacts.when_unmatched == "opt_out":
        return (
            "unmatched.contact_row IS NOT NULL AND judged.person_row NOT IN"
            " (SELECT person_row FROM opt_out WHERE side = 'platform')"
        )
    return "false"


def _clears(config: SyncConfig) -> bool:
    return config.contacts.when_unmatched == "clear"
