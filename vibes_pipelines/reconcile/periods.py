"""Periods: since when a number has been a person's, and which numbers may be somebody else's now.

Numbers are given to new holders. The platform treats a number that another carrier serves as
another person (the Vibes documentation, Person API), and what was agreed to with a number holds for
that person, that number and that period only. Evidence is what changed since the base; without one
there is nothing to claim. Creates `number_period` (person_row, since), which lists only persons of
whom a change was seen, and the findings `mdn_recycled`.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from datetime import datetime

import duckdb

from vibes_pipelines.reconcile.base import CARRIER, Base
from vibes_pipelines.reconcile.moments import instant_literal
from vibes_pipelines.reconcile.scan import Sides
from vibes_pipelines.sync_config import SyncConfig


def build_periods(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    sides: Sides,
    base: Base | None,
    as_of: datetime | None,
) -> None:
    """Creates the table and findings from `recognised` and `claim`; needs no values."""
    connection.execute("CREATE TEMP TABLE number_period (person_row BIGINT, since TIMESTAMP)")
    if base is None or not (config.watches_numbers or sides.persons.has(CARRIER)):
        return
    for name, numbers in (("now", Base(sides.persons)), ("before", base)):
        connection.execute(f"CREATE TEMP VIEW number_{name} AS {numbers.numbers_sql()}")
    connection.execute(_CHANGE)
    connection.execute(_NEWCOMER)
    policy = config.policies.mdn_recycled
    if policy != "ignore":
        connection.execute(_OTHER_CARRIER)
    if policy == "carrier_or_person":
        connection.execute(_OTHER_PERSON)
    connection.execute(f"""
        INSERT INTO number_period
        SELECT person_row, CASE WHEN is_changed THEN {_seen_at(as_of)} ELSE since END
        FROM number_change WHERE is_changed OR since IS NOT NULL""")


def _seen_at(as_of: datetime | None) -> str:
    """SQL for when a change was seen; as late as can be where no input says when it was taken."""
    if as_of is None:
        return "TIMESTAMP '9999-12-31 00:00:00'"
    return instant_literal(as_of)


# Only persons whose number or carrier changed since the base, or did so before: few.
_CHANGE = """
    CREATE TEMP TABLE number_change AS
    SELECT now.row AS person_row, coalesce(before.mdn = now.mdn, false) AS is_same_number,
           (now.mdn IS NOT NULL AND before.mdn IS DISTINCT FROM now.mdn)
               OR coalesce(before.carrier <> now.carrier, false) AS is_changed,
           before.external_person_id AS agreed_with, before.since,
           before.carrier AS old_carrier, now.carrier AS new_carrier
    FROM number_now now JOIN number_before before USING (key)
    WHERE (now.mdn IS NOT NULL AND before.mdn IS DISTINCT FROM now.mdn)
       OR before.carrier <> now.carrier OR before.since IS NOT NULL"""

# A person who is new under this person_key, with a number that was another's: consent is of a
# person and a number, so that its period begins now. Who only had no key before is nobody new.
_NEWCOMER = """
    INSERT INTO number_change
    WITH newcomer AS (
        SELECT now.* FROM number_now now
        ANTI JOIN number_before before USING (key) WHERE now.mdn IS NOT NULL),
    met AS (
        SELECT now.row, before.key = '=' || now.external_person_id AS is_same_person,
               before.external_person_id, before.since, before.carrier AS old_carrier,
               now.carrier AS new_carrier
        FROM newcomer now JOIN number_before before ON before.mdn = now.mdn)
    SELECT row, bool_and(is_same_person),
           bool_or(NOT is_same_person OR coalesce(old_carrier <> new_carrier, false)),
           min(external_person_id), max(since), min(old_carrier), min(new_carrier)
    FROM (SELECT * REPLACE (coalesce(is_same_person, false) AS is_same_person) FROM met)
    GROUP BY row"""

# The same number at the same person, and another carrier; what was agreed with another contact is
# no base.
_OTHER_CARRIER = """
    INSERT INTO finding
    SELECT 'contact', r.contact_row, 'mdn_recycled',
           'the mdn went from carrier ' || old_carrier || ' to ' || new_carrier
               || ': it may belong to somebody else now'
    FROM number_change n
    JOIN recognised r USING (person_row)
    JOIN contact c ON c.row_number = r.contact_row
    JOIN person p ON p.row_number = r.person_row
    JOIN contact_text t ON t.row_number = r.contact_row
    WHERE n.is_same_number AND n.is_changed AND c.mdn = p.mdn
      AND coalesce(n.agreed_with = t.key, true)"""

# The number is that of a person who is new since the base, and was that of the contact's earlier
# person, who has lost it: else the number would be shared.
_OTHER_PERSON = """
    INSERT INTO finding
    WITH newcomer AS (
        SELECT claim.contact_row, now.key, now.mdn
        FROM claim JOIN number_now now ON now.row = claim.person_row
        ANTI JOIN number_before before ON before.key = now.key
        WHERE claim.identifier = 'mdn')
    SELECT DISTINCT 'contact', n.contact_row, 'mdn_recycled',
           'the mdn was that of the contact''s earlier person, and is that of a new one now'
    FROM newcomer n
    JOIN contact_text t ON t.row_number = n.contact_row
    JOIN number_before before ON before.external_person_id = t.key
    WHERE before.mdn = n.mdn AND before.key <> n.key"""
