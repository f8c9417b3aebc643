"""Consent: which opt-outs each side has to learn from the other. Opt-ins are never carried.

Absence of a row or a blank cell changes nothing; an opt-out gives way only to strictly newer
evidence of an opt-in on the other side, and then nothing is written at all. An opt-in whose time
is still to come is no evidence, on either side.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Sequence
from datetime import datetime

import duckdb

from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.identifiers import hashed, refuse_collision
from vibes_pipelines.reconcile.moments import (
    has_come,
    is_active,
    is_moment_type,
    latest_possible,
    moment_of,
)
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, text_list
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.sync_config import Consent, SyncConfig

OPTED_IN, UNKNOWN, OPTED_OUT, UNREADABLE = 1, 0, -1, 9
"""States of a contact's consent cell; UNREADABLE is neither blank nor an accepted spelling."""

_COLUMNS = """
    side VARCHAR, action VARCHAR, external_person_id VARCHAR, person_key VARCHAR, mdn VARCHAR,
    subscription_list_id VARCHAR, evidence_at TIMESTAMP, reason VARCHAR"""


def state_column(consent: Consent, contacts: Source) -> str:
    """SQL for the state of a contact's consent cell.

    Raises:
        ReconcileError: when the contacts have no such column.
    """
    column = contacts.column(consent.from_, f"consents.from: {consent.from_}")
    text = f"lower({as_text(*column)})"
    opted_out, opted_in = (text_list(sorted(said)) for said in (consent.says_out, consent.says_in))
    return (
        f"CASE {_plainly_spelt(consent, *column)}"
        f" WHEN {text} IN {opted_out} THEN {OPTED_OUT} WHEN {text} IN {opted_in} THEN {OPTED_IN}"
        f" WHEN {text} IS NULL THEN {UNKNOWN} ELSE {UNREADABLE} END"
    )


def _plainly_spelt(consent: Consent, column: str, column_type: str) -> str:
    """Branches for cells spelt just as the sync config has them, which cost no cleaning."""
    branches = [f"WHEN {column} IS NULL THEN {UNKNOWN}"]
    if column_type == "VARCHAR":
        for said, state in ((consent.says_in, OPTED_IN), (consent.says_out, OPTED_OUT)):
            plain = sorted(one for one in said if one.isascii())
            branches.append(f"WHEN {column} IN {text_list(plain)} THEN {state}")
    return " ".join(branches)


def changed_at_columns(consent: Consent, contacts: Source) -> tuple[str, str]:
    """SQL for when the consent cell last changed (UTC), and for: it is there but unreadable.

    Raises:
        ReconcileError: when the contacts have no such column.
    """
    if consent.changed_at is None:
        return "NULL::TIMESTAMP", "false"
    column = contacts.column(consent.changed_at, f"consents.changed_at: {consent.changed_at}")
    read = moment_of(*column)
    if is_moment_type(column[1]):
        return read, f"{column[0]} IS NOT NULL AND {read} IS NULL"
    return read, f"{read} IS NULL AND {as_text(*column)} IS NOT NULL"


def build_subscription_change(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    subscriptions: Sequence[Source],
    salt: int,
    until: datetime | None,
) -> None:
    """Creates `subscription_change`, and before it `opt_out` with row numbers of both sides.

    Made from `match`, `unmatched`, `contact`, `person` and the subscriptions. What is later than
    `until` is still to come.

    Raises:
        ReconcileError: for a missing column or an unreadable date in a subscriptions input.
        HashCollision: a subscription was given to a person whose key only has the same hash.
    """
    connection.execute(f"CREATE TEMP TABLE subscription_change ({_COLUMNS})")
    connection.execute(_OPT_OUT)
    if not subscriptions or not config.consents:
        return
    connection.execute(_state_sql(config, subscriptions, salt, until))
    _refuse_unreadable_dates(connection)
    connection.execute(_CONSENT_MATCH)
    for index, consent in enumerate(config.consents):
        connection.execute(f"INSERT INTO opt_out BY NAME {_change_sql(index, consent, until)}")
    if config.contacts.when_unmatched == "opt_out":
        connection.execute(_OPT_OUT_UNMATCHED)
    _name_identifiers(connection)


def _name_identifiers(connection: duckdb.DuckDBPyConnection) -> None:
    """Fills `subscription_change` from `opt_out`, whose rows are row numbers of both sides.

    Of several contacts who say the same of one person at one time, one is named: not by its place.
    """
    named = """
        FROM opt_out
        JOIN contact_text c ON c.row_number = contact_row
        JOIN person_text p ON p.row_number = person_row"""
    refuse_collision(
        connection,
        f"SELECT 1 {named} WHERE p.person_key <> opt_out.person_key OR c.key <> p.key",
    )
    connection.execute(f"""
        INSERT INTO subscription_change
        SELECT side, 'opt_out', c.key, p.person_key,
               coalesce(p.mdn, CASE WHEN NOT c.bad_mdn THEN c.mdn END),
               list, evidence_at, reason {named}
        QUALIFY row_number() OVER (
            PARTITION BY opt_out.person_key, list
            ORDER BY c.key, p.mdn, c.bad_mdn, c.mdn) = 1""")


def _state_sql(
    config: SyncConfig, subscriptions: Sequence[Source], salt: int, until: datetime | None
) -> str:
    lists = text_list({consent.list.strip() for consent in config.consents})
    rows = " UNION ALL ".join(_rows_sql(source, lists) for source in subscriptions)
    return f"""
        CREATE TEMP TABLE subscription AS
        WITH event AS ({rows}),
             latest AS (SELECT person_key, list,
                               max(opt_in) FILTER (WHERE {has_come("opt_in", until)}) AS last_in,
                               max(opt_out) AS last_out,
                               min(unreadable) AS unreadable
                        FROM event WHERE person_key IS NOT NULL GROUP BY ALL)
        SELECT *, {hashed("person_key", salt)} AS key_hash,
               {is_active("last_in", "last_out")} AS is_active
        FROM latest"""


def _rows_sql(source: Source, lists: str) -> str:
    wanted_by = "the consents (subscriptions input)"
    key, listed, opt_in, opt_out = (
        source.column(name, wanted_by)
        for name in ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
    )
    return f"""
        SELECT person_key, list, opt_in, opt_out,
               CASE WHEN (opt_in IS NULL AND has_in) OR (opt_out IS NULL AND has_out)
                    THEN {literal(str(source.path))} END AS unreadable
        FROM (SELECT lower({as_text(*key)}) AS person_key, {as_text(*listed)} AS list,
                     {moment_of(*opt_in)} AS opt_in, {as_text(*opt_in)} IS NOT NULL AS has_in,
                     {moment_of(*opt_out)} AS opt_out, {as_text(*opt_out)} IS NOT NULL AS has_out
              FROM {source.relation})
        WHERE list IN {lists}"""


def _refuse_unreadable_dates(connection: duckdb.DuckDBPyConnection) -> None:
    """An opt-out whose date cannot be read must not pass for a subscription that is active."""
    found = connection.execute(
        "SELECT unreadable, count(*) FROM subscription WHERE unreadable IS NOT NULL"
        " GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    if found:
        path, rows = found[0]
        msg = (
            f"subscriptions {path}: {rows} (person, list) with an unreadable opt_in_date or"
            " opt_out_date; expected e.g. 2017-04-05 14:30:00 -0600. Correct or reject these rows"
        )
        raise ReconcileError(msg)


def _change_sql(index: int, consent: Consent, until: datetime | None) -> str:
    state, changed_at = f"c.state_{index}", f"c.changed_at_{index}"
    newer_at_platform = f"coalesce(s.last_in > {latest_possible(changed_at)}, false)"
    given = f"{changed_at} > {latest_possible('s.last_out')} AND {has_come(changed_at, until)}"
    newer_at_crm = f"({state} = {OPTED_IN} AND coalesce({given}, false))"
    return f"""
        (SELECT CASE WHEN s.is_active THEN 'platform' ELSE 'crm' END AS side,
                m.contact_row, m.person_row, s.person_key, s.list,
                CASE WHEN s.is_active THEN {changed_at} ELSE s.last_out END AS evidence_at,
                CASE WHEN s.is_active THEN 'crm_opted_out' ELSE 'platform_opted_out' END AS reason
         FROM subscription s
         JOIN person p ON p.person_key = s.key_hash
         JOIN consent_match m ON m.person_row = p.row_number
         JOIN contact c ON c.row_number = m.contact_row
         WHERE s.list = {literal(consent.list.strip())}
           AND CASE WHEN s.is_active THEN {state} = {OPTED_OUT} AND NOT {newer_at_platform}
                    ELSE m.is_sure AND {state} <> {OPTED_OUT} AND NOT {newer_at_crm} END
         QUALIFY rank() OVER (
             PARTITION BY s.person_key, s.list ORDER BY {changed_at} NULLS LAST) = 1)"""


_OPT_OUT = """
    CREATE TEMP TABLE opt_out (
        side VARCHAR, contact_row BIGINT, person_row BIGINT, person_key VARCHAR, list VARCHAR,
        evidence_at TIMESTAMP, reason VARCHAR)"""

# Nobody said no: the reason is the policy, and there is no evidence with a time.
_OPT_OUT_UNMATCHED = """
    INSERT INTO opt_out
    SELECT 'platform', u.contact_row, u.person_row, s.person_key, s.list, NULL, 'unmatched'
    FROM subscription s
    JOIN person p ON p.person_key = s.key_hash
    JOIN unmatched u ON u.person_row = p.row_number
    ANTI JOIN opt_out o ON o.person_key = s.person_key AND o.list = s.list
    WHERE s.is_active"""

# Whose opt-outs concern whom. A match is sure in both directions. A contact in quarantine whose key
# names exactly one person still opts that person out: its other data is in doubt, its no is not.
_CONSENT_MATCH = """
    CREATE TEMP TABLE consent_match AS
    SELECT contact_row, person_row, true AS is_sure FROM recognised
    UNION ALL
    SELECT contact_row, person_row, false FROM linked
    ANTI JOIN recognised USING (contact_row)
    WHERE person_row IS NOT NULL AND person_row NOT IN (
        SELECT row_number FROM finding
        WHERE source = 'person' AND kind IN ('duplicate_external_id', 'duplicate_person_key'))"""
