"""Numbering plans as SQL, made of phonenumbers' own metadata; one plan per country code.

Each expression answers only where the library certainly answers the same, and is NULL everywhere
else. How a number is written is not decided here but in `home_numbers` and `judged_phones`: here a
number is its digits after the country code.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneMetadata

from vibes_pipelines.reconcile.phone import NANP
from vibes_pipelines.reconcile.sql import literal

_NANP_DIGITS = 10
_LANDLINE = "fixed_line"
_OTHERS = (
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


@dataclass(frozen=True)
class General:
    """What all numbers of a region have in common: a pattern and the possible lengths."""

    pattern: str
    lengths: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """The plan of one country code, as the library reads it in one context.

    `prefix` is the pattern of the national prefix; a number that has it and `is_rewritten` is not
    just shorter without. `abroad` is the pattern of the region's prefix for calls abroad. By its
    `generals` the library takes prefixes off: of the code's main region, and of the default region
    where that is another.
    """

    code: int
    prefix: str | None
    is_rewritten: bool
    abroad: str | None
    generals: frozenset[General]

    def without_prefix(self, rest: str) -> str:
        """SQL for `rest` without its national prefix; NULL where that is rewritten, not removed."""
        if not self.prefix:
            return rest
        if self.prefix.isdigit():
            bare = f"substr({rest}, {len(self.prefix) + 1})"
            return (
                f"CASE WHEN starts_with({rest}, {literal(self.prefix)}) THEN {bare} ELSE {rest} END"
            )
        start = literal(f"^(?:{self.prefix})")
        bare = f"regexp_replace({rest}, {start}, '')"
        if not self.is_rewritten:
            return bare
        last = re.compile(self.prefix).groups
        return f"CASE WHEN regexp_extract({rest}, {start}, {last}) = '' THEN {bare} END"

    def national(self, rest: str, bare: str) -> str:
        """SQL for which of the two is the number: `bare` is `rest` without its prefix.

        The library takes the prefix off unless that leaves no number where there was one.
        """
        is_kept = f"{self.looks_right(rest)} AND NOT {self.may_look_right(bare)}"
        return (
            f"CASE WHEN {bare} = {rest} THEN {rest} WHEN {self.is_possible(bare)} THEN {bare}"
            f" WHEN {is_kept} THEN {rest} END"
        )

    def looks_right(self, digits: str) -> str:
        """SQL for: the digits have every general pattern."""
        return "(" + " AND ".join(_matches(digits, [one]) for one in self._patterns) + ")"

    def may_look_right(self, digits: str) -> str:
        """SQL for: they have some of them."""
        return _matches(digits, self._patterns)

    def is_possible(self, digits: str) -> str:
        """SQL for: they look right, and are as long as a number may be."""
        lengths = frozenset.intersection(*(one.lengths for one in self.generals))
        return f"({_has_length(digits, lengths)} AND {self.looks_right(digits)})"

    def is_mdn(self, national: str) -> str:
        """SQL for: a number that may be a mobile (true) or a landline (false); else NULL.

        The regions of a code are asked in the library's order. One with leading digits claims all
        numbers that begin so; one without, those that are valid there.
        """
        if self.code == NANP:
            return f"CASE WHEN {_matches(national, _nanp_patterns())} THEN true END"
        branches = []
        for metadata in _regions(self.code):
            mobiles = {*_OTHERS, _LANDLINE} if _has_one_pattern(metadata) else {*_OTHERS}
            kinds = f"WHEN {_is_of(national, metadata, mobiles)} THEN true"
            kinds += f" WHEN {_is_of(national, metadata, {_LANDLINE} - mobiles)} THEN false"
            if metadata.leading_digits is not None:
                start = literal(f"^(?:{metadata.leading_digits})")
                kinds = f"WHEN regexp_matches({national}, {start}) THEN CASE {kinds} END"
            branches.append(kinds)
        return f"CASE {' '.join(branches)} END"

    def number(self, national: str) -> str:
        """SQL for the number of the E.164."""
        return f"CAST('{self.code}' || {national} AS BIGINT)"

    @property
    def _patterns(self) -> list[str]:
        return sorted({one.pattern for one in self.generals})


def plan_of_code(code: int) -> Plan:
    """The plan by which a number is read that is written with its country code."""
    main = _regions(code)[0]
    return _plan(code, main, frozenset({_general(main)}))


def home_plan(region: str) -> Plan | None:
    """The plan by which a number is read that is written without one.

    None for a region that there is not, and for one whose own prefix differs from that of its
    country code's main region (Guernsey, Jersey, Man, Christmas Island, Cocos Islands).
    """
    code = phonenumbers.country_code_for_region(region)
    if not code:
        return None
    own, main = _metadata(code, region), _regions(code)[0]
    if _prefix(own) != _prefix(main):
        return None
    return _plan(code, own, frozenset({_general(own), _general(main)}))


def country_code(digits: str) -> str:
    """SQL for the country code that these digits begin with, be it in use or not."""
    codes = [str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE]
    branches = [
        f"WHEN {digits}[:{size}] IN ({', '.join(literal(c) for c in codes if len(c) == size)})"
        f" THEN {digits}[:{size}]"
        for size in (1, 2)
    ]
    return f"CASE {' '.join(branches)} ELSE {digits}[:3] END"


def nanp_number(national: str, whole: str) -> str:
    """SQL for the number of the E.164 of ten digits of country code 1, NULL if they are none.

    `whole` is `TRY_CAST(national AS BIGINT)`. The first branch only saves time: it looks the first
    four digits up, where all numbers that begin so are in use, and the pattern costs six times as
    much.
    """
    number = f"{NANP}0000000000 + {whole}"
    return (
        f"CASE WHEN {is_in_full_block(national, whole)} THEN {number}"
        f" WHEN {_matches(national, _nanp_patterns())} THEN {number} END"
    )


def is_in_full_block(national: str, whole: str) -> str:
    """SQL for: these certainly are ten digits of country code 1.

    Of ten bytes that are cast to a number of ten digits, only those with an exponent, which makes a
    multiple of 100, or of another base, which begin with 0, are not these digits.
    """
    are_digits = (
        f"strlen({national}) = 10 AND {whole} > 999999999 AND {whole} % 100 <> 0"
        f" AND {national} >= '2'"
    )
    block = f"get_bit({literal(full_nanp_blocks())}::BIT, ({whole} // 1000000)::INTEGER)"
    return f"CASE WHEN {are_digits} THEN {block} = 1 END"


def _plan(code: int, metadata: PhoneMetadata, generals: frozenset[General]) -> Plan:
    return Plan(
        code,
        prefix=metadata.national_prefix_for_parsing,
        is_rewritten=bool(metadata.national_prefix_transform_rule),
        abroad=metadata.international_prefix,
        generals=generals,
    )


@functools.cache
def _regions(code: int) -> tuple[PhoneMetadata, ...]:
    regions = phonenumbers.region_codes_for_country_code(code)
    return tuple(_metadata(code, region) for region in regions)


def _prefix(metadata: PhoneMetadata) -> tuple[str | None, str | None]:
    return metadata.national_prefix_for_parsing, metadata.national_prefix_transform_rule


def _metadata(code: int, region: str) -> PhoneMetadata:
    found = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    if found is None:
        raise KeyError(region)
    return found


def _general(metadata: PhoneMetadata) -> General:
    described = metadata.general_desc
    if described is None or not described.national_number_pattern:
        raise KeyError(metadata.id)
    return General(described.national_number_pattern, frozenset(described.possible_length))


@functools.cache
def _nanp_patterns() -> tuple[str, ...]:
    """Every kind of number that some region of country code 1 has."""
    return tuple(
        sorted(
            {
                pattern
                for metadata in _regions(NANP)
                for kind in (_LANDLINE, *_OTHERS)
                for length, pattern in _kind_patterns(metadata, kind)
                if length == _NANP_DIGITS
            }
        )
    )


@functools.cache
def full_nanp_blocks() -> str:
    """A bit for each 0000 to 9999: whether some kind has every number that begins with these.

    Such blocks are most of those in use: all that begin with 2 to 9 after an area code. A mark in
    the place of what follows the code keeps a pattern's other alternatives out.
    """
    rest, mark = r"[2-9]\d{6}", "#"
    marked = [one.removesuffix(rest) + mark for one in _nanp_patterns() if one.endswith(rest)]
    codes = re.compile("|".join(marked))
    return "".join(
        "0011111111" if codes.fullmatch(f"{code:03}{mark}") else "0000000000"
        for code in range(1000)
    )


def _is_of(national: str, metadata: PhoneMetadata, kinds: Iterable[str]) -> str:
    """SQL for: it is a number of one of these kinds, in pattern and in length."""
    by_length: dict[int, list[str]] = {}
    for kind in kinds:
        for length, pattern in _kind_patterns(metadata, kind):
            by_length.setdefault(length, []).append(pattern)
    by_patterns: dict[tuple[str, ...], list[int]] = {}
    for length, patterns in by_length.items():
        by_patterns.setdefault(tuple(sorted(set(patterns))), []).append(length)
    if not by_patterns:
        return "false"
    branches = [
        f"WHEN {_has_length(national, lengths)} THEN {_matches(national, patterns)}"
        for patterns, lengths in by_patterns.items()
    ]
    general = _matches(national, [_general(metadata).pattern])
    return f"(CASE {' '.join(branches)} ELSE false END AND {general})"


def _kind_patterns(metadata: PhoneMetadata, kind: str) -> list[tuple[int, str]]:
    described = getattr(metadata, kind, None)
    if described is None or not described.national_number_pattern:
        return []
    return [(length, described.national_number_pattern) for length in described.possible_length]


def _has_one_pattern(metadata: PhoneMetadata) -> bool:
    """Landlines and mobiles have the same numbers there."""
    return bool(metadata.same_mobile_and_fixed_line_pattern)


def _has_length(digits: str, lengths: Iterable[int]) -> str:
    return f"strlen({digits}) IN ({', '.join(str(length) for length in sorted(lengths))})"


def _matches(digits: str, patterns: Sequence[str]) -> str:
    return f"regexp_full_match({digits}, {literal('(?:' + '|'.join(patterns) + ')')})"
