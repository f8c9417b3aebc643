"""Findings: the rows in doubt, each with a kind and its evidence, and how quarantine shows them.

The table `finding` holds one row per (record, kind); nothing in it is ever resolved by guessing.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Sequence

import duckdb

from vibes_pipelines.reconcile.identifiers import shown

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


QUARANTINE = f"""
    SELECT f.kind, f.source, v.key AS external_person_id, q.person_key,
           {shown("c.mdn", "v.phone")} AS mdn, f.detail
    FROM finding f JOIN contact c USING (row_number) JOIN contact_value v USING (row_number)
    LEFT JOIN doubtful d ON d.contact_row = f.row_number
    LEFT JOIN person_value q ON q.row_number = d.person_row
    WHERE f.source = 'contact'
    UNION ALL
    SELECT f.kind, f.source, q.key, q.person_key, {shown("p.mdn", "q.phone")}, f.detail
    FROM finding f JOIN person p USING (row_number) JOIN person_value q USING (row_number)
    WHERE f.source = 'person'"""
"""The rows of quarantine.parquet. A contact's mdn is shown as it was given when it is invalid."""
