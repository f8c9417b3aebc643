"""Whether a cell of the CRM still holds what a diff set saw in it.

The diff set has canonical text, which many spellings come to; a cell that cannot be read as its
field's type holds something else.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.crm.cells import clean_text, instant_of
from vibes_pipelines.sync_config import FieldType, MappedField

Reader = Callable[[sa.Column[Any], MappedField, Any], object]


def holds(column: sa.Column[Any], field: MappedField, value: Any, canonical: str | None) -> bool:
    """Whether the value of a contact's cell comes to this canonical text; None is blank."""
    read = _CELLS.get(field.type, _text)
    try:
        seen = _TEXTS.get(field.type, str)(canonical) if canonical else None
        return read(column, field, value) == seen
    except (ValueError, InvalidOperation, KeyError):
        return False


def _text(column: sa.Column[Any], _: MappedField, value: Any) -> str | None:
    if isinstance(value, date):
        instant = _instant(value).astimezone(UTC)
        is_day = instant.time() == time.min
        return f"{instant:%Y-%m-%d}" if is_day else f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    return clean_text(column, value)


def _number(column: sa.Column[Any], _: MappedField, value: Any) -> Decimal | None:
    text = clean_text(column, value)
    return Decimal(text) if text else None


def _moment(column: sa.Column[Any], _: MappedField, value: Any) -> datetime | None:
    return _instant(value) if clean_text(column, value) else None


def _option(column: sa.Column[Any], field: MappedField, value: Any) -> str | None:
    text = clean_text(column, value)
    if text is None or field.options is None:
        return text
    keys = {clean_text(column, crm): key for crm, key in field.options.items()}
    return clean_text(column, keys[text])


def _options(column: sa.Column[Any], field: MappedField, value: Any) -> frozenset[str] | None:
    is_list = isinstance(value, list | tuple)
    items = value if is_list else (clean_text(column, value) or "").split(field.separator)
    return frozenset(filter(None, (_option(column, field, item) for item in items))) or None


def _instant(value: Any) -> datetime:
    """To the second, as canonical text has it."""
    instant = instant_of(value)
    if instant is None:
        raise ValueError(value)
    return instant.replace(microsecond=0)


_CELLS: Mapping[FieldType, Reader] = {
    "number": _number,
    "date": _moment,
    "single_select": _option,
    "multi_select": _options,
}

_TEXTS: Mapping[FieldType, Callable[[str], object]] = {
    "number": Decimal,
    "date": _instant,
    "multi_select": lambda text: frozenset(text.split("|")),
}
