"""Sync conditions as SQL: the clean text, number or instant of a contact column against the config.

A cell that cannot be read as what it is compared with does not meet the condition, and is counted.
Numbers are compared as doubles. A limit that is only a day compares days, in UTC.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import duckdb

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.reconcile.moments import moment_of
from vibes_pipelines.reconcile.numerals import number_text
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, nullable_literal, text_list
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.conditions import Condition

_SIGNS = {"less_than": "<", "at_most": "<=", "greater_than": ">", "at_least": ">="}
_DAY_LENGTH = len("2026-01-31")


def condition(one: Condition, contacts: Source) -> str:
    """SQL that is true when the contact meets this condition; blank cells are null.

    Raises:
        ReconcileError: when the contacts have no such column.
    """
    column = _column(one, contacts)
    if one.compared_type is not None:
        return _comparison(one, column)
    text = as_text(*column)
    if one.is_null:
        return f"({text}) IS NULL"
    if one.not_null:
        return f"({text}) IS NOT NULL"
    if one.in_ is not None:
        present = [value for value in map(trimmed, one.in_) if value is not None]
        return f"({text}) IN {text_list(present)}"
    if one.equals is not None:
        return f"({text}) IS NOT DISTINCT FROM {nullable_literal(trimmed(one.equals))}"
    return f"({text}) IS DISTINCT FROM {nullable_literal(trimmed(one.not_equals or ''))}"


def is_unreadable(one: Condition, contacts: Source) -> str:
    """SQL for: the cell of a comparison is neither blank nor what it is compared as."""
    column = _column(one, contacts)
    return f"({as_text(*column)}) IS NOT NULL AND {_typed(one, column)} IS NULL"


def count_unreadable(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source
) -> None:
    """Creates `unreadable_condition` (name, contacts): per column, cells that compare with nothing.

    Only comparisons have such cells; their columns are read once more for it.
    """
    connection.execute("CREATE TEMP TABLE unreadable_condition (name VARCHAR, contacts BIGINT)")
    for one in config.contacts.conditions:
        if one.compared_type is None:
            continue
        unreadable = is_unreadable(one, contacts)
        connection.execute(
            "INSERT INTO unreadable_condition"
            f" SELECT ?, count(*) FROM {contacts.relation} WHERE {unreadable}",
            [one.column],
        )


def _column(one: Condition, contacts: Source) -> tuple[str, str]:
    return contacts.column(one.column, f"contacts.conditions: {one.column}")


def _comparison(one: Condition, column: tuple[str, str]) -> str:
    typed, limit = _typed(one, column), _limit(one)
    return f"({typed} {_SIGNS[one.operator]} {limit})"


def _typed(one: Condition, column: tuple[str, str]) -> str:
    """SQL for the cell as a number or instant; NULL when it is none."""
    if one.compared_type == "number":
        return f"try_cast({number_text(as_text(*column), 'NULL')} AS DOUBLE)"
    instant = moment_of(*column)
    return f"date_trunc('day', {instant})" if _is_day(one) else instant


def _limit(one: Condition) -> str:
    if one.compared_type == "number":
        return f"CAST({literal(one.limit)} AS DOUBLE)"
    return moment_of(literal(one.limit), "VARCHAR")


def _is_day(one: Condition) -> bool:
    return len(one.limit) == _DAY_LENGTH
