"""Finding a contact's row by the key that the reconcile knows: clean text.

The CRM may hold it as a number, with blanks at its edges or in another normal form.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unicodedata import normalize

import sqlalchemy as sa

from vibes_pipelines.blanks import BLANKS
from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.cells import ValueDoesNotFit, clean_text, column_value
from vibes_pipelines.crm.database import as_held


def find_keys(connection: sa.Connection, key: sa.Column[Any], contact_id: str) -> list[Any]:
    """The keys, as the CRM holds them, that are this text; found by the column's index.

    What the database takes for equal may be somebody else, e.g. in another case: it is looked at.
    """
    is_spelled = _is_text(connection, key) or isinstance(key.type, sa.Integer | sa.Numeric)
    held = as_held(connection, key)
    found = _keys_where(connection, key, held.in_(_forms(connection, key, contact_id)))
    return [
        one
        for one in found
        if not is_spelled or clean_text(key, one) == contact_id or _landed(one) == contact_id
    ]


def _landed(held: Any) -> str | None:
    """What a number that SQLite holds is landed as: its own text, e.g. `7.0`."""
    return as_text(held) if isinstance(held, float) else None


def untrimmed_keys(connection: sa.Connection, key: sa.Column[Any]) -> dict[str, list[Any]]:
    """Every key with a blank at an edge, by its clean text; reads the whole column."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    if not _is_text(connection, key):
        return found
    text = sa.cast(as_held(connection, key), sa.Text)
    at_an_edge = [text.like(pattern) for blank in BLANKS for pattern in (f"{blank}%", f"%{blank}")]
    for one in _keys_where(connection, key, sa.or_(*at_an_edge)):
        if clean := clean_text(key, one):
            found[clean].append(one)
    return found


def _keys_where(
    connection: sa.Connection, key: sa.Column[Any], condition: sa.ColumnElement[bool]
) -> Iterator[Any]:
    statement = sa.select(as_held(connection, key)).select_from(key.table).where(condition)
    # Of CHAR(n) the blanks behind the text are the database's own, which compares without them.
    is_padded = isinstance(key.type, sa.CHAR) and connection.dialect.name != "sqlite"
    for one in connection.scalars(statement.distinct()):
        yield one.rstrip(" ") if is_padded else one


def _forms(connection: sa.Connection, key: sa.Column[Any], contact_id: str) -> list[Any]:
    """The values that the column may hold the key as."""
    forms: set[Any] = set()
    if _is_text(connection, key):
        forms = {contact_id, normalize("NFC", contact_id), normalize("NFD", contact_id)}
    with suppress(ValueDoesNotFit):
        forms.add(column_value(key, contact_id, connection.dialect.name))
    return list(forms)


def _is_text(connection: sa.Connection, key: sa.Column[Any]) -> bool:
    """Whether the column may hold text: a declared type of SQLite promises nothing."""
    return connection.dialect.name == "sqlite" or isinstance(key.type, sa.String)
