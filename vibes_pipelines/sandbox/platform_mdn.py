"""Phone numbers as the platform takes them: inside E.164, outside by API version or import rule.

Also the carrier look-up, which the sandbox answers from the number alone.
"""

import re
from collections.abc import Callable
from typing import Literal

from vibes_pipelines.sandbox.platform_refusals import MalformedMdnError, NoCarrierError

ApiVersion = Literal[1, 2]

CarrierLookup = Callable[[str], str]
"""Carrier code of an E.164 number; raises NoCarrierError or CarrierLookupDownError."""

_NATIONAL = re.compile(r"[2-9][0-9]{2}[2-9][0-9]{6}")
_E164 = re.compile(r"\+(?:1[2-9][0-9]{2}[2-9][0-9]{6}|[2-9][0-9]{7,14})")
_CARRIERS = ("104", "101", "145")


def parse_mdn(text: str, version: ApiVersion) -> str:
    """The E.164 form of a number as the API version writes it.

    Version 1 takes ten national digits and no country code, version 2 takes E.164 only (Vibes
    documentation, Versions & Compatibility). Raises MalformedMdnError.
    """
    if version == 1:
        if _NATIONAL.fullmatch(text):
            return f"+1{text}"
        raise MalformedMdnError("invalid mdn: API version 1 takes 10 national digits")
    if _E164.fullmatch(text):
        return text
    raise MalformedMdnError("countrynotsupported: API version 2 takes an mdn in E.164 format")


def parse_import_mdn(text: str) -> str:
    """The E.164 form of an import's number: E.164, or ten US digits. Raises MalformedMdnError."""
    if _NATIONAL.fullmatch(text):
        return f"+1{text}"
    if _E164.fullmatch(text):
        return text
    raise MalformedMdnError("The MDN is incorrectly formatted. It should be an E.164 MDN.")


def render_mdn(mdn: str, version: ApiVersion) -> str | None:
    """A number as the API version shows it; version 1 cannot show numbers from outside +1."""
    if version == 2:
        return mdn
    return mdn[2:] if mdn.startswith("+1") else None


def look_up_carrier(mdn: str) -> str:
    """The carrier of a number: last four digits 9900 to 9999 are landlines and have none."""
    if mdn[-4:-2] == "99":
        raise NoCarrierError
    return _CARRIERS[int(mdn[-1]) % len(_CARRIERS)]
