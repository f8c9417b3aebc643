"""The short cut for numbers of the default region's own country code, as SQL over every row.

It is written as steps, each of which should become a column before the next is computed. What it
leaves NULL is for `judged_phones`. Numbers of country code 1 have a way of their own: their
spellings are few, and they are the most.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import re
from collections.abc import Iterable

import phonenumbers

from vibes_pipelines.reconcile.numbering import Plan, home_plan, nanp_number
from vibes_pipelines.reconcile.phone import NANP
from vibes_pipelines.reconcile.sql import let, literal

_NANP_PUNCTUATION = (" ", "-", "(", ")", ".")
_PUNCTUATION = (*_NANP_PUNCTUATION, "/")
_WITH_CODE = "+1__________"
_SPELLINGS = ("(___) ___-____", "___-___-____", "___.___.____", "__________")
"""Common spellings of numbers of country code 1; an underscore is any one character."""
_LONGEST = 250
"""The library reads no longer text, in characters; here it is counted in bytes."""

Step = tuple[str, str]
"""The name of a column and its SQL, which may name the columns of the steps before."""


def numbered(cell: str, text: str, default_region: str) -> str:
    """The CTEs after the CTE `cell`; the last, `numbered`, has its columns and the `mdn` of `text`.

    `mdn` is the number of the E.164, NULL where only the library can tell.
    """
    ctes, before = [], cell
    for name, sql in _steps(text, default_region):
        after = "numbered" if name == "mdn" else f"{name}_of"
        ctes.append(f"{after} AS (SELECT *, {sql} AS {name} FROM {before})")
        before = after
    return ", ".join(ctes)


def quick_number(text: str, default_region: str) -> str:
    """SQL for the same `mdn` in one expression, which costs more: for few rows."""
    *earlier, (_, sql) = _steps("phone", default_region)
    for name, value in reversed(earlier):
        sql = let(name, value, sql)
    return let("phone", text, sql)


def without_punctuation(text: str, marks: Iterable[str] = _PUNCTUATION) -> str:
    """SQL for the text without what the library reads over; NULL for a text too long for it."""
    bare = text
    for mark in marks:
        bare = f"replace({bare}, {literal(mark)}, '')"
    return f"CASE WHEN strlen({text}) <= {_LONGEST} THEN {bare} END"


def rest_of(plan: Plan, digits: str) -> str:
    """SQL for the digits after the country code, be that written or not.

    NULL for another country's number, and where the library has to weigh what is meant.
    """
    code = str(plan.code)
    after = f"substr({digits}, {len(code) + 1})"
    is_unprefixed = f"coalesce({plan.without_prefix(after)} = {after}, false)"
    is_code = f"NOT {plan.may_look_right(digits)} AND {plan.looks_right(after)} AND {is_unprefixed}"
    return (
        f"CASE WHEN starts_with({digits}, '+{code}') THEN substr({digits}, {len(code) + 2})"
        f" WHEN starts_with({digits}, '+') THEN NULL {_abroad(plan, digits)}"
        f" WHEN NOT starts_with({digits}, '{code}') THEN {digits}"
        f" WHEN {plan.is_possible(digits)} THEN {digits} WHEN {is_code} THEN {after} END"
    )


def _abroad(plan: Plan, digits: str) -> str:
    """The branches for a number dialled with the prefix for calls abroad."""
    if not plan.abroad:
        return ""
    if not plan.abroad.isdigit():
        return f"WHEN regexp_matches({digits}, {literal(f'^(?:{plan.abroad})')}) THEN NULL"
    home = f"{plan.abroad}{plan.code}"
    return (
        f"WHEN starts_with({digits}, '{home}') THEN substr({digits}, {len(home) + 1})"
        f" WHEN starts_with({digits}, '{plan.abroad}') THEN NULL"
    )


def _steps(text: str, default_region: str) -> list[Step]:
    if phonenumbers.country_code_for_region(default_region) == NANP:
        return [
            ("national", _nanp_digits(text)),
            ("whole", "TRY_CAST(national AS BIGINT)"),
            ("mdn", nanp_number("national", "whole")),
        ]
    plan = home_plan(default_region)
    if plan is None:
        return [("mdn", "NULL::BIGINT")]
    return [
        ("digits", without_punctuation(text)),
        ("rest", rest_of(plan, "digits")),
        ("bare", plan.without_prefix("rest")),
        ("national", plan.national("rest", "bare")),
        ("mdn", f"CASE WHEN {plan.is_mdn('national')} THEN {plan.number('national')} END"),
    ]


def _nanp_digits(text: str) -> str:
    """SQL for what may be the ten digits of a number of country code 1.

    The branches for common spellings only save time: taking their parts costs half of a removal of
    all punctuation.
    """
    shapes = (_WITH_CODE, *_SPELLINGS)
    branches = [f"WHEN {text} LIKE {literal(one)} THEN {_parts(text, one)}" for one in shapes]
    digits = without_punctuation(text, _NANP_PUNCTUATION)
    return f"CASE {' '.join(branches)} ELSE {_nanp_undecorated(digits)} END"


def _nanp_undecorated(digits: str) -> str:
    return (
        f"CASE WHEN starts_with({digits}, '+1') AND strlen({digits}) = 12 THEN substr({digits}, 3)"
        f" WHEN strlen({digits}) = 10 THEN {digits}"
        f" WHEN strlen({digits}) = 11 AND starts_with({digits}, '1') THEN substr({digits}, 2) END"
    )


def _parts(text: str, shape: str) -> str:
    """SQL for the runs of a shape's underscores, one after the other."""
    runs = [(run.start() + 1, len(run.group())) for run in re.finditer("_+", shape)]
    parts = [f"substr({text}, {at}, {long})" for at, long in runs]
    return " || ".join(parts)
