"""What every HTTP status of APSIS One means for us: one table, with the operator's cure.

Rules: the APSIS One documentation, API Responses and Limits, and the vendor's published clients,
which try again later after 408, 429, 500, 501 and 503.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from vibes_pipelines.apsis.errors import (
    ApsisConflict,
    ApsisForbidden,
    ApsisLocked,
    ApsisNotFound,
    ApsisRefused,
    ApsisTooLarge,
    ApsisUnauthorized,
)


class Verdict(Enum):
    """What is to be done about an answer."""

    OK = "ok"
    RETRY_LATER = "retry later"
    FIX_DATA = "fix data"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A status: verdict, what a person does about it, and the error that a refusal is raised as."""

    verdict: Verdict
    cure: str = ""
    error: type[ApsisRefused] = ApsisRefused


_OK = Meaning(Verdict.OK)
_LATER = Meaning(Verdict.RETRY_LATER, "try again later; it is tried again by itself for a while")

STATUSES: Mapping[int, Meaning] = {
    200: _OK,
    201: _OK,
    202: _OK,
    204: _OK,
    207: Meaning(
        Verdict.GIVE_UP, "only part of it may have happened; read the profile before sending again"
    ),
    400: Meaning(Verdict.FIX_DATA, "check the value against the attribute's type in APSIS One"),
    401: Meaning(
        Verdict.GIVE_UP,
        "check APSIS_CLIENT_ID and APSIS_CLIENT_SECRET; the API key may have been deleted",
        ApsisUnauthorized,
    ),
    403: Meaning(
        Verdict.GIVE_UP,
        "give the keyspace manage_subscriptions, and write permission for the attribute or tag; or "
        "take it out of the mapping",
        ApsisForbidden,
    ),
    404: Meaning(
        Verdict.FIX_DATA,
        "the profile, keyspace, section or version is not there; create the profile, or correct "
        "the config",
        ApsisNotFound,
    ),
    408: _LATER,
    409: Meaning(
        Verdict.FIX_DATA,
        "it is there already, or its present state does not allow this; look at the profile in "
        "APSIS One",
        ApsisConflict,
    ),
    410: Meaning(
        Verdict.GIVE_UP,
        "the profile is locked for ever; take the person out of the sync conditions",
        ApsisLocked,
    ),
    413: Meaning(Verdict.FIX_DATA, "map fewer or shorter attributes", ApsisTooLarge),
    429: _LATER,
    500: _LATER,
    501: _LATER,
    503: _LATER,
}
"""The documented statuses; `meaning_of` judges all others by their class."""


def meaning_of(status: int) -> Meaning:
    """The meaning of a status, documented or not."""
    if status in STATUSES:
        return STATUSES[status]
    if 200 <= status < 300:
        return _OK
    if status >= 500:
        return _LATER
    return Meaning(Verdict.GIVE_UP, "no page documents this status; report it to APSIS Support")
