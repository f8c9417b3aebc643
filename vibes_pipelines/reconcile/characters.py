"""Characters that no text can rightly hold: what a broken export or a wrong encoding leaves behind.

Control characters, U+FFFD (what a decoder writes for bytes it cannot read) and noncharacters are
wrong in every text. In a key, line breaks, tabs and what has no width are wrong too: two keys that
look alike would be two persons; and a key may be longer than a ledger keeps. Only a text that
would be carried to the other side is judged, so that what both sides hold already costs nothing. An
assumption: the Vibes documentation is silent.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Iterable

import duckdb

from vibes_pipelines.reconcile.findings import WRONG_KEY, add_findings
from vibes_pipelines.reconcile.identifiers import texts_sql
from vibes_pipelines.reconcile.sql import any_of, literal, text_list
from vibes_pipelines.sync_config import MappedField, SyncConfig

_WRONG = r"\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}\x{FFFD}-\x{FFFF}"
_UNSEEN = r"\t\n\r\x{AD}\x{180E}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{FEFF}"

LONGEST_KEY = 255
"""Characters of a contact's key that every ledger keeps; Vibes itself takes fewer, and says so."""


def is_wrong_text(text: str) -> str:
    """SQL for: this text holds a character that no text can rightly hold."""
    return f"regexp_matches({text}, {literal(f'[{_WRONG}]')})"


def is_wrong_key(text: str) -> str:
    """SQL for: this key holds one, or one that cannot be seen."""
    return f"regexp_matches({text}, {literal(f'[{_WRONG}{_UNSEEN}]')})"


def find_wrong_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """Adds a finding for each contact whose key would be given to a person; needs `loose`."""
    loose = texts_sql("contact", "SELECT contact_row FROM loose")
    wrong = is_wrong_key("key")
    connection.execute(f"""
        CREATE TEMP TABLE odd_key AS
        SELECT row_number, {wrong} AS is_wrong, length(key) AS characters FROM ({loose})
        WHERE {wrong} OR length(key) > {LONGEST_KEY}""")
    rows = "SELECT row_number FROM odd_key WHERE is_wrong"
    add_findings(connection, WRONG_KEY, "contact", rows)
    connection.execute(f"""
        INSERT INTO finding
        SELECT 'contact', row_number, {literal(WRONG_KEY)},
               'the key has ' || characters || ' characters; {LONGEST_KEY} is the most'
        FROM odd_key WHERE NOT is_wrong""")


def find_wrong_texts(connection: duckdb.DuckDBPyConnection, config: SyncConfig) -> None:
    """Adds a finding for each contact with such a text to be carried; needs `proposal`.

    It is neither in `difference` nor a candidate any more.
    """
    free = [field for field in config.fields if _is_free_text(field)]
    back = [field for field in free if field.is_written_back]
    is_wrong = any_of((_is_wrong("cell.contact", free), _is_wrong("cell.person", back)))
    suspect = f"""
        SELECT contact_row FROM (SELECT contact_row, unnest(cells) AS cell FROM difference)
        WHERE {is_wrong}"""
    if not connection.execute(f"{suspect} LIMIT 1").fetchall():
        return
    # What is carried is told for few only: it costs as much as all that was compared.
    connection.execute(f"""
        INSERT INTO finding
        SELECT 'contact', contact_row, 'invalid_value',
               {literal(_DETAIL)} || string_agg(DISTINCT cell.field, ', ' ORDER BY cell.field)
        FROM (SELECT contact_row, unnest(list_concat(changes, crm_changes)) AS cell
              FROM proposal WHERE contact_row IN ({suspect}))
        WHERE {_is_wrong("cell.after", free)} GROUP BY contact_row""")
    for table in ("candidate", "difference"):
        connection.execute(
            f"DELETE FROM {table} WHERE contact_row IN"
            " (SELECT row_number FROM finding WHERE source = 'contact' AND kind = 'invalid_value')"
        )


def _is_free_text(field: MappedField) -> bool:
    """Whether it takes a text as it is; numbers, dates and options have rules of their own."""
    return field.type not in {"number", "date"} and field.options is None


def _is_wrong(text: str, fields: Iterable[MappedField]) -> str:
    """SQL for: the cell is of one of these fields, and this text of it is wrong."""
    names = text_list(field.to for field in fields)
    return f"cell.field IN {names} AND {is_wrong_text(text)}"


_DETAIL = "holds a control or replacement character, as a wrong encoding leaves it, in "
