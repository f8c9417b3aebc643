"""Findings: the rows in doubt, each with a kind and its evidence, and how quarantine shows them.

The table `finding` holds one row per (record, kind); nothing in it is ever resolved by guessing.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Sequence

import duckdb

from vibes_pipelines.reconcile.judged_phones import judge_phones
from vibes_pipelines.reconcile.phone import Refusal

WRONG_KEY = "invalid_contact_key"
"""The kind of a contact whose key no person may be given."""

_DETAILS = {
    "missing_contact_key": "the contact has no key",
    WRONG_KEY: "the key holds characters that cannot be seen, or no text can hold",
    "duplicate_contact_key": "several contacts have this key",
    "duplicate_person_key": "several persons have this person_key",
    "duplicate_external_id": "several persons have this external_person_id",
    "shared_mdn": "several contacts or several persons have this mdn",
    "identity_split": "the identifiers of one contact point to different persons",
    "shared_person": "several contacts point to one person",
    "mdn_change": "the person has another mdn; policies.mdn_change does not replace it",
    "invalid_mdn": "the mdn is no valid mobile number",
    "erased": "the person was erased; only `quarantine undo` lets it in again",
    "erased_number": "the contact is new, and its mdn was that of a person who was erased",
}

OF_NUMBERS = ("mdn_change", "mdn_recycled")
"""Kinds that leave no doubt about who the person is, but about whose number it has."""
OF_FIELDS = ("unknown_option", "invalid_value")
"""Kinds that are about values of a contact; their details end with the names of the fields."""
NOT_OF_IDENTITY = (*OF_NUMBERS, "invalid_mdn", *OF_FIELDS)
KINDS = frozenset((*_DETAILS, *OF_NUMBERS, *OF_FIELDS))
"""Every kind that there is."""
DECIDABLE = (
    *("identity_split", "shared_mdn", "shared_person", "mdn_change", "invalid_mdn"),
    *("duplicate_person_key", "duplicate_external_id", "erased_number"),
)
"""Kinds of a contact that a person can end by saying who it is."""

REFUSED_MDNS = {
    Refusal.NOT_A_NUMBER: "the mdn is not a phone number",
    Refusal.EXTENSION: "the mdn carries an extension",
    Refusal.UNKNOWN_COUNTRY: "the mdn has a country code that there is not",
    Refusal.SHORT_CODE: "the mdn is a short code",
    Refusal.TOO_SHORT: "the mdn is too short",
    Refusal.TOO_LONG: "the mdn is too long",
    Refusal.WRONG_LENGTH: "the mdn has a length that no number of its country has",
    Refusal.NO_AREA_CODE: "the mdn lacks its area code",
    Refusal.UNASSIGNED: "the mdn is in no range of numbers that its country has in use",
    Refusal.LANDLINE: "the mdn is a landline",
}
"""The details of `invalid_mdn`."""


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


def tell_why_mdns_are_refused(connection: duckdb.DuckDBPyConnection, region: str) -> None:
    """Puts the verdict on each contact's text into the detail of its `invalid_mdn`.

    Needs `contact_name`; `region` is the default region of the contacts.
    """
    refused = """
        SELECT f.row_number, c.mdn FROM finding f JOIN contact_name c USING (row_number)
        WHERE f.source = 'contact' AND f.kind = 'invalid_mdn'"""
    if not connection.execute(
        "SELECT 1 FROM finding WHERE kind = 'invalid_mdn' LIMIT 1"
    ).fetchall():
        return
    judge_phones(connection, f"SELECT mdn FROM ({refused})", region)
    texts = [[str(one) for one in REFUSED_MDNS], list(REFUSED_MDNS.values())]
    connection.execute(
        f"""
        WITH told AS (SELECT unnest(?::VARCHAR[]) AS refusal, unnest(?::VARCHAR[]) AS detail),
             why AS (SELECT refused.row_number, told.detail
                     FROM ({refused}) refused
                     JOIN judged_phone judged ON judged.phone = refused.mdn
                     JOIN told USING (refusal))
        UPDATE finding SET detail = why.detail FROM why
        WHERE finding.row_number = why.row_number
          AND finding.source = 'contact' AND finding.kind = 'invalid_mdn'""",
        texts,
    )
