"""Mobile numbers to E.164: the rule, its vectorised short cut, and the pass for the rest.

The rule is phonenumbers' own: parse with the region, a valid number, no extension. The short cut
accepts numbers of country code 1 by a pattern made of phonenumbers' own metadata; whatever it does
not accept is asked of the library once per distinct text.
"""

import functools
import re
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
_WITH_CODE = "+1__________"
_SPELLINGS = ("(___) ___-____", "___-___-____", "___.___.____", "__________")
"""Common spellings of numbers of country code 1; an underscore is any one character."""


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


def national_digits(text: str, default_region: str) -> str:
    """SQL for what may be the national digits of a number of country code 1.

    The branches for common spellings only save time: taking their parts costs half of a removal of
    all punctuation.
    """
    is_home = phonenumbers.country_code_for_region(default_region) == _NANP
    shapes = (_WITH_CODE, *_SPELLINGS) if is_home else (_WITH_CODE,)
    bare = text
    for mark in _PUNCTUATION:
        bare = f"replace({bare}, {literal(mark)}, '')"
    branches = [f"WHEN {text} LIKE {literal(one)} THEN {_parts(text, one)}" for one in shapes]
    return f"CASE {' '.join(branches)} ELSE {_undecorated(bare, is_home=is_home)} END"


def _undecorated(bare: str, *, is_home: bool) -> str:
    branches = [f"WHEN starts_with({bare}, '+1') AND strlen({bare}) = 12 THEN substr({bare}, 3)"]
    if is_home:
        branches += [
            f"WHEN strlen({bare}) = 10 THEN {bare}",
            f"WHEN strlen({bare}) = 11 AND starts_with({bare}, '1') THEN substr({bare}, 2)",
        ]
    return f"CASE {' '.join(branches)} END"


def _parts(text: str, shape: str) -> str:
    """SQL for the runs of a shape's underscores, one after the other."""
    runs = [(run.start() + 1, len(run.group())) for run in re.finditer("_+", shape)]
    parts = [f"substr({text}, {at}, {long})" for at, long in runs]
    return f"concat({', '.join(parts)})" if len(parts) > 1 else parts[0]


def quick_number(national: str) -> str:
    """SQL for the number of the E.164 of `national_digits(...)`, which should be a column.

    NULL where only the library can tell.
    """
    is_valid = f"regexp_full_match({national}, {literal(_nanp_pattern())})"
    return f"CASE WHEN {is_valid} THEN {_NANP}0000000000 + CAST({national} AS BIGINT) END"


def is_e164_text(text: str) -> str:
    """SQL for: this text has the form of E.164, as everything the platform gives out should."""
    return f"regexp_full_match({text}, '[+][1-9][0-9]{{6,14}}')"


def e164_number(text: str) -> str:
    """SQL for the number of a text in the form of E.164; NULL for any other text."""
    return f"CASE WHEN {is_e164_text(text)} THEN CAST({text} AS BIGINT) END"


def odd_number(text: str) -> str:
    """SQL for a number below zero that stands for a text that is no phone number."""
    return f"-1 - CAST(hash({text}) >> 1 AS BIGINT)"


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
