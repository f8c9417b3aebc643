"""Dates and instants as SQL: every spelling met at Vibes or in a CRM, read as UTC.

Spellings: the Vibes documentation, Person API and Standard Data Extracts (`2017-01-15T14:30Z`,
`2017-04-05 14:30:00 -0600`). A text without a zone is UTC (an assumption: the documentation is
silent).
"""

from vibes_pipelines.reconcile.sql import literal

_SPELLING = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9])(:[0-5][0-9])?"
    r"(?:\.[0-9]+)? ?(Z|UTC|[+-](?:0[0-9]|1[0-9]):?[0-5][0-9]|[+-](?:0[0-9]|1[0-9]))?$"
)
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_FIRST, _LAST = "TIMESTAMP '0001-01-01 00:00:00'", "TIMESTAMP '9999-12-31 23:59:59.999999'"


def is_moment_type(column_type: str) -> bool:
    """Whether a column of this type already holds dates or instants."""
    return column_type == "DATE" or column_type.startswith("TIMESTAMP")


def moment(expression: str, column_type: str) -> str:
    """SQL for the UTC instant (TIMESTAMP) of a date column or of clean text; unreadable = NULL.

    Zoned columns need the connection's time zone to be UTC.
    """
    read = _cast(expression) if is_moment_type(column_type) else _parse(expression)
    return f"CASE WHEN {read} BETWEEN {_FIRST} AND {_LAST} THEN {read} END"


def moment_text(instant: str) -> str:
    """SQL for the canonical text: the day alone at midnight UTC, else to the second with a `Z`."""
    second = f"date_trunc('second', {instant})"
    return (
        f"CASE WHEN {second} = date_trunc('day', {instant}) THEN strftime({instant}, '%Y-%m-%d')"
        f" ELSE strftime({second}, '%Y-%m-%dT%H:%M:%SZ') END"
    )


def is_day_text(text: str) -> str:
    """SQL for: this text is already the canonical text of a day."""
    return (
        f"(regexp_full_match({text}, {literal(_DAY)})"
        f" AND try_cast({text} AS DATE) >= DATE '0001-01-01')"
    )


def _cast(expression: str) -> str:
    return f"CAST({expression} AS TIMESTAMP)"


def _parse(text: str) -> str:
    spelling = literal(_SPELLING)
    local = f"try_cast(regexp_replace({text}, {spelling}, '\\1 \\2\\3') AS TIMESTAMP)"
    zone = f"replace(regexp_extract({text}, {spelling}, 4), ':', '')"
    minutes = (
        f"(60 * try_cast(substr({zone}, 2, 2) AS BIGINT)"
        f" + coalesce(try_cast(nullif(substr({zone}, 4, 2), '') AS BIGINT), 0))"
    )
    return (
        f"CASE WHEN regexp_full_match({text}, {literal(_DAY)}) THEN try_cast({text} AS TIMESTAMP)"
        f" WHEN NOT regexp_matches({text}, {spelling}) THEN NULL"
        f" WHEN {zone}[1] = '+' THEN {local} - to_minutes({minutes})"
        f" WHEN {zone}[1] = '-' THEN {local} + to_minutes({minutes})"
        f" ELSE {local} END"
    )
