"""Dates and instants as SQL, read as UTC: texts as `instants` spells them, without fractions."""

from datetime import UTC, datetime

from vibes_pipelines.instants import DAY, SPELLING
from vibes_pipelines.reconcile.sql import clean, let, literal

_FIRST, _LAST = "TIMESTAMP '0001-01-01 00:00:00'", "TIMESTAMP '9999-12-31 23:59:59.999999'"


def is_moment_type(column_type: str) -> bool:
    """Whether a column of this type already holds dates or instants."""
    return column_type == "DATE" or column_type.startswith("TIMESTAMP")


def moment(expression: str, column_type: str) -> str:
    """SQL for the UTC instant (TIMESTAMP) of a date column or of clean text; unreadable = NULL.

    Zoned columns need the connection's time zone to be UTC.
    """
    if is_moment_type(column_type):
        return _in_range(f"CAST({expression} AS TIMESTAMP)")
    return let("i", _parse(expression), _in_range("i"))


def moment_of(column: str, column_type: str) -> str:
    """SQL for the UTC instant of a column of any type as it is given; unreadable = NULL."""
    if is_moment_type(column_type):
        return moment(column, column_type)
    return let("t", clean(f"CAST({column} AS VARCHAR)"), moment("t", "VARCHAR"))


def latest_possible(instant: str) -> str:
    """SQL for the end of the day when only a day is known: it may have been in its last minute."""
    return (
        f"CASE WHEN {instant} = date_trunc('day', {instant})"
        f" THEN {instant} + INTERVAL 1 DAY ELSE {instant} END"
    )


def is_active(opt_in: str, opt_out: str) -> str:
    """SQL for: a subscription with these last times, both of one source, stands.

    Of an opt-out known to the day no opt-in of that day is the newer.
    """
    newer = f"{opt_in} > {opt_out} AND {opt_in} >= {latest_possible(opt_out)}"
    return f"({opt_out} IS NULL OR coalesce({newer}, false))"


def has_come(instant: str, as_of: datetime | None) -> str:
    """SQL for: this is not still to come. What is, is a broken clock and no evidence.

    A day later than `as_of` is allowed for, because a column without a zone may hold local time.
    """
    if as_of is None:
        return "true"
    return f"{instant} <= {instant_literal(as_of)} + INTERVAL 1 DAY"


def instant_literal(instant: datetime) -> str:
    """SQL for an instant with a zone, as a TIMESTAMP in UTC."""
    return f"TIMESTAMP '{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def moment_text(instant: str) -> str:
    """SQL for the canonical text: the day alone at midnight UTC, else to the second with a `Z`."""
    second = f"date_trunc('second', {instant})"
    return (
        f"CASE WHEN {second} = date_trunc('day', {instant}) THEN strftime({instant}, '%Y-%m-%d')"
        f" ELSE strftime({second}, '%Y-%m-%dT%H:%M:%SZ') END"
    )


def typed_moment_text(column: str, otherwise: str) -> str:
    """SQL for the canonical text of a date or timestamp column; `otherwise` when out of range."""
    instant = f"CAST({column} AS TIMESTAMP)"
    return (
        f"CASE WHEN {is_in_range(instant)} THEN {moment_text(instant)}"
        f" WHEN {column} IS NOT NULL THEN {otherwise} END"
    )


def is_in_range(instant: str) -> str:
    """SQL for: this TIMESTAMP has a year of four digits, as every text format here needs."""
    return f"({instant} BETWEEN {_FIRST} AND {_LAST})"


def is_day_text(text: str) -> str:
    """SQL for: this text is already the canonical text of a day; false of a day that there is not.

    Of that the cast makes NULL, and NOT of NULL would not be true.
    """
    return (
        f"(regexp_full_match({text}, {literal(DAY)})"
        f" AND coalesce(try_cast({text} AS DATE) >= DATE '0001-01-01', false))"
    )


def _in_range(instant: str) -> str:
    return f"CASE WHEN {is_in_range(instant)} THEN {instant} END"


def _parse(text: str) -> str:
    spelling = literal(SPELLING)
    local = f"try_cast(regexp_replace({text}, {spelling}, '\\1 \\2\\3') AS TIMESTAMP)"
    minutes = (
        "to_minutes(60 * try_cast(substr(z, 2, 2) AS BIGINT)"
        " + coalesce(try_cast(nullif(substr(z, 4, 2), '') AS BIGINT), 0))"
    )
    shifted = (
        f"CASE WHEN starts_with(z, '+') THEN l - {minutes}"
        f" WHEN starts_with(z, '-') THEN l + {minutes} ELSE l END"
    )
    zone = f"replace(regexp_extract({text}, {spelling}, 5), ':', '')"
    return (
        f"CASE WHEN regexp_full_match({text}, {literal(DAY)}) THEN try_cast({text} AS TIMESTAMP)"
        f" WHEN regexp_matches({text}, {spelling})"
        f" THEN {let('l', local, let('z', zone, shifted))} END"
    )
