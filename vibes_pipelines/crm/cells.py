"""Values as the CRM's own columns hold them: keys, opted-out spellings, field values."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.crm.arrow_columns import arrow_type, as_text
from vibes_pipelines.instants import read_instant
from vibes_pipelines.sync_config import Consent, MappedField
from vibes_pipelines.sync_config.spellings import as_compared

Converter = Callable[[str], Any]

_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_SPELLED: tuple[tuple[type[sa.types.TypeEngine[Any]], re.Pattern[str]], ...] = (
    (sa.Integer, _WHOLE),
    (sa.Numeric, _PLAIN),
    (sa.Float, _PLAIN),
)
"""How numbers are spelled. Python reads more, e.g. `007` and `1e3`: keys of other people."""

_BITS: tuple[tuple[type[sa.types.TypeEngine[Any]], int], ...] = (
    (sa.SmallInteger, 15),
    (sa.BigInteger, 63),
    (sa.Integer, 31),
)


class ValueDoesNotFit(ValueError):  # noqa: N818 - the name says what is wrong
    """A column of the CRM cannot hold this value."""


def clean_text(column: sa.Column[Any], value: Any) -> str | None:
    """A value of the column as the clean text that the reconcile reads; None is blank."""
    if isinstance(value, Decimal | float) and not pa.types.is_string(arrow_type(column.type)):
        whole, _, fraction = f"{Decimal(str(value)):f}".partition(".")
        return f"{whole}.{fraction.rstrip('0')}".rstrip(".")
    return trimmed(as_text(value) or "")


def column_value(column: sa.Column[Any], text: str, dialect: str) -> Any:
    """Canonical text as a value of the column's declared type.

    Raises:
        ValueDoesNotFit: e.g. letters for an integer column.
    """
    convert = _converter(column.type, dialect)
    try:
        _refuse_other_spellings(column.type, text)
        value = convert(text)
        _refuse_too_large(column.type, value, dialect)
        _refuse_too_long(column.type, text, dialect)
    except (ValueError, ArithmeticError):
        msg = f"column {column.name} ({column.type}) cannot hold a value of this form"
        raise ValueDoesNotFit(msg) from None  # the cause holds the value
    return value


def field_value(column: sa.Column[Any], field: MappedField, after: str | None, dialect: str) -> Any:
    """A custom field's canonical text as its column holds it; selects as the CRM's own values.

    Raises:
        ValueDoesNotFit: the column cannot hold it, or an option key has no CRM value.
    """
    if after is None:
        return None
    if field.type == "multi_select":
        values = [_crm_option(field, key) for key in after.split("|")]
        if isinstance(column.type, sa.ARRAY):
            item = sa.Column(column.name, column.type.item_type)
            return [column_value(item, value, dialect) for value in values]
        return column_value(column, field.separator.join(values), dialect)
    text = _crm_option(field, after) if field.type == "single_select" else after
    return column_value(column, text, dialect)


def instant_value(column: sa.ColumnElement[Any], instant: datetime) -> Any:
    """An instant as the column holds it: aware or naive UTC, or ISO text ending in Z."""
    utc = instant.astimezone(UTC)
    match column.type:
        case sa.DateTime():
            return utc if column.type.timezone else utc.replace(tzinfo=None)
        case sa.Date():
            return utc.date()
    return f"{utc:%Y-%m-%dT%H:%M:%SZ}"


def instant_of(value: Any) -> datetime | None:
    """The instant that a column holds, UTC unless it says otherwise; None when it holds none.

    As the reconcile reads it: a fraction of a second counts in a column of times, not in a text.
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC)
    if isinstance(value, date):
        return datetime.combine(value, time.min, UTC)
    instant = read_instant(trimmed(as_text(value) or "") or "")
    return instant and instant.replace(microsecond=0)


def latest_possible(instant: datetime) -> datetime:
    """The end of the day when only a day is known: it may have been in its last minute."""
    is_day = instant.astimezone(UTC).time() == time.min
    return instant + timedelta(days=1) if is_day else instant


def has_come(instant: datetime) -> bool:
    """Whether this is not still to come. What is, is a broken clock and no evidence.

    A day later than now is allowed for, because a column without a zone may hold local time.
    """
    return instant <= datetime.now(UTC) + timedelta(days=1)


def opted_out_value(
    column: sa.Column[Any], consent: Consent, in_use: Sequence[Any], dialect: str
) -> Any:
    """How this column says opted out.

    The accepted spelling that contacts use most; without one, the first of its enumeration, or the
    first spelling of sync.yaml that fits the column's type and length.

    Raises:
        ValueDoesNotFit: no accepted spelling fits the column.
    """
    enumerated = column.type.enums if isinstance(column.type, sa.Enum) else ()
    for value in (*in_use, *enumerated):
        if as_compared(as_text(value) or "") in consent.says_out:
            return value
    for spelling in consent.written_out:
        try:
            return column_value(column, spelling, dialect)
        except ValueDoesNotFit:
            continue
    msg = (
        f"no value of consents.opted_out fits column {column.name} ({column.type}); add one in "
        "sync.yaml"
    )
    raise ValueDoesNotFit(msg)


def says_yes(column: sa.Column[Any], value: Any, consent: Consent) -> bool:
    """Whether a cell is opted in; a blank or unreadable one is not."""
    return as_compared(clean_text(column, value) or "") in consent.says_in


def _crm_option(field: MappedField, key: str) -> str:
    """The CRM's value for an option key: the first one in sync.yaml that maps to it."""
    if field.options is None:
        return key
    for crm_value, option_key in field.options.items():
        if option_key == key:
            return crm_value
    msg = f"option key {key!r} of field {field.to} has no CRM value; add it to options in sync.yaml"
    raise ValueDoesNotFit(msg)


def _refuse_other_spellings(declared: sa.types.TypeEngine[Any], text: str) -> None:
    spelled = (spelling for kind, spelling in _SPELLED if isinstance(declared, kind))
    spelling = next(spelled, None)
    if spelling is not None and not spelling.fullmatch(text):
        raise ValueError(text)


def _refuse_too_large(declared: sa.types.TypeEngine[Any], value: Any, dialect: str) -> None:
    """Whole numbers beyond those of the column, which some drivers cannot even send."""
    if not isinstance(declared, sa.Integer):
        return
    named = (bits for kind, bits in _BITS if isinstance(declared, kind))
    bits = next(named) if dialect == "postgresql" else 63  # others name sizes otherwise, or none
    least, most = -(2**bits), 2**bits
    if getattr(declared, "unsigned", False):  # of MySQL
        least, most = 0, 2**64
    if not least <= value < most:
        raise ValueError(value)


def _refuse_too_long(declared: sa.types.TypeEngine[Any], text: str, dialect: str) -> None:
    """Texts beyond the declared length, or not of the enumeration; SQLite holds to neither."""
    is_set = hasattr(declared, "values")  # of MySQL: its length is that of one member
    if dialect == "sqlite" or is_set or not isinstance(declared, sa.String):
        return
    if isinstance(declared, sa.Enum):
        if text not in declared.enums:
            raise ValueError(text)
    elif isinstance(declared.length, int) and len(text) > declared.length:
        raise ValueError(text)


def _converter(declared: sa.types.TypeEngine[Any], dialect: str) -> Converter:
    if isinstance(declared, sa.DateTime):
        return _moment_aware if declared.timezone else _moment_naive
    if isinstance(declared, sa.Numeric):
        # SQLite has no decimals; its driver would warn about the loss at every value.
        return float if dialect == "sqlite" else Decimal
    plain = (convert for kind, convert in _PLAIN_CONVERTERS if isinstance(declared, kind))
    return next(plain, str)


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.strip().lower() not in values:
        raise ValueError(text)
    return values[text.strip().lower()]


def _moment_aware(text: str) -> datetime:
    moment = read_instant(text)
    if moment is None:
        raise ValueError(text)
    return moment


def _moment_naive(text: str) -> datetime:
    return _moment_aware(text).astimezone(UTC).replace(tzinfo=None)


def _day(text: str) -> date:
    return _moment_aware(text).astimezone(UTC).date()


_PLAIN_CONVERTERS: tuple[tuple[type[sa.types.TypeEngine[Any]], Converter], ...] = (
    (sa.Boolean, _boolean),
    (sa.Integer, int),
    (sa.Float, float),
    (sa.Date, _day),
    (sa.Uuid, UUID),
)
