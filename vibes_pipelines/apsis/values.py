"""The formats in which APSIS One takes values, and the canonical text of what it gives back.

Rules: the APSIS One documentation, Supported Data Formats. Input is canonical text, as the
reconcile writes it, or a typed value; refusals name the type and the cure and never the value.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from vibes_pipelines.apsis.errors import ValueRefused
from vibes_pipelines.blanks import trimmed

ValueType = Literal["text", "integer", "decimal", "boolean", "country", "email", "mobile", "date"]

Raw = str | int | Decimal | date | bool
"""What can be given: canonical text, or a typed value."""

JsonValue = str | int | float | bool
"""What a request holds."""

MAX_TEXT: Final = 1000
_MAX_DIGITS: Final = 15
"""Numbers of more significant digits do not survive JSON readers (an assumption)."""

_EMAIL = re.compile(
    r"[^\s@\"(),:;<>\[\]\\]+@(?:[^\W_](?:(?:[^\W_]|-)*[^\W_])?\.)+(?:[^\W\d_]{2,}|xn--[a-z0-9-]+)",
    re.IGNORECASE,
)
_MOBILE = re.compile(r"[1-9][0-9]{6,14}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def json_value(value_type: ValueType, value: Raw) -> JsonValue:
    """A value as a request holds it.

    Raises:
        ValueRefused: it has no form in this type.
    """
    return _WRITERS[value_type](value)


def cell(value_type: ValueType, value: Raw) -> str:
    """A value as a cell of an import file, never blank.

    Raises:
        ValueRefused: it has no form in this type.
    """
    return canonical(value_type, json_value(value_type, value))


def canonical(value_type: ValueType, value: JsonValue) -> str:
    """The text of a value read back, so that equal values have equal texts.

    Raises:
        ValueRefused: what came back is no value of this type.
    """
    if value_type == "boolean" and isinstance(value, bool):
        return "true" if value else "false"
    if value_type in {"integer", "decimal"}:
        return _plain(_number(value_type, value))
    if value_type == "email":
        return trimmed(str(value)) or ""
    if value_type == "date":
        return str(value)[:10]  # time and offset, if any came along, are not kept by APSIS One
    return str(value)


def _text(value: Raw) -> str:
    text = _printable("text", value)
    if len(text) > MAX_TEXT:
        raise ValueRefused(
            "text", f"{len(text):,} characters", f"shorten it to {MAX_TEXT:,} or map another field"
        )
    return text


def _integer(value: Raw) -> int:
    number = _number("integer", value)
    if number != number.to_integral_value():
        raise ValueRefused(
            "integer", "it has decimals", 'use an attribute of type "Number with decimals"'
        )
    return int(number)


def _decimal(value: Raw) -> int | float:
    number = _number("decimal", value)
    return int(number) if number == number.to_integral_value() else float(number)


def _boolean(value: Raw) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "false": False}
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueRefused("boolean", "neither true nor false", "map the source's own two values")
    return known[value.lower()]


def _country(value: Raw) -> str:
    text = _printable("country", value).strip().upper()
    if not _COUNTRY.fullmatch(text):
        raise ValueRefused(
            "country", "not two letters", "map country names to ISO 3166-1 alpha-2, such as SE"
        )
    return text


def _email(value: Raw) -> str:
    text = _printable("email", value).strip()
    local, _, domain = text.rpartition("@")
    if not _EMAIL.fullmatch(text) or len(local) > 64 or len(domain) > 255:
        raise ValueRefused("email", "no valid address", "correct it in the CRM")
    return text


def _mobile(value: Raw) -> int:
    text = _printable("mobile", value).removeprefix("+")
    if not _MOBILE.fullmatch(text):
        raise ValueRefused(
            "mobile", "no number with country code", "write it in E.164 in the CRM, such as +4670…"
        )
    return int(text)


def _date(value: Raw) -> str:
    if isinstance(value, datetime):
        raise ValueRefused("date", "it has a time", "give the day alone, in the person's own zone")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass  # refused just below, like every other text
    raise ValueRefused("date", "no day as YYYY-MM-DD", "other forms are misread by APSIS One")


_WRITERS: Mapping[ValueType, Callable[[Raw], JsonValue]] = {
    "text": _text,
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    "country": _country,
    "email": _email,
    "mobile": _mobile,
    "date": _date,
}


def _printable(value_type: str, value: Raw) -> str:
    """Text without blanks around it; refuses blank text and what no UTF-8 file can hold."""
    text = trimmed(value) if isinstance(value, str) else str(value)
    if text is None or text.isspace():  # e.g. an em space alone, which others take for a blank
        raise ValueRefused(value_type, "it is blank", "leave the value out, or clear it expressly")
    if _UNPRINTABLE.search(text):
        raise ValueRefused(value_type, "it holds control characters", "correct it in the CRM")
    return text


def _number(value_type: str, value: Raw | float) -> Decimal:
    if isinstance(value, bool):
        raise ValueRefused(value_type, "it is true or false", "use an attribute of type boolean")
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation as malformed:
        raise ValueRefused(value_type, "no number", "write digits and a decimal point") from (
            malformed
        )
    if not number.is_finite():
        raise ValueRefused(value_type, "not finite", "correct it in the source")
    if len(_plain(number).lstrip("-").replace(".", "").lstrip("0")) > _MAX_DIGITS:
        raise ValueRefused(
            value_type, f"more than {_MAX_DIGITS} digits", "round it, or use an attribute of text"
        )
    return number


def _plain(number: Decimal) -> str:
    """Digits and a point: no exponent, no closing zeros, no minus before zero."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text
