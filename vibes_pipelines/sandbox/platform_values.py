"""How custom field values are written and shown: one row of a table per field type.

JSON forms are the API's, text forms the import's. A date is `YYYY-MM-DDTHH:MM:SSZ`; an import may
also give an offset. Selects are written as option keys and shown as objects. Numbers keep four
decimals, as the share shows them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from vibes_pipelines.sandbox.platform_records import CustomField, FieldType, Value

_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_DATE_WITH_OFFSET = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", re.ASCII)
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)", re.ASCII)
_POSTAL_CODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 -]{0,8}[A-Za-z0-9])?")
_FOUR_DECIMALS = Decimal("0.0001")
_LARGEST_NUMBER = Decimal(10) ** 14


class InvalidValueError(ValueError):
    """The value does not fit the custom field; the message says what does."""


class CharsetError(InvalidValueError):
    """A string holds characters outside the custom field's character set."""


@dataclass(frozen=True)
class _Form:
    """How one field type is read from JSON and shown as JSON."""

    read: Callable[[CustomField, Any], Value]
    show: Callable[[CustomField, Any], object]


def read_json(field: CustomField, value: object) -> Value:
    """The value that a JSON body writes; `null` clears. Raises InvalidValueError."""
    return None if value is None else _FORMS[field.type].read(field, value)


def show_json(field: CustomField, value: Value) -> object:
    """The value as the API shows it; unset fields are `null`, unset multi selects `[]`."""
    if value is None:
        return [] if field.type == "multi_select" else None
    return _FORMS[field.type].show(field, value)


def read_text(field: CustomField, text: str, separator: str) -> Value:
    """The value of an import's cell that is not blank. Raises InvalidValueError."""
    match field.type:
        case "multi_select":
            return _multi_select(field, text.split(separator))
        case "date" if _DATE_WITH_OFFSET.fullmatch(text):
            return _instant(text)
        case _:
            return _FORMS[field.type].read(field, text)


def show_instant(
    instant: datetime, to_the: Literal["minutes", "seconds", "milliseconds"] = "seconds"
) -> str:
    """An instant in UTC; unlike with strftime the year 1 has four digits, too."""
    return instant.astimezone(UTC).isoformat(timespec=to_the).replace("+00:00", "Z")


def _string(field: CustomField, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValueError("takes a string")
    if field.charset == "ascii" and not value.isascii():
        raise CharsetError("Custom field value is incompatible with the field's character set")
    return value


def _postal_code(_: CustomField, value: object) -> str:
    """At most ten letters, digits, blanks, hyphens (an assumption: the documentation is silent)."""
    if not isinstance(value, str) or not _POSTAL_CODE.fullmatch(value):
        raise InvalidValueError(
            "takes a postal code of at most 10 letters, digits, blanks and hyphens"
        )
    return value


def _number(_: CustomField, value: object) -> Decimal:
    """A JSON number or its decimal text."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise InvalidValueError("takes a number")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise InvalidValueError("takes a number")
    number = Decimal(value)
    if abs(number) >= _LARGEST_NUMBER:
        raise InvalidValueError("takes a number of at most 14 digits before the decimal point")
    return number.quantize(_FOUR_DECIMALS, rounding=ROUND_HALF_UP) or Decimal(0)  # never -0


def _show_number(_: CustomField, value: Decimal) -> str:
    """Text, as the published API description types every custom field."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _date(_: CustomField, value: object) -> datetime:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise InvalidValueError("takes a date as YYYY-MM-DDTHH:MM:SSZ")
    return _instant(value)


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidValueError("takes a date that exists") from error


def _single_select(field: CustomField, value: object) -> str:
    if not isinstance(value, str) or value not in field.options:
        raise InvalidValueError("takes one of its option keys")
    return value


def _multi_select(field: CustomField, value: object) -> tuple[str, ...]:
    """A list of option keys; order and repetition carry no meaning."""
    if not isinstance(value, list):
        raise InvalidValueError("takes a list of its option keys")
    return tuple(sorted({_single_select(field, option) for option in value}))


def _show_option(field: CustomField, key: str) -> dict[str, str]:
    number = field.options.index(key) + 1
    return {"id": str(number), "name": key.replace("_", " ").title(), "option_key": key}


def _show_options(field: CustomField, keys: tuple[str, ...]) -> list[dict[str, str]]:
    return [_show_option(field, key) for key in keys]


def _as_is(_: CustomField, value: str) -> str:
    return value


def _show_date(_: CustomField, value: datetime) -> str:
    return show_instant(value)


_FORMS: Mapping[FieldType, _Form] = {
    "string": _Form(_string, _as_is),
    "postal_code": _Form(_postal_code, _as_is),
    "number": _Form(_number, _show_number),
    "date": _Form(_date, _show_date),
    "single_select": _Form(_single_select, _show_option),
    "multi_select": _Form(_multi_select, _show_options),
}
