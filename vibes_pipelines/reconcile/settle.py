"""What remains to be done: proposals less what is pending or blocked, and each contact's status.

Creates `outcome`, one row per proposal with a status (added, updated, unchanged, pending, blocked)
and the changes that are left. Pending counts before blocked. `is_refused` is a blocked one that the
platform refused; a value that it accepted and does not hold is blocked too, while it holds the same
other one.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from datetime import datetime

import duckdb

from vibes_pipelines.reconcile.moments import instant_literal, moment_of
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.values import as_text

_CHANGE = ("field", "value")
_BLOCKED = "the blocked input"
_WAS_ACCEPTED = "was_accepted"
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
    rows = "FROM proposal"
    # What is not given is not joined: most days nothing is under way, and on some nothing blocked.
    if pending is not None:
        _create_under_way(connection, "pending_item", _pending_rows(pending, visible_since))
        rows = _less(rows, "pending_item", "changes", "not_pending")
    else:
        rows = f"SELECT *, changes AS not_pending {rows}"
    if blocked is not None:
        _create_under_way(connection, "blocked_item", _blocked_rows(blocked))
        rows = _less(rows, "blocked_item", "not_pending", "not_refused")
    else:
        rows = f"SELECT *, not_pending AS not_refused FROM ({rows})"
    if blocked is not None and blocked.has(_WAS_ACCEPTED):
        _create_under_way(connection, "kept_item", _kept_rows(blocked))
        rows = _less(rows, "kept_item", "not_refused", "not_blocked", _CHANGE_TAG)
    else:
        rows = f"SELECT *, not_refused AS not_blocked FROM ({rows})"
    connection.execute(_OUTCOME.format(rows=rows))


def _create_under_way(connection: duckdb.DuckDBPyConnection, table: str, rows_sql: str) -> None:
    connection.execute(f"""
        CREATE TEMP TABLE {table} AS
        SELECT external_person_id, list(DISTINCT tag) AS tags
        FROM ({rows_sql}) WHERE external_person_id IS NOT NULL GROUP BY external_person_id""")


def _pending_rows(pending: Source, visible_since: datetime | None) -> str:
    """Only the newest value sent for a field is under way; an older one was overtaken."""
    role = "the pending input"
    accepted = moment_of(*pending.column("accepted_at", role))
    still = "true"
    if visible_since is not None:
        still = f"(accepted IS NULL OR accepted > {instant_literal(visible_since)})"
    return f"""
        SELECT external_person_id, tag
        FROM ({_tagged(pending, role, accepted)})
        QUALIFY {still} AND accepted IS NOT DISTINCT FROM
            max(accepted) OVER (PARTITION BY external_person_id, field)"""


def _blocked_rows(blocked: Source) -> str:
    tagged = _tagged(blocked, _BLOCKED, "NULL")
    refused = f"WHERE NOT {_was_accepted(blocked)}" if blocked.has(_WAS_ACCEPTED) else ""
    return f"SELECT external_person_id, tag FROM ({tagged} {refused})"


def _kept_rows(blocked: Source) -> str:
    """What the platform accepted and does not hold; it held another value instead, or none."""
    external = as_text(*blocked.column("external_person_id", _BLOCKED))
    cells = (_text(blocked, name, _BLOCKED) for name in (*_CHANGE, "before"))
    return f"""
        SELECT {external} AS external_person_id, {_tag(*cells)} AS tag
        FROM {blocked.relation} WHERE {_was_accepted(blocked)}"""


def _was_accepted(blocked: Source) -> str:
    return f"coalesce(CAST({blocked.column(_WAS_ACCEPTED, _BLOCKED)[0]} AS BOOLEAN), false)"


def _tagged(source: Source, role: str, at: str) -> str:
    external = as_text(*source.column("external_person_id", role))
    field, value = (_text(source, name, role) for name in _CHANGE)
    return f"""
        SELECT {external} AS external_person_id, {field} AS field, {_tag(field, value)} AS tag,
               {at} AS accepted
        FROM {source.relation}"""


def _text(source: Source, name: str, role: str) -> str:
    return f"CAST({source.column(name, role)[0]} AS VARCHAR)"


def _tag(field: str, *values: str) -> str:
    """One text per field and its values, which keeps an empty one apart from every other."""
    ends = "".join(f" || {_TAG_END} || coalesce('=' || {value}, '')" for value in values)
    return f"({field}{ends})"


_VALUE_TAG = _tag("one.field", "one.after")
_CHANGE_TAG = _tag("one.field", "one.after", "one.before")


def _without(changes: str, tags: str, tag: str) -> str:
    """SQL for the changes that none of these tags names; most contacts have no tags."""
    unnamed = f"lambda one: NOT list_contains({tags}, {tag})"
    return f"CASE WHEN {tags} IS NULL THEN {changes} ELSE list_filter({changes}, {unnamed}) END"


def _less(proposals: str, table: str, changes: str, left: str, tag: str = _VALUE_TAG) -> str:
    """SQL for these proposals with the column `left`: their changes without those of a table."""
    return f"""
        SELECT o.*, {_without(f"o.{changes}", "u.tags", tag)} AS {left}
        FROM ({proposals}) o LEFT JOIN {table} u ON u.external_person_id = o.contact_key"""


_OUTCOME = """
    CREATE TEMP TABLE outcome AS
    SELECT contact_row, contact_key, person_key, mdn, matched_by, is_add, is_unmatched, crm_changes,
           CASE WHEN len(changes) = 0 THEN 'unchanged'
                WHEN len(not_blocked) > 0 THEN CASE WHEN is_add THEN 'added' ELSE 'updated' END
                WHEN len(not_pending) < len(changes) THEN 'pending'
                ELSE 'blocked' END AS status,
           len(changes) > 0 AND len(not_pending) = len(changes) AND len(not_refused) = 0
               AS is_refused,
           CASE WHEN is_add THEN list_filter(not_pending, lambda one:
                    one.field NOT IN ('external_person_id', 'mdn'))
                ELSE not_blocked END AS changes
    FROM ({rows})"""
