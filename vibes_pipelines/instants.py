"""How a text spells an instant: one grammar, for what reads it in SQL and what reads it in Python.

Every spelling met at Vibes (Person API and Standard Data Extracts: `2017-01-15T14:30Z`,
`2017-04-05 14:30:00 -0600`) or in a CRM; what else Python would read as ISO is no instant. Where a
rule in SQL and a look right before a write read one cell differently, one asks every day for what
the other refuses.
"""

import re
from datetime import UTC, datetime

DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
SPELLING = (
    rf"^({DAY})[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9])(:[0-5][0-9])?"
    r"(\.[0-9]+)? ?(Z|UTC|[+-](?:0[0-9]|1[0-9]):?[0-5][0-9]|[+-](?:0[0-9]|1[0-9]))?$"
)
"""Of a day with a time. Its groups: day, hour and minute, second, fraction, zone."""

_DAY, _SPELLING = re.compile(DAY), re.compile(SPELLING)


def read_instant(text: str) -> datetime | None:
    """The instant that the whole text spells, in its own zone; None when it spells none.

    A text without a zone is UTC (an assumption: the documentation of Vibes is silent). A fraction
    is read to the microsecond.
    """
    try:
        instant = datetime.fromisoformat(_as_iso(text))
        instant.astimezone(UTC)
    except (ValueError, OverflowError):  # no day of a calendar, or in UTC no year of four digits
        return None
    return instant


def _as_iso(text: str) -> str:
    if _DAY.fullmatch(text):
        return f"{text}T00:00Z"
    spelled = _SPELLING.fullmatch(text)
    if spelled is None:
        raise ValueError(text)
    day, minute, second, fraction, zone = spelled.groups(default="")
    zone = "Z" if zone in {"", "UTC"} else zone
    return f"{day}T{minute}{second or ':00'}{fraction}{zone}"
