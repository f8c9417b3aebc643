"""Mobile numbers to E.164: the rule, its vectorised short cut, and the pass for the rest.

The rule is phonenumbers' own: parse with the region, a valid number, no extension. The short cut
accepts numbers of country code 1 by a pattern made of phonenumbers' own metadata; whatever it does
not accept is asked of the library once per distinct text.
"""

import functools
from collections.abc import Iterable, Iterator

import phonenumbers
from phonenumbers import PhoneMetadata

from vibes_pipelines.reconcile.sql import literal

_NANP = 1
_NATIONAL_DIGITS = 10
_TYPES = (
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "personal_number",
    "voip",
    "pager",
    "uan",
    "voicemail",
)
_PUNCTUATION = (" ", "-", "(", ")", ".")


def to_e164(text: str, default_region: str) -> str | None:
    """The rule for one text; None when it is not a valid number or carries an extension."""
    try:
        number = phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        return None
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def to_e164_each(texts: Iterable[str], default_region: str) -> Iterator[tuple[str, str | None]]:
    """The rule for many distinct texts, as (text, E.164 or None)."""
    for text in texts:
        yield text, to_e164(text, default_region)


def digits(text: str) -> str:
    """SQL for the text without the punctuation of a phone number; a plus stays."""
    for mark in _PUNCTUATION:
        text = f"replace({text}, {literal(mark)}, '')"
    return text


def quick_e164(text: str, default_region: str) -> str:
    """SQL for the E.164 of `digits(...)`; NULL where only the library can tell."""
    cases = [f"WHEN starts_with({text}, '+1') AND length({text}) = 12 THEN substr({text}, 3)"]
    if phonenumbers.country_code_for_region(default_region) == _NANP:
        cases += [
            f"WHEN length({text}) = 10 THEN {text}",
            f"WHEN length({text}) = 11 AND starts_with({text}, '1') THEN substr({text}, 2)",
        ]
    national = f"CASE {' '.join(cases)} END"
    return (
        f"CASE WHEN regexp_full_match({national}, {literal(_nanp_pattern())})"
        f" THEN '+1' || {national} END"
    )


def is_e164_text(text: str) -> str:
    """SQL for: this text has the form of E.164, as everything the platform gives out should."""
    return f"regexp_full_match({text}, '[+][1-9][0-9]{{6,14}}')"


@functools.cache
def _nanp_pattern() -> str:
    """Every national number that some region of country code 1 counts as valid."""
    patterns = set()
    for region in phonenumbers.region_codes_for_country_code(_NANP):
        metadata = PhoneMetadata.metadata_for_region(region, None)
        for kind in _TYPES:
            described = getattr(metadata, kind, None)
            if described is None or not described.national_number_pattern:
                continue
            if _NATIONAL_DIGITS in (described.possible_length or (_NATIONAL_DIGITS,)):
                patterns.add(described.national_number_pattern.replace("\\d", "[0-9]"))
    return "(?:" + "|".join(sorted(patterns)) + ")"
