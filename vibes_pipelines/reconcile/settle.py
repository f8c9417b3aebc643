"""What remains to be done: proposals less what is pending or blocked, and each contact's status.

Creates `outcome`, one row per proposal with a status (added, updated, unchanged, pending, blocked)
and the changes that are left. Pending counts before blocked.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from datetime import datetime

import duckdb

from vibes_pipelines.reconcile.moments import instant_literal, is_moment_type, moment
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.values import as_text

_CHANGE = ("field", "value")
_TAG_END = "chr(31)"


def build_outcome(
    connection: duckdb.DuckDBPyConnection,
    pending: Source | None,
    blocked: Source | None,
    visible_since: datetime | None,
) -> None:
    """Creates table `outcome`.

    What was accepted at or before `visible_since` (UTC) should be visible by now and is no longer
    pending; None: everything accepted is still pending.

    Raises:
        ReconcileError: for a missing column of the pending or blocked input.
    """
    _create_under_way(connection, "pending_item", _pending_rows(pending, visible_since))
    _create_under_way(connection, "blocked_item", _blocked_rows(blocked))
    connection.execute(_OUTCOME)


def _create_under_way(connection: duckdb.DuckDBPyConnection, table: str, rows_sql: str) -> None:
    connection.execute(f"""
        CREATE TEMP TABLE {table} AS
        SELECT external_person_id, list(DISTINCT tag) AS tags
        FROM ({rows_sql}) WHERE external_person_id IS NOT NULL GROUP BY external_person_id""")


_NOTHING = "SELECT NULL::VARCHAR AS external_person_id, NULL::VARCHAR AS tag WHERE false"


def _pending_rows(pending: Source | None, visible_since: datetime | None) -> str:
    """Only the newest value sent for a field is under way; an older one was overtaken."""
    if pending is None:
        return _NOTHING
    role = "the pending input"
    column, column_type = pending.column("accepted_at", role)
    written = column if is_moment_type(column_type) else as_text(column, column_type)
    still = "true"
    if visible_since is not None:
        still = f"(accepted IS NULL OR accepted > {instant_literal(visible_since)})"
    return f"""
        SELECT external_person_id, tag
        FROM ({_tagged(pending, role, moment(written, column_type))})
        QUALIFY {still} AND accepted IS NOT DISTINCT FROM
            max(accepted) OVER (PARTITION BY external_person_id, field)"""


def _blocked_rows(blocked: Source | None) -> str:
    if blocked is None:
        return _NOTHING
    tagged = _tagged(blocked, "the blocked input", "NULL")
    return f"SELECT external_person_id, tag FROM ({tagged})"


def _tagged(source: Source, role: str, at: str) -> str:
    external = as_text(*source.column("external_person_id", role))
    field, value = (f"CAST({source.column(name, role)[0]} AS VARCHAR)" for name in _CHANGE)
    return f"""
        SELECT {external} AS external_person_id, {field} AS field, {_tag(field, value)} AS tag,
               {at} AS accepted
        FROM {source.relation}"""


def _tag(field: str, value: str) -> str:
    """One text per (field, value), which keeps a clear apart from every value."""
    return f"({field} || {_TAG_END} || coalesce('=' || {value}, ''))"


def _without(changes: str, tags: str) -> str:
    """SQL for the changes that none of these tags names; most contacts have no tags."""
    unnamed = f"lambda one: NOT list_contains({tags}, {_tag('one.field', 'one.after')})"
    return f"CASE WHEN {tags} IS NULL THEN {changes} ELSE list_filter({changes}, {unnamed}) END"


_OUTCOME = f"""
    CREATE TEMP TABLE outcome AS
    WITH under_way AS (
        SELECT o.*, pending.tags AS pending_tags, blocked.tags AS blocked_tags
        FROM proposal o
        LEFT JOIN pending_item pending ON pending.external_person_id = o.contact_key
        LEFT JOIN blocked_item blocked ON blocked.external_person_id = o.contact_key),
    unsent AS (
        SELECT *, {_without("changes", "pending_tags")} AS not_pending
        FROM under_way),
    untried AS (
        SELECT *, {_without("not_pending", "blocked_tags")} AS not_blocked
        FROM unsent)
    SELECT contact_row, contact_key, person_key, mdn, matched_by, is_add, is_unmatched, crm_changes,
           CASE WHEN len(changes) = 0 THEN 'unchanged'
                WHEN len(not_blocked) > 0 THEN CASE WHEN is_add THEN 'added' ELSE 'updated' END
                WHEN len(not_pending) < len(changes) THEN 'pending'
                ELSE 'blocked' END AS status,
           CASE WHEN is_add THEN list_filter(not_pending, lambda one:
                    one.field NOT IN ('external_person_id', 'mdn'))
                ELSE not_blocked END AS changes
    FROM untried"""
