"""Invitations: which opt-ins of the CRM are carried to Vibes, as a question to the person.

Only an acquisition campaign asks, and the person confirms (the Vibes documentation, Web-Based
Subscriber Management); nothing here subscribes anybody. The evidence is the contact's own opt-in
with its time, of the number that the person has now, strictly newer than everything that speaks
against it. Of a person whose subscriptions are not known nothing is assumed.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Sequence
from datetime import datetime, timedelta

import duckdb

from vibes_pipelines.reconcile.consent import OPTED_IN
from vibes_pipelines.reconcile.identifiers import refuse_collision
from vibes_pipelines.reconcile.moments import instant_literal, latest_possible, moment_of
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.sync_config import Consent, SyncConfig

INVITE = "invite:"
"""Starts the field of an earlier invitation in the pending input; the list follows."""

_DISCONNECTED = "disconnect"
"""The opt_out_reason of a number that its carrier took out of service (Standard Data Extracts)."""


def build_invites(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    subscriptions: Sequence[Source],
    pending: Source | None,
    as_of: datetime | None,
) -> None:
    """Adds the invitations to `subscription_change`.

    Made from `match`, `outcome`, `number_period`, `subscription` and the earlier invitations.

    Raises:
        ReconcileError: for a missing column of the pending input.
        HashCollision: a subscription was given to a person whose key only has the same hash.
    """
    inviting = [(i, consent) for i, consent in enumerate(config.consents) if consent.invites]
    if not inviting or not subscriptions:
        return
    connection.execute(f"CREATE TEMP TABLE disconnect AS {_disconnects_sql(subscriptions)}")
    connection.execute(f"CREATE TEMP TABLE invitation AS {_invitations_sql(pending)}")
    connection.execute(_INVITE)
    for index, consent in inviting:
        connection.execute(f"INSERT INTO invite {_wanted_sql(index, consent, as_of)}")
    _name_invited(connection, _open_since(config, as_of))


def _disconnects_sql(subscriptions: Sequence[Source]) -> str:
    """When each person's number was last taken out of service, as any list tells."""
    rows = ["SELECT NULL::VARCHAR AS person_key, NULL::TIMESTAMP AS ended_at WHERE false"]
    for source in subscriptions:
        if source.has("opt_out_reason"):
            key, reason, out = (
                source.column(name, "the invites (subscriptions input)")
                for name in ("person_key", "opt_out_reason", "opt_out_date")
            )
            rows.append(f"""
                SELECT lower({as_text(*key)}), {moment_of(*out)} FROM {source.relation}
                WHERE lower({as_text(*reason)}) = {literal(_DISCONNECTED)}""")
    ended = " UNION ALL ".join(rows)
    return f"SELECT person_key, max(ended_at) AS ended_at FROM ({ended}) GROUP BY ALL"


def _invitations_sql(pending: Source | None) -> str:
    if pending is None:
        return """
            SELECT NULL::VARCHAR AS key, NULL::VARCHAR AS list, NULL::TIMESTAMP AS sent_at
            WHERE false"""
    role = "the pending input"
    key, accepted = (pending.column(name, role) for name in ("external_person_id", "accepted_at"))
    field = f"CAST({pending.column('field', role)[0]} AS VARCHAR)"
    return f"""
        SELECT {as_text(*key)} AS key, substr({field}, {len(INVITE) + 1}) AS list,
               {moment_of(*accepted)} AS sent_at
        FROM {pending.relation} WHERE starts_with({field}, {literal(INVITE)})"""


_INVITE = """
    CREATE TEMP TABLE invite (
        contact_row BIGINT, person_row BIGINT, person_key VARCHAR, list VARCHAR,
        evidence_at TIMESTAMP, last_in TIMESTAMP)"""


def _wanted_sql(index: int, consent: Consent, as_of: datetime | None) -> str:
    """Contacts in no doubt at all, whose opt-in is newer than what the platform shows of the list.

    Whoever is refused is left alone, for the platform refuses this person. An opt-in with a time
    that is still to come is a broken clock, not evidence.
    """
    given, opted_out_by = f"c.changed_at_{index}", latest_possible("s.last_out")
    is_past = "true" if as_of is None else f"{given} <= {instant_literal(as_of)}"
    return f"""
        SELECT m.contact_row, m.person_row, s.person_key, {literal(consent.list.strip())}, {given},
               s.last_in
        FROM match m
        JOIN contact c ON c.row_number = m.contact_row
        JOIN person p ON p.row_number = m.person_row
        ANTI JOIN (SELECT row_number FROM finding WHERE source = 'contact') doubt
          ON doubt.row_number = m.contact_row
        ANTI JOIN (SELECT contact_row FROM outcome WHERE is_refused) refused
          ON refused.contact_row = m.contact_row
        LEFT JOIN number_period period ON period.person_row = m.person_row
        LEFT JOIN (SELECT * FROM subscription WHERE list = {literal(consent.list.strip())}) s
          ON s.key_hash = p.person_key
        WHERE m.passes AND c.state_{index} = {OPTED_IN} AND {is_past}
          AND c.mdn = p.mdn AND p.person_key IS NOT NULL
          AND coalesce({given} > period.since, period.since IS NULL)
          AND CASE WHEN s.list IS NULL THEN {given} IS NOT NULL
                   ELSE NOT s.is_active AND coalesce({given} > {opted_out_by}, false) END"""


def _name_invited(connection: duckdb.DuckDBPyConnection, open_since: str) -> None:
    """Writes the invitations with their names, less those that are open and the disconnected.

    An invitation is open until the subscription that it asked for has appeared.
    """
    named = """
        FROM invite i
        JOIN contact_text c ON c.row_number = i.contact_row
        JOIN person_text p ON p.row_number = i.person_row"""
    refuse_collision(connection, f"SELECT 1 {named} WHERE p.person_key <> i.person_key")
    connection.execute(f"""
        INSERT INTO subscription_change
        SELECT 'platform', 'invite', c.key, p.person_key, p.mdn, i.list, i.evidence_at,
               'crm_opted_in' {named}
        ANTI JOIN invitation sent
          ON sent.key = c.key AND sent.list = i.list AND coalesce(sent.sent_at > {open_since}, true)
             AND NOT coalesce(i.last_in >= sent.sent_at, false)
        ANTI JOIN disconnect d ON d.person_key = p.person_key
             AND {latest_possible("d.ended_at")} >= i.evidence_at""")


def _open_since(config: SyncConfig, as_of: datetime | None) -> str:
    """SQL for the time before which an unanswered invitation may be repeated; by default never."""
    days = config.policies.invite_again_after_d
    return (
        "NULL::TIMESTAMP"
        if days is None or as_of is None
        else instant_literal(as_of - timedelta(days=days))
    )
