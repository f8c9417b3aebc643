"""CRM values as Arrow columns: typed where the database keeps types strictly, else as text.

A PostgreSQL array of texts is a list of texts.
"""

import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

TEXTS = pa.list_(pa.string())
"""The Arrow type of a list of texts."""

_LARGEST_PRECISION = 38

_PLAIN_TYPES: tuple[tuple[type[sa.types.TypeEngine[Any]], pa.DataType], ...] = (
    (sa.Boolean, pa.bool_()),
    (sa.Integer, pa.int64()),
    (sa.Float, pa.float64()),
    (sa.Date, pa.date32()),
)

_RENDERERS: tuple[tuple[tuple[type, ...], Callable[[Any], str]], ...] = (
    ((bool,), lambda value: "true" if value else "false"),
    ((Decimal,), lambda value: f"{value:f}"),
    ((datetime, date), lambda value: value.isoformat()),
    ((bytes, memoryview), lambda value: _bytes_text(bytes(value))),
    (
        (list, dict),
        lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True, default=as_text),
    ),
)


def arrow_type(declared: sa.types.TypeEngine[Any]) -> pa.DataType:
    """The Arrow type that holds every value of a declared column type; text for all others."""
    if isinstance(declared, sa.DateTime):
        return pa.timestamp("us", "UTC" if declared.timezone else None)
    if isinstance(declared, sa.Numeric):
        return _decimal_type(declared)
    if isinstance(declared, sa.ARRAY) and is_plain_text(declared.item_type):
        return TEXTS
    plain = (arrow for kind, arrow in _PLAIN_TYPES if isinstance(declared, kind))
    return next(plain, pa.string())


def is_plain_text(declared: sa.types.TypeEngine[Any]) -> bool:
    """Whether the driver gives every value as a text; it does not know the values of an enum."""
    return isinstance(declared, sa.String) and not isinstance(declared, sa.Enum)


def arrow_column(values: Sequence[Any], declared: pa.DataType) -> pa.Array:
    """One column of one partition."""
    if pa.types.is_string(declared) and not {str, type(None)}.issuperset(map(type, values)):
        values = [as_text(value) for value in values]
    try:
        return pa.array(values, declared)
    except UnicodeEncodeError:
        return pa.array([_whole(value) for value in values], declared)


def as_text(value: Any) -> str | None:
    """A database value as the text the reconcile reads: ISO dates, plain decimals.

    Always the same for the same value, whatever stands beside it.
    """
    if value is None or isinstance(value, str):
        return value
    renderers = (render for kinds, render in _RENDERERS if isinstance(value, kinds))
    return next(renderers, str)(value)


def _whole(value: Any) -> Any:
    """Without the halves of characters that JSON can name: what replaces one is quarantined."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bytes_text(value: bytes) -> str:
    """The text that the bytes are, as SQLite may hold one; else, as of a key or hash, their hex."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    is_binary = any(unicodedata.category(one) == "Cc" and one not in "\t\r\n" for one in text)
    return value.hex() if is_binary else text


def _decimal_type(declared: sa.Numeric[Any]) -> pa.DataType:
    precision, scale = declared.precision, declared.scale
    if precision is None or scale is None or not 0 <= scale <= precision <= _LARGEST_PRECISION:
        return pa.string()
    return pa.decimal128(precision, scale)
