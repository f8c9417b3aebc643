"""Sync conditions as SQL: the clean text of a contact column against the config's text."""

from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import nullable_literal, text_list
from vibes_pipelines.reconcile.values import as_text, clean_text
from vibes_pipelines.sync_config import Condition


def condition(one: Condition, contacts: Source) -> str:
    """SQL that is true when the contact meets this condition; blank cells are null.

    Raises:
        ReconcileError: when the contacts have no such column.
    """
    text = as_text(*contacts.column(one.column, f"contacts.conditions: {one.column}"))
    if one.is_null:
        return f"({text}) IS NULL"
    if one.not_null:
        return f"({text}) IS NOT NULL"
    if one.in_ is not None:
        present = [value for value in map(clean_text, one.in_) if value is not None]
        return f"({text}) IN {text_list(present)}"
    if one.equals is not None:
        return f"({text}) IS NOT DISTINCT FROM {nullable_literal(clean_text(one.equals))}"
    return f"({text}) IS DISTINCT FROM {nullable_literal(clean_text(one.not_equals or ''))}"
