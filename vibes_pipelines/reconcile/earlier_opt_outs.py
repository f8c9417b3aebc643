"""Opt-outs that an earlier diff set asked for, and whose record is not landed any more.

To the platform the word is that of a contact, to the CRM that of a person. While the record is
landed, the consent rules ask anew each day; without it what it said last is carried on, until it
is effective or a later opt-in is known. Where nothing is landed of the other side either, the
answer to what was sent decides.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from datetime import datetime

import duckdb

from vibes_pipelines.reconcile.consent import OPTED_IN, OPTED_OUT
from vibes_pipelines.reconcile.identifiers import hashed, texts_sql
from vibes_pipelines.reconcile.moments import has_come, latest_possible
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, text_list
from vibes_pipelines.sync_config import SyncConfig

COLUMNS = (
    *("side", "external_person_id", "person_key", "mdn", "subscription_list_id", "evidence_at"),
    *("reason", "told_at", "is_answered"),
)
"""Of the input. `told_at`: when it was last asked for; an opt-out without a time is no later.

`is_answered`: the other side took it, or said that it has nobody of that name.
"""


def carry_opt_outs_on(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    earlier: Source,
    salt: int,
    as_of: datetime | None,
) -> None:
    """Adds to `subscription_change` those of `earlier` that are due still; they invite nobody.

    Made from `contact`, `person`, `match`, `subscription` and all other `subscription_change`.
    """
    connection.execute(_cells_sql(config))
    connection.execute(_earlier_sql(config, earlier, salt))
    connection.execute(_RENAMED)
    connection.execute(_by_the_new_key_sql(salt))
    connection.execute(f"""
        CREATE TEMP TABLE carried_on AS
        SELECT e.side, 'opt_out' AS action, e.external_person_id, e.person_key, e.mdn,
               e.list AS subscription_list_id, e.evidence_at, e.reason
        FROM earlier_opt_out e {_to_platform_sql(as_of)}
        UNION ALL
        SELECT e.side, 'opt_out', e.external_person_id, e.person_key, e.mdn, e.list,
               e.evidence_at, e.reason
        FROM earlier_opt_out e {_to_crm_sql(as_of)}""")
    connection.execute("""
        DELETE FROM subscription_change asked USING carried_on no
        WHERE asked.action <> 'opt_out' AND asked.subscription_list_id = no.subscription_list_id
          AND (no.external_person_id = asked.external_person_id
               OR no.person_key = asked.person_key)""")
    connection.execute("INSERT INTO subscription_change BY NAME FROM carried_on")


def _cells_sql(config: SyncConfig) -> str:
    """The consent cells of the contacts, one row per contact and list."""
    cells = " UNION ALL ".join(
        f"SELECT row_number, key, {literal(consent.list.strip())} AS list,"
        f" state_{index} AS state, changed_at_{index} AS changed_at FROM contact"
        for index, consent in enumerate(config.consents)
    )
    return f"CREATE TEMP VIEW consent_cell AS {cells}"


def _earlier_sql(config: SyncConfig, earlier: Source, salt: int) -> str:
    """With `said_by`, after which an opt-in is the later word; nobody speaks after the looks."""
    names = ", ".join(COLUMNS)
    lists = text_list(consent.list.strip() for consent in config.consents)
    return f"""
        CREATE TEMP TABLE earlier_opt_out AS
        SELECT * RENAME (subscription_list_id AS list),
               {hashed("external_person_id", salt)} AS contact_hash,
               {hashed("person_key", salt)} AS person_hash,
               least({latest_possible("evidence_at")}, told_at) AS said_by
        FROM (SELECT {names} FROM {earlier.relation})
        WHERE subscription_list_id IN {lists}"""


# Persons that were merged or made anew: the contact's external id names them still.
_RENAMED = """
    CREATE TEMP TABLE renamed AS
    SELECT e.external_person_id, min(p.row_number) AS row_number
    FROM (SELECT DISTINCT external_person_id, contact_hash, person_hash
          FROM earlier_opt_out WHERE side = 'platform') e
    JOIN person p ON p.key = e.contact_hash
    ANTI JOIN person old ON old.person_key = e.person_hash
    GROUP BY e.external_person_id HAVING count(*) = 1"""


def _by_the_new_key_sql(salt: int) -> str:
    named = texts_sql("person", "SELECT row_number FROM renamed")
    return f"""
        UPDATE earlier_opt_out
        SET person_key = now.person_key, person_hash = {hashed("now.person_key", salt)},
            mdn = CASE WHEN NOT now.bad_mdn THEN now.mdn END
        FROM (SELECT r.external_person_id, t.*
              FROM renamed r JOIN ({named}) t USING (row_number)) now
        WHERE side = 'platform' AND now.person_key IS NOT NULL
          AND now.key = now.external_person_id  -- and not its hash alone
          AND earlier_opt_out.external_person_id = now.external_person_id"""


def _opted_in_later(cell: str, as_of: datetime | None) -> str:
    given = f"{cell}.changed_at"
    is_later = f"{given} > e.said_by AND {has_come(given, as_of)}"
    return f"({cell}.state = {OPTED_IN} AND coalesce({is_later}, false))"


def _to_platform_sql(as_of: datetime | None) -> str:
    """The contact is gone, and its person is subscribed still; no other contact decides."""
    return f"""
        LEFT JOIN subscription s ON s.person_key = e.person_key AND s.list = e.list
        WHERE e.side = 'platform'
          AND NOT EXISTS (SELECT 1 FROM contact c WHERE c.key = e.contact_hash)
          AND CASE WHEN s.list IS NULL THEN NOT e.is_answered
                   ELSE s.is_active AND NOT coalesce(s.last_in > e.said_by, false) END
          AND NOT EXISTS (
              SELECT 1 FROM subscription_change t
              WHERE t.side = e.side AND t.action = 'opt_out' AND t.person_key = e.person_key
                AND t.subscription_list_id = e.list)
          AND NOT EXISTS (
              SELECT 1 FROM match m
              JOIN person p ON p.row_number = m.person_row
              JOIN consent_cell c ON c.row_number = m.contact_row
              WHERE p.person_key = e.person_hash AND c.list = e.list
                AND {_opted_in_later("c", as_of)})"""


def _to_crm_sql(as_of: datetime | None) -> str:
    """The person is gone, and its contact is not opted out; no other person decides."""
    return f"""
        WHERE e.side = 'crm'
          AND NOT EXISTS (SELECT 1 FROM person p WHERE p.person_key = e.person_hash)
          AND CASE WHEN EXISTS (SELECT 1 FROM contact c WHERE c.key = e.contact_hash)
                   THEN EXISTS (
                       SELECT 1 FROM consent_cell c
                       WHERE c.key = e.contact_hash AND c.list = e.list
                         AND c.state <> {OPTED_OUT} AND NOT {_opted_in_later("c", as_of)})
                   ELSE NOT e.is_answered END
          AND NOT EXISTS (
              SELECT 1 FROM subscription_change t
              WHERE t.side = e.side AND t.external_person_id = e.external_person_id
                AND t.subscription_list_id = e.list)
          AND NOT EXISTS (
              SELECT 1 FROM subscription s
              WHERE s.person_key = e.person_key AND s.list = e.list
                AND coalesce(s.last_in > e.said_by, false))
          AND NOT EXISTS (
              SELECT 1 FROM contact c
              JOIN match m ON m.contact_row = c.row_number
              JOIN person p ON p.row_number = m.person_row
              JOIN subscription s ON s.key_hash = p.person_key
              WHERE c.key = e.contact_hash AND s.list = e.list
                AND coalesce(s.last_in > e.said_by, false))"""
