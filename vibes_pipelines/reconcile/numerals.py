"""Numbers as SQL: exact decimal text, without float noise and without a size limit."""

import re

from vibes_pipelines.reconcile.sql import let, literal

_CANONICAL = r"0|-?[1-9][0-9]*"
LONGEST = 308
"""Digits before the point: more do not fit a double, by which JSON readers hold numbers."""
_WORD_DIGITS = 18
"""Of a DECIMAL that is computed in machine words."""
_PLAIN = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_EXPONENT = r"([+-]?)([0-9]+)\.?([0-9]*)[eE]([+-]?[0-9]{1,3})"


def is_canonical_whole(text: str) -> str:
    """SQL for: this text already is the canonical text of a whole number."""
    return f"(strlen({text}) <= {LONGEST} AND regexp_full_match({text}, {literal(_CANONICAL)}))"


def number_text(text: str, otherwise: str) -> str:
    """SQL for the canonical text of clean text: `1`, `1.0`, `01` and `1e0` are all `1`.

    `otherwise` is the SQL of the result for what is not a number (among them inf and nan), or too
    great for one (1e400), where the clean text is called `t`.
    """
    exact = (
        f"CASE WHEN regexp_full_match(t, {literal(_PLAIN)}) THEN {_shorten('t')}"
        f" WHEN regexp_full_match(t, {literal(_EXPONENT)})"
        f" THEN {let('x', _expand('t'), _shorten('x'))} END"
    )
    is_held = f"strlen(ltrim(split_part(n, '.', 1), '-')) <= {LONGEST}"
    slow = let("n", exact, f"CASE WHEN {is_held} THEN n ELSE {otherwise} END")
    return (
        f"CASE WHEN {is_canonical_whole(text)} THEN {text}"
        f" WHEN {text} IS NOT NULL THEN {let('t', text, slow)} END"
    )


def decimal_text(column: str, column_type: str) -> str:
    """SQL for the canonical text of a DECIMAL column: without zeros behind its point.

    Where machine words hold the value, as many digits of it are written as it needs: to take the
    zeros off its text costs four times as much.
    """
    precision, scale = map(int, re.findall("[0-9]+", column_type))
    text = f"CAST({column} AS VARCHAR)"
    if scale == 0:
        return text
    if precision == scale:  # the engine writes `.5`
        return f"CASE WHEN {column} IS NOT NULL THEN {_shorten(text)} END"
    if precision > _WORD_DIGITS:
        return f"rtrim(rtrim({text}, '0'), '.')"
    branches = []
    for digits in range(scale):
        # One digit more than the value has: it may be rounded up.
        fewer = f"CAST({column} AS DECIMAL({precision - scale + digits + 1}, {digits}))"
        branches.append(f"WHEN {fewer} = {column} THEN CAST({fewer} AS VARCHAR)")
    return f"CASE {' '.join(branches)} ELSE {text} END"


def _shorten(text: str) -> str:
    digits = f"ltrim({text}, '+-')"
    whole = f"coalesce(nullif(ltrim(split_part({digits}, '.', 1), '0'), ''), '0')"
    fraction = f"coalesce('.' || nullif(rtrim(split_part({digits}, '.', 2), '0'), ''), '')"
    sign = f"CASE WHEN starts_with({text}, '-') AND regexp_matches({digits}, '[1-9]') THEN '-'"
    return f"({sign} ELSE '' END || {whole} || {fraction})"


def _expand(text: str) -> str:
    """Writes out an exponent by moving the point through the digits: exact, whatever its size."""
    pattern = literal(f"^{_EXPONENT}$")
    sign, whole, fraction = (f"regexp_extract({text}, {pattern}, {group})" for group in (1, 2, 3))
    power = f"try_cast(regexp_extract({text}, {pattern}, 4) AS INTEGER)"
    longer = "rpad(f, greatest(length(f), n)::INTEGER, '0')"
    wider = "lpad(w, greatest(length(w), 1 - n)::INTEGER, '0')"
    up = let("d", longer, "w || left(d, n) || '.' || substr(d, n + 1)")
    down = let("d", wider, "left(d, length(d) + n) || '.' || right(d, -n) || f")
    moved = f"CASE WHEN n >= 0 THEN {up} ELSE {down} END"
    bound = let("w", whole, let("f", fraction, let("n", power, moved)))
    return f"({sign} || {bound})"
