"""Which values an attribute of the APSIS One stand-in takes, in JSON and in a cell of an import.

From the documentation's page on data formats, read strictly: the ambiguous forms of dates that the
real account misreads are refused here.
"""

import re
from datetime import date
from typing import Any

from vibes_pipelines.sandbox.apsis_records import Attribute, ProblemError, Value

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_DIGITS = re.compile(r"[1-9]\d{6,14}", re.ASCII)
_WHOLE = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_COUNTRY = re.compile(r"[A-Z]{2}")


def read_json(attribute: Attribute, value: Any) -> Value:
    """A value of a request's body; raises ProblemError."""
    kind = attribute.type
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "integer" and is_number and isinstance(value, int):
        return value
    if kind == "decimal" and is_number:
        return float(value)
    if kind == "mobile" and isinstance(value, int) and is_number and _DIGITS.fullmatch(str(value)):
        return value
    if kind not in {"boolean", "integer", "decimal", "mobile"} and isinstance(value, str):
        return _read_text(attribute, value)
    raise _bad(attribute)


def read_cell(attribute: Attribute, cell: str) -> Value:
    """A cell of an import that is not blank; raises ProblemError."""
    kind = attribute.type
    if kind == "boolean" and cell in {"true", "false"}:
        return cell == "true"
    if kind == "integer" and _WHOLE.fullmatch(cell):
        return int(cell)
    if kind == "decimal" and _DECIMAL.fullmatch(cell):
        return float(cell)
    if kind == "mobile" and _DIGITS.fullmatch(cell):
        return int(cell)
    if kind in {"boolean", "integer", "decimal", "mobile"}:
        raise _bad(attribute)
    return _read_text(attribute, cell)


def is_address(text: str) -> bool:
    """Whether a text can be the address of a consent: e-mail, or digits with country code."""
    return bool(_EMAIL.fullmatch(text) or _DIGITS.fullmatch(text))


def _read_text(attribute: Attribute, text: str) -> str:
    kind = attribute.type
    is_good = {
        "text": 0 < len(text) <= 1000,
        "email": bool(_EMAIL.fullmatch(text)),
        "country": bool(_COUNTRY.fullmatch(text)),
        "date": _is_day(text),
    }[kind]
    if not is_good:
        raise _bad(attribute)
    return text


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _bad(attribute: Attribute) -> ProblemError:
    return ProblemError(400, "Bad Request", f"{attribute.discriminator} takes a {attribute.type}")
