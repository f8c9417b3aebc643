"""Decisions of a person about cases of the quarantine, applied to a reconcile as an input.

A decision names its contact and nothing else: a `link` binds it to one person that is there, a
`new-person` lets it be added where no identifier of it is at the platform. Neither merges: whenever
two contacts would be one person, or one contact two persons, the decision does not hold, and the
doubt stays with the reason. A decided contact's number is not looked at, and never carried to a
person that it was linked to. `ignore` only marks the row; see `cases`.

Creates `decision` (the input) and `decided` (contact_row, person_row, action, since, reason, why):
links and new persons whose contact is there; `why` tells what keeps a decision from holding.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.reconcile.findings import DECIDABLE, add_findings
from vibes_pipelines.reconcile.identifiers import hashed, texts_sql
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, text_list

COLUMNS = ("action", "kind", "source", "record", "target", "evidence", "since", "reason")
"""The columns of the decisions input, all text.

`record` names the contact or person in doubt (see `cases.record_of`), `target` the person_key of a
link, `evidence` the fingerprint that the decision is about, `since` the day it was taken on.
`action` is link, new-person or ignore; `erased` rows have the pseudonym of an erased contact or
person as their `target`, `erased_number` rows name a new contact that has the number of one.
"""

ERASED_NUMBER = "erased_number"

OWN = "sha256(to_json([{row}.key, {row}.person_key, {row}.mdn])::VARCHAR)"
"""SQL for the fingerprint of a contact's own identifiers."""

LINKED = "link"
"""The `matched_by` of a contact whose person was decided."""

CONTACT_RECORD = "key "
"""Begins the record of a contact that has a key."""


def read_decisions(connection: duckdb.DuckDBPyConnection, decisions: Source | None) -> None:
    """Creates `decision`; empty without an input.

    Raises:
        ReconcileError: a column is missing.
    """
    if decisions is None:
        columns = ", ".join(f"{name} VARCHAR" for name in COLUMNS)
        connection.execute(f"CREATE TEMP TABLE decision ({columns})")
        return
    columns = ", ".join(
        f"CAST({decisions.column(name, 'the decisions input')[0]} AS VARCHAR) AS {name}"
        for name in COLUMNS
    )
    connection.execute(f"CREATE TEMP TABLE decision AS SELECT {columns} FROM {decisions.relation}")


def find_erased(connection: duckdb.DuckDBPyConnection, salt: int) -> None:
    """Adds a finding for each row of whom a pseudonym is left, or that is named for its number."""
    named = f"SELECT substr(record, {len(CONTACT_RECORD) + 1}) AS name FROM decision"
    named = f"{named} WHERE action = {literal(ERASED_NUMBER)}"
    if connection.execute(f"{named} LIMIT 1").fetchall():
        keys = f"SELECT {hashed('name', salt)} FROM ({named})"
        rows = f"SELECT row_number FROM contact WHERE key IN ({keys})"
        add_findings(connection, ERASED_NUMBER, "contact", rows)
    erased = f"SELECT {hashed('target', salt)} FROM decision WHERE action = 'erased'"
    if not connection.execute(f"{erased} LIMIT 1").fetchall():
        return
    for side in ("contact", "person"):
        rows = " OR ".join(f"{name} IN ({erased})" for name in ("key", "person_key"))
        add_findings(
            connection, "erased", side, f"SELECT row_number FROM {side} WHERE coalesce({rows})"
        )


def apply_decisions(connection: duckdb.DuckDBPyConnection, recognised_sql: str, salt: int) -> None:
    """Creates `decided`, and takes away the doubts of contacts whose decision holds.

    `recognised_sql` yields the contacts that are sure of their person without any decision. Needs
    `contact`, `person`, `loose`, `pair`, `claim` and every finding on identity.
    """
    connection.execute("""
        CREATE TEMP TABLE decided (
            contact_row BIGINT, person_row BIGINT, action VARCHAR, since VARCHAR, reason VARCHAR,
            why VARCHAR)""")
    if not connection.execute(f"SELECT 1 FROM ({_ABOUT_IDENTITY}) LIMIT 1").fetchall():
        return
    connection.execute(f"CREATE TEMP TABLE decided_on AS {_ABOUT_IDENTITY}")
    _read_identifiers(connection, salt)
    connection.execute(_JUDGED.format(recognised=recognised_sql))
    connection.execute(_HOLDING)
    connection.execute(
        "DELETE FROM finding USING decided d WHERE d.why IS NULL AND source = 'contact'"
        f" AND finding.row_number = d.contact_row AND kind IN {text_list(DECIDABLE)}"
    )


_ABOUT_IDENTITY = f"""
    SELECT action, substr(record, {len(CONTACT_RECORD) + 1}) AS key, lower(target) AS person_key,
           evidence, since, reason
    FROM decision
    WHERE action IN ('link', 'new-person') AND source = 'contact'
      AND starts_with(record, {literal(CONTACT_RECORD)})"""


def _read_identifiers(connection: duckdb.DuckDBPyConnection, salt: int) -> None:
    """Creates `decided_contact` and `near_person`: the texts of few rows, found by their hashes."""
    keys, person_keys = (
        f"SELECT {hashed(name, salt)} FROM decided_on WHERE {name} IS NOT NULL"
        for name in ("key", "person_key")
    )
    contacts = f"SELECT row_number FROM contact WHERE key IN ({keys})"
    connection.execute(f"CREATE TEMP TABLE decided_contact AS {texts_sql('contact', contacts)}")
    persons = (
        f"SELECT row_number FROM person WHERE key IN ({keys}) OR person_key IN ({person_keys})"
    )
    connection.execute(f"CREATE TEMP TABLE near_person AS {texts_sql('person', persons)}")


# One row per decision whose contact is there. `person_row` of a link is the person of its target;
# of a new person the one that has the contact's key by now, none until it was added.
_JUDGED = f"""
    CREATE TEMP TABLE judged_decision AS
    WITH contact_of AS (
        SELECT key, count(*) AS contacts, min(row_number) AS contact_row,
               min({OWN.format(row="decided_contact")}) AS own,
               min(mdn) FILTER (NOT bad_mdn) AS mdn
        FROM decided_contact GROUP BY key),
    keyed AS (
        SELECT key, count(*) AS persons, min(row_number) AS person_row
        FROM near_person GROUP BY key),
    targeted AS (
        SELECT person_key, count(*) AS persons, min(row_number) AS person_row, min(key) AS key
        FROM near_person GROUP BY person_key),
    found AS (
        SELECT d.*, c.contact_row, c.contacts, c.own, c.mdn,
               coalesce(k.persons, 0) AS keyed_persons, k.person_row AS keyed_row,
               coalesce(t.persons, 0) AS targets, t.person_row AS target_row, t.key AS target_key,
               CASE d.action WHEN 'link' THEN t.person_row ELSE k.person_row END AS person_row
        FROM decided_on d
        JOIN contact_of c ON c.key = d.key
        LEFT JOIN keyed k ON k.key = d.key
        LEFT JOIN targeted t ON t.person_key = d.person_key),
    other AS (
        SELECT r.person_row, r.contact_row FROM ({{recognised}}) r
        WHERE r.person_row IN (SELECT person_row FROM found))
    SELECT found.*,
           CASE WHEN contacts > 1 THEN 'several contacts have its key'
                WHEN own IS DISTINCT FROM evidence THEN 'an identifier of the contact changed'
                WHEN keyed_persons > 1
                    THEN 'several persons have the key of the contact as external_person_id'
                WHEN action = 'link' AND targets = 0 THEN 'no person has that person_key any more'
                WHEN action = 'link' AND targets > 1 THEN 'several persons have that person_key'
                WHEN action = 'link' AND target_key <> key
                    THEN 'the person has another external_person_id'
                WHEN action = 'link' AND keyed_row <> target_row
                    THEN 'another person has the key of the contact as external_person_id'
                WHEN person_row IN (SELECT o.person_row FROM other o
                                    WHERE o.contact_row <> found.contact_row)
                    THEN 'another contact is this person'
                WHEN person_row IS NULL
                     AND contact_row IN (SELECT claim.contact_row FROM claim)
                    THEN 'an identifier of the contact is at the platform'
           END AS why
    FROM found"""

# Two decisions that meet in one person, or in one number of new persons, do not hold, neither.
_HOLDING = """
    INSERT INTO decided
    WITH meeting AS (
        SELECT *, count(*) OVER (PARTITION BY person_row) AS to_one_person,
               count(*) OVER (PARTITION BY person_row IS NULL, mdn) AS with_one_number,
               count(*) OVER (PARTITION BY contact_row) AS of_one_contact
        FROM judged_decision WHERE why IS NULL)
    SELECT contact_row, person_row, action, since, reason, why
    FROM judged_decision WHERE why IS NOT NULL
    UNION ALL
    SELECT contact_row, person_row, action, since, reason,
           CASE WHEN of_one_contact > 1 THEN 'several decisions are about this contact'
                WHEN person_row IS NOT NULL AND to_one_person > 1
                    THEN 'another contact was linked to this person'
                WHEN person_row IS NULL AND mdn IS NOT NULL AND with_one_number > 1
                    THEN 'another new person has the same mdn' END
    FROM meeting"""
