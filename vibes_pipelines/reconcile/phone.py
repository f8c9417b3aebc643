"""Mobile numbers: the rule by which a text is an MDN, and what it is otherwise.

The rule is phonenumbers' own: parse with the region, a valid number, no extension; and no landline
where the numbering plan tells landlines from mobiles. How many texts are judged fast is not said
here: `numbering` and `home_numbers` judge by SQL, `judged_phones` brings both together.
"""

from enum import StrEnum

import phonenumbers
from phonenumbers import NumberParseException as ParseError
from phonenumbers import PhoneNumber, PhoneNumberType, ValidationResult, shortnumberinfo

NANP = 1
"""The country code whose numbers do not tell a landline from a mobile."""


class Refusal(StrEnum):
    """Why a text is no MDN."""

    NOT_A_NUMBER = "not_a_number"
    EXTENSION = "extension"
    UNKNOWN_COUNTRY = "unknown_country"
    SHORT_CODE = "short_code"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    WRONG_LENGTH = "wrong_length"
    NO_AREA_CODE = "no_area_code"
    UNASSIGNED = "unassigned"
    LANDLINE = "landline"


_UNPARSED = {
    ParseError.INVALID_COUNTRY_CODE: Refusal.UNKNOWN_COUNTRY,
    ParseError.NOT_A_NUMBER: Refusal.NOT_A_NUMBER,
    ParseError.TOO_SHORT_AFTER_IDD: Refusal.TOO_SHORT,
    ParseError.TOO_SHORT_NSN: Refusal.TOO_SHORT,
    ParseError.TOO_LONG: Refusal.TOO_LONG,
}

_INVALID = {
    ValidationResult.IS_POSSIBLE: Refusal.UNASSIGNED,
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: Refusal.NO_AREA_CODE,
    ValidationResult.INVALID_COUNTRY_CODE: Refusal.UNKNOWN_COUNTRY,
    ValidationResult.TOO_SHORT: Refusal.TOO_SHORT,
    ValidationResult.INVALID_LENGTH: Refusal.WRONG_LENGTH,
    ValidationResult.TOO_LONG: Refusal.TOO_LONG,
}


def judge(text: str, default_region: str) -> int | Refusal:
    """The rule for one text: the number of its E.164, or why it is no MDN.

    A number that may be either a landline or a mobile passes, as every number of country code 1
    does: the platform's carrier look-up knows what the numbering plan does not tell.
    """
    try:
        number = phonenumbers.parse(text, default_region)
    except ParseError as error:
        return _UNPARSED[error.error_type]
    if number.extension:
        return Refusal.EXTENSION
    if not phonenumbers.is_valid_number(number):
        return _why_invalid(number)
    if number.country_code != NANP and _is_landline(number):
        return Refusal.LANDLINE
    return int(f"{number.country_code}{phonenumbers.national_significant_number(number)}")


def to_e164(text: str, default_region: str) -> str | None:
    """The E.164 of one text; None when it is no MDN."""
    judged = judge(text, default_region)
    return f"+{judged}" if isinstance(judged, int) else None


def _is_landline(number: PhoneNumber) -> bool:
    return bool(phonenumbers.number_type(number) == PhoneNumberType.FIXED_LINE)


def _why_invalid(number: PhoneNumber) -> Refusal:
    if shortnumberinfo.is_valid_short_number(number):
        return Refusal.SHORT_CODE
    return _INVALID[phonenumbers.is_possible_number_with_reason(number)]


def e164_number(text: str) -> str:
    """SQL for the number of a text in the form of E.164; NULL for any other text.

    Everything that the platform gives out should have this form. A number written out again equals
    its text in no other, and that costs less than a pattern.
    """
    number = f"TRY_CAST({text} AS BIGINT)"
    in_form = f"'+' || {number} = {text} AND strlen({text}) BETWEEN 8 AND 16"
    return f"CASE WHEN {in_form} THEN {number} END"


def is_e164_text(text: str) -> str:
    """SQL for: this text has the form of E.164; false for NULL."""
    return f"({e164_number(text)} IS NOT NULL)"


def odd_number(text: str) -> str:
    """SQL for a number below zero that stands for a text that is no phone number."""
    return f"-1 - CAST(hash({text}) >> 1 AS BIGINT)"
