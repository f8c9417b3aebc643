"""Characters that no text can rightly hold: what a broken export or a wrong encoding leaves behind.

Control characters, U+FFFD (what a decoder writes for bytes it cannot read) and noncharacters are
wrong in every text. In a key, line breaks, tabs and what has no width are wrong too: two keys that
look alike would be two persons. Only a text that would be carried to the other side is judged, so
that what both sides hold already costs nothing. An assumption: the Vibes documentation is silent.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Iterable, Sequence

import duckdb

from vibes_pipelines.reconcile.findings import add_findings
from vibes_pipelines.reconcile.identifiers import texts_sql
from vibes_pipelines.reconcile.sql import any_of, literal
from vibes_pipelines.sync_config import MappedField, SyncConfig

_WRONG = r"\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}\x{FFFD}-\x{FFFF}"
_UNSEEN = r"\t\n\r\x{AD}\x{180E}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{FEFF}"

WRITTEN_BACK = frozenset({"platform", "newest"})
"""Authorities by which the platform's value may be carried to the CRM."""


def is_wrong_text(text: str) -> str:
    """SQL for: this text holds a character that no text can rightly hold."""
    return f"regexp_matches({text}, {literal(f'[{_WRONG}]')})"


def is_wrong_key(text: str) -> str:
    """SQL for: this key holds one, or one that cannot be seen."""
    return f"regexp_matches({text}, {literal(f'[{_WRONG}{_UNSEEN}]')})"


def find_wrong_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """Adds a finding for each contact whose key would be given to a person; needs `loose`."""
    loose = texts_sql("contact", "SELECT contact_row FROM loose")
    rows = f"SELECT row_number FROM ({loose}) WHERE {is_wrong_key('key')}"
    add_findings(connection, "invalid_contact_key", "contact", rows)


def find_wrong_texts(connection: duckdb.DuckDBPyConnection, config: SyncConfig) -> None:
    """Adds a finding for each candidate with such a text to be carried, no candidate any more."""
    free = [(index, field) for index, field in enumerate(config.fields) if _is_free_text(field)]
    back = [(index, field) for index, field in free if field.authority in WRITTEN_BACK]
    suspects = [_suspects_sql("contact", free), _suspects_sql("person", back)]
    queries = [query for query in suspects if query]
    if not any(connection.execute(f"{query} LIMIT 1").fetchall() for query in queries):
        return
    connection.execute(_find_sql(free))
    connection.execute(
        "DELETE FROM candidate WHERE contact_row IN"
        " (SELECT row_number FROM finding WHERE source = 'contact' AND kind = 'invalid_value')"
    )


def _is_free_text(field: MappedField) -> bool:
    """Whether it takes a text as it is; numbers, dates and options have rules of their own."""
    return field.type not in {"number", "date"} and field.options is None


def _suspects_sql(side: str, fields: Sequence[tuple[int, MappedField]]) -> str | None:
    """SQL for the rows with such a text in any of the fields: one search in them all."""
    if not fields:
        return None
    together = ", ".join(f"value_{index}" for index, _ in fields)
    wrong = is_wrong_text(f"concat_ws(' ', {together})")
    return f"SELECT row_number FROM {side}_value WHERE {wrong}"


def _find_sql(fields: Iterable[tuple[int, MappedField]]) -> str:
    named = ", ".join(
        f"CASE WHEN c.value_{index} IS DISTINCT FROM p.value_{index} AND {_wrong(index, field)}"
        f" THEN {literal(field.to)} END"
        for index, field in fields
    )
    return f"""
        INSERT INTO finding
        SELECT 'contact', contact_row, 'invalid_value',
               {literal(_DETAIL)} || array_to_string(names, ', ')
        FROM (SELECT k.contact_row,
                     list_sort(list_filter([{named}], lambda name: name IS NOT NULL)) AS names
              FROM candidate k
              JOIN contact_value c ON c.row_number = k.contact_row
              LEFT JOIN person_value p ON p.row_number = k.person_row)
        WHERE len(names) > 0"""


def _wrong(index: int, field: MappedField) -> str:
    sides = ("c", "p") if field.authority in WRITTEN_BACK else ("c",)
    return any_of(is_wrong_text(f"{side}.value_{index}") for side in sides)


_DETAIL = "holds a control or replacement character, as a wrong encoding leaves it, in "
