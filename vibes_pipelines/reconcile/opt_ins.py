"""Opt-ins that are written as they are, at destinations where nobody is asked to confirm.

The contact's opt-in is the evidence. Where the destination shows no opt-out it is enough; against
an opt-out it has to be strictly newer, and of a time that is known and not still to come. Who is in
doubt is left alone.
An opt-out outlives its person: one of a person that is gone counts when the contact is added again.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Mapping, Sequence
from datetime import datetime

import duckdb

from vibes_pipelines.reconcile.consent import OPTED_IN
from vibes_pipelines.reconcile.identifiers import refuse_collision
from vibes_pipelines.reconcile.moments import has_come, latest_possible, moment_of
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, text_list
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.sync_config import Consent, SyncConfig


def build_opt_ins(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    subscriptions: Sequence[Source],
    as_of: datetime | None,
) -> None:
    """Adds the opt-ins to `subscription_change`; contacts that are being added have theirs too.

    Made from `outcome`, `match` and `subscription`.

    Raises:
        HashCollision: a consent was given to a person whose key only has the same hash.
    """
    if not subscriptions:
        return
    connection.execute(_OPT_IN)
    connection.execute(_left_behind_sql(config, subscriptions))
    for index, consent in enumerate(config.consents):
        connection.execute(f"INSERT INTO opt_in {_wanted_sql(index, consent, as_of)}")
    named = """
        FROM opt_in o
        JOIN contact_text c ON c.row_number = o.contact_row
        LEFT JOIN person_text p ON p.row_number = o.person_row"""
    refuse_collision(connection, f"SELECT 1 {named} WHERE p.person_key <> o.person_key")
    connection.execute(f"""
        INSERT INTO subscription_change
        SELECT 'platform', 'opt_in', c.key, p.person_key, NULL, o.list, o.evidence_at,
               o.reason {named}""")


def end_with_addresses(
    connection: duckdb.DuckDBPyConnection, ends_with: Mapping[str, tuple[str, ...]]
) -> None:
    """Adds an opt-out for each consent that was given for an address which is being replaced.

    Made from `outcome` and `subscription`; what is ended already by another reason is left out.
    """
    for field, lists in ends_with.items():
        connection.execute(f"""
            INSERT INTO subscription_change
            SELECT 'platform', 'opt_out', o.contact_key, s.person_key, NULL, s.list,
                   NULL, 'address_changed'
            FROM outcome o
            JOIN subscription s ON s.person_key = lower(o.person_key)
            ANTI JOIN subscription_change other
              ON other.person_key = s.person_key AND other.subscription_list_id = s.list
            WHERE o.status = 'updated' AND s.is_active AND s.list IN {text_list(lists)}
              AND len(list_filter(o.changes, lambda one:
                  one.field = {literal(field)}
                  AND lower(one.before) IS DISTINCT FROM lower(one.after)
                  AND one.before IS NOT NULL)) > 0""")


_OPT_IN = """
    CREATE TEMP TABLE opt_in (
        contact_row BIGINT, person_row BIGINT, person_key VARCHAR, list VARCHAR,
        evidence_at TIMESTAMP, reason VARCHAR)"""


def _left_behind_sql(config: SyncConfig, subscriptions: Sequence[Source]) -> str:
    """Opt-outs by the contact's key, for persons that are not there; some inputs name no keys."""
    wanted_by = "the opt-ins (subscriptions input)"
    lists = text_list({consent.list.strip() for consent in config.consents})
    rows = ["SELECT NULL::VARCHAR AS key, NULL::VARCHAR AS list, NULL::TIMESTAMP AS out_at"]
    for source in subscriptions:
        if source.has("external_person_id"):
            key, listed, out_at = (
                source.column(name, wanted_by)
                for name in ("external_person_id", "subscription_list_id", "opt_out_date")
            )
            rows.append(f"""
                SELECT lower({as_text(*key)}), {as_text(*listed)}, {moment_of(*out_at)}
                FROM {source.relation}
                WHERE {as_text(*out_at)} IS NOT NULL AND {as_text(*listed)} IN {lists}""")
    return f"""
        CREATE TEMP TABLE left_behind AS
        SELECT key, list, max(out_at) AS last_out FROM ({" UNION ALL ".join(rows)})
        WHERE key IS NOT NULL GROUP BY ALL"""


def _wanted_sql(index: int, consent: Consent, as_of: datetime | None) -> str:
    """Contacts in no doubt at all that meet the conditions."""
    given, listed = f"c.changed_at_{index}", literal(consent.list.strip())
    is_newer, is_newer_than_left = (
        f"coalesce({given} > {latest_possible(opted_out)} AND {has_come(given, as_of)}, false)"
        for opted_out in ("s.last_out", "l.last_out")
    )
    return f"""
        WITH somebody AS (
            SELECT contact_row, person_row FROM match WHERE passes
            UNION ALL
            SELECT contact_row, NULL FROM outcome WHERE is_add AND status = 'added')
        SELECT m.contact_row, m.person_row, s.person_key, {listed}, {given},
               CASE WHEN s.list IS NULL AND l.list IS NULL THEN 'crm_opted_in'
                    ELSE 'crm_opted_in_again' END
        FROM somebody m
        JOIN contact c ON c.row_number = m.contact_row
        ANTI JOIN (SELECT row_number FROM finding WHERE source = 'contact') doubt
          ON doubt.row_number = m.contact_row
        ANTI JOIN (SELECT contact_row FROM outcome WHERE is_refused) refused
          ON refused.contact_row = m.contact_row
        LEFT JOIN person p ON p.row_number = m.person_row
        LEFT JOIN (SELECT * FROM subscription WHERE list = {listed}) s
          ON s.key_hash = p.person_key
        LEFT JOIN contact_text t ON t.row_number = m.contact_row
        LEFT JOIN (SELECT * FROM left_behind WHERE list = {listed}) l
          ON m.person_row IS NULL AND l.key = lower(t.key)
        WHERE c.state_{index} = {OPTED_IN}
          AND (s.list IS NULL OR (NOT s.is_active AND {is_newer}))
          AND (l.list IS NULL OR {is_newer_than_left})"""
