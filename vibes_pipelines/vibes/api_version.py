"""The two versions of the API differ in how they write a number; our code knows only E.164.

Rules: the Vibes documentation, Versions and Compatibility. Version 1 writes the ten national
digits and knows no number outside the North American plan; version 2 writes E.164.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

ApiVersion = Literal[1, 2]

_NORTH_AMERICAN = re.compile(r"\+1(\d{10})")
_NATIONAL = re.compile(r"\d{10}")
_PERSON_PARTS = ("mobile_phone", "event_data")
# What an account puts there is its own: a custom field may be called mdn and hold anything.
_NOT_OURS = frozenset({"custom_fields", "debug_data"})


class NotInVersion1(ValueError):  # noqa: N818 - the name says what is wrong
    """A number outside the North American plan, which version 1 of the API cannot name."""


def sent_mdn(mdn: str, version: ApiVersion) -> str:
    """An E.164 number as this version writes it.

    Raises:
        NotInVersion1: version 1 has no form for the number.
    """
    if version == 2:
        return mdn
    match = _NORTH_AMERICAN.fullmatch(mdn)
    if not match:
        msg = "version 1 of the API cannot name this number (it is not +1 and ten digits); use 2"
        raise NotInVersion1(msg)
    return match[1]


def read_mdn(text: str, version: ApiVersion) -> str:
    """A number of the API in E.164; what is no national number comes back as it is."""
    return f"+1{text}" if version == 1 and _NATIONAL.fullmatch(text) else text


def sent_body(body: Mapping[str, Any], version: ApiVersion) -> Mapping[str, Any]:
    """A body with its person's number as this version writes it.

    Raises:
        NotInVersion1: version 1 has no form for the number.
    """
    if version == 2:
        return body
    return {
        key: _sent_part(value, version) if key in _PERSON_PARTS else value
        for key, value in body.items()
    }


def read_answer(found: Any, version: ApiVersion) -> Any:
    """The JSON of an answer with the numbers of persons in E.164, wherever they stand."""
    if version == 2:
        return found
    if isinstance(found, list):
        return [read_answer(item, version) for item in found]
    if not isinstance(found, Mapping):
        return found
    return {key: _read_item(key, item, version) for key, item in found.items()}


def _sent_part(part: Any, version: ApiVersion) -> Any:
    mdn = part.get("mdn") if isinstance(part, Mapping) else None
    return {**part, "mdn": sent_mdn(mdn, version)} if isinstance(mdn, str) else part


def _read_item(key: str, item: Any, version: ApiVersion) -> Any:
    if key == "mdn" and isinstance(item, str):
        return read_mdn(item, version)
    return item if key in _NOT_OURS else read_answer(item, version)
