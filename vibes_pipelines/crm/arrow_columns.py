"""CRM values as Arrow columns: typed where the database keeps types strictly, else as text."""

import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

_LARGEST_PRECISION = 38


def arrow_type(declared: sa.types.TypeEngine[Any]) -> pa.DataType:
    """The Arrow type that holds every value of a declared column type; text for all others."""
    match declared:
        case sa.Boolean():
            return pa.bool_()
        case sa.Integer():
            return pa.int64()
        case sa.DateTime():
            return pa.timestamp("us", "UTC" if declared.timezone else None)
        case sa.Date():
            return pa.date32()
        case sa.Float():
            return pa.float64()
        case sa.Numeric():
            return _decimal_type(declared)
    return pa.string()


def arrow_column(values: Sequence[Any], declared: pa.DataType) -> pa.Array:
    """One column of one partition."""
    if not pa.types.is_string(declared):
        return pa.array(values, declared)
    try:
        return pa.array(values, declared)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([as_text(value) for value in values], declared)


def as_text(value: Any) -> str | None:
    """A database value as the text the reconcile reads: ISO dates, plain decimals."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case datetime() | date():
            return value.isoformat()
        case bytes() | memoryview():
            return bytes(value).hex()
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, sort_keys=True, default=as_text)
    return str(value)


def _decimal_type(declared: sa.Numeric[Any]) -> pa.DataType:
    precision, scale = declared.precision, declared.scale
    if precision is None or scale is None or precision > _LARGEST_PRECISION:
        return pa.string()
    return pa.decimal128(precision, scale)
