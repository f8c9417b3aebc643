"""Findings: the rows in doubt, each with a kind and its evidence, and how quarantine shows them.

The table `finding` holds one row per (record, kind); nothing in it is ever resolved by guessing.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Sequence

import duckdb

_DETAILS = {
    "missing_contact_key": "the contact has no key",
    "duplicate_contact_key": "several contacts have this key",
    "duplicate_person_key": "several persons have this person_key",
    "duplicate_external_id": "several persons have this external_person_id",
    "shared_mdn": "several contacts or several persons have this mdn",
    "identity_split": "the identifiers of one contact point to different persons",
    "shared_person": "several contacts point to one person",
    "mdn_change": "the person has another mdn; an mdn cannot be changed at Vibes",
    "invalid_mdn": "the mdn is not a valid phone number, or carries an extension",
}


def create_finding(connection: duckdb.DuckDBPyConnection) -> None:
    """Creates the empty table `finding`; `source` is contact or person."""
    connection.execute(
        "CREATE TEMP TABLE finding"
        " (source VARCHAR, row_number BIGINT, kind VARCHAR, detail VARCHAR)"
    )


def add_findings(
    connection: duckdb.DuckDBPyConnection,
    kind: str,
    source: str,
    rows_sql: str,
    parameters: Sequence[str] = (),
) -> None:
    """Adds one finding of this kind for every distinct row number that `rows_sql` yields."""
    connection.execute(
        "INSERT INTO finding SELECT DISTINCT ?, found.number, ?, ?"
        f" FROM ({rows_sql}) found(number)",
        [source, kind, _DETAILS[kind], *parameters],
    )


QUARANTINE = """
    WITH person_of AS (
        SELECT contact_row, min(person_row) AS person_row
        FROM (SELECT contact_row, person_row FROM pair
              UNION ALL SELECT contact_row, person_row FROM claim)
        SEMI JOIN finding ON contact_row = finding.row_number AND finding.source = 'contact'
        GROUP BY contact_row HAVING count(DISTINCT person_row) = 1)
    SELECT f.kind, f.source, c.key AS external_person_id, p.person_key, c.mdn, f.detail
    FROM finding f JOIN contact_name c USING (row_number)
    LEFT JOIN person_of o ON o.contact_row = f.row_number
    LEFT JOIN person_name p ON p.row_number = o.person_row
    WHERE f.source = 'contact'
    UNION ALL
    SELECT f.kind, f.source, p.key, p.person_key, p.mdn, f.detail
    FROM finding f JOIN person_name p USING (row_number)
    WHERE f.source = 'person'"""
"""The rows of quarantine.parquet. A contact's mdn is shown as it was given when it is invalid."""
