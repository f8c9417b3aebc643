"""Consents of profiles, per topic and channel (Consent 2.0); never those of addresses.

Rules: the APSIS One documentation, Consent 2.0. Two of its pages disagree on the answer to a
consent that is there already (200, or 409); both are taken as no change, and a 409 is believed only
after reading the consent back.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from vibes_pipelines.apsis.calls import Call
from vibes_pipelines.apsis.definitions import Place
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisConflict,
    ApsisError,
    ApsisNotFound,
    ApsisUnavailable,
    ConsentRefused,
)
from vibes_pipelines.apsis.profiles import profile_path

if TYPE_CHECKING:
    from vibes_pipelines.apsis.api import ApsisApi

ConsentType = Literal["opt-in", "opt-out", "pending-opt-in", "confirmed-opt-in"]
SettableType = Literal["opt-in", "opt-out"]
"""The other two come from double opt-in and can only be read."""

CONSENT_TYPES: Final[tuple[ConsentType, ...]] = get_args(ConsentType)
_TIMES = 3


class ConsentOutcome(Enum):
    """What setting a consent did."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


_OUTCOMES = {201: ConsentOutcome.CREATED, 204: ConsentOutcome.UPDATED}


@dataclass(frozen=True, slots=True)
class Consent:
    """A profile's state on one topic and channel; `changed_at` when the account says it."""

    topic: str
    channel: str
    type: ConsentType
    changed_at: datetime | None = None

    @property
    def is_opted_in(self) -> bool:
        """Whether messages may be sent now."""
        return self.type in {"opt-in", "confirmed-opt-in"}


async def read(api: "ApsisApi", place: Place, key: str) -> tuple[Consent, ...] | None:
    """All consents of a profile in the section, of every type; None when there is no profile."""
    try:
        items = await _items(api, place, key, CONSENT_TYPES)
        if all(isinstance(item.get("type"), str) for item in items):
            return tuple(_consent(item, item["type"]) for item in items)
        # No page shows an item whole: without its type each type is asked for by itself.
        return tuple(
            [
                _consent(item, consent_type)
                for consent_type in CONSENT_TYPES
                for item in await _items(api, place, key, (consent_type,))
            ]
        )
    except ApsisNotFound:
        return None


async def set_consent(
    api: "ApsisApi",
    place: Place,
    key: str,
    *,
    topic: str,
    channel: str,
    consent_type: SettableType,
    reason: str,
    source: str | None = None,
) -> ConsentOutcome:
    """Sets one consent of one profile.

    An attempt of unknown effect is read back before another one: an opt-in may send the person a
    message, and an opt-out that stands by then may be newer than the attempt.

    Raises:
        ConsentRefused: the present state does not allow it.
        ApsisForbidden: the keyspace lacks manage_subscriptions.
        ApsisNotFound: no such profile.
    """
    if consent_type not in get_args(SettableType):
        raise ApsisError(f"consent type {consent_type!r} can only be read; set opt-in or opt-out")
    if not reason.strip():
        raise ApsisError("a consent needs a reason, which APSIS One shows with it")
    body = {
        "topic_discriminator": topic,
        "channel_discriminator": channel,
        "type": consent_type,
        "reason": reason,
        **({"source": source} if source else {}),
    }
    where = profile_path(place, key, "sections", place.section, "consents", version="v2")
    call = Call("POST", where, body, profile=(place.keyspace, key), repeatable=False)
    times = 0
    while True:
        times += 1
        try:
            reply = await api.call(call)
        except ApsisConflict:
            return await _after_conflict(api, place, key, topic, channel, consent_type)
        except ApsisUnavailable as unavailable:
            if unavailable.did_nothing or times == _TIMES:
                raise
            if await _came_through(api, place, key, (topic, channel, consent_type), unavailable):
                return ConsentOutcome.UPDATED
        else:
            return _OUTCOMES.get(reply.status, ConsentOutcome.UNCHANGED)


async def _came_through(
    api: "ApsisApi",
    place: Place,
    key: str,
    wanted: tuple[str, str, SettableType],
    unavailable: ApsisUnavailable,
) -> bool:
    """Whether an attempt without an answer had its effect; raises where no other may be made."""
    topic, channel, consent_type = wanted
    try:
        current = await _current(api, place, key, topic, channel)
    except ApsisUnavailable:
        raise unavailable from None  # the read's own excuse says nothing about the write
    if consent_type == "opt-in" and current == "opt-out":
        raise unavailable  # it may have come after the attempt
    return _holds(current, consent_type)


async def _after_conflict(
    api: "ApsisApi", place: Place, key: str, topic: str, channel: str, wanted: SettableType
) -> ConsentOutcome:
    current = await _current(api, place, key, topic, channel)
    if _holds(current, wanted):
        return ConsentOutcome.UNCHANGED
    raise ConsentRefused(topic, channel, wanted, current)


async def _current(
    api: "ApsisApi", place: Place, key: str, topic: str, channel: str
) -> ConsentType | None:
    there = {(c.topic, c.channel): c.type for c in await read(api, place, key) or ()}
    return there.get((topic, channel))


def _holds(current: ConsentType | None, wanted: SettableType) -> bool:
    """Whether a state is what is wanted; a confirmed opt-in is an opt-in."""
    return current == wanted or (wanted == "opt-in" and current == "confirmed-opt-in")


async def _items(
    api: "ApsisApi", place: Place, key: str, types: tuple[ConsentType, ...]
) -> list[dict[str, Any]]:
    where = profile_path(place, key, "sections", place.section, "consents", version="v2")
    query = [("consent_types", consent_type) for consent_type in types]
    answer = await api.get(where, query=query, profile=(place.keyspace, key))
    items = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ApsisAnswerError("APSIS One API: the consents of a profile are no list of items")
    return items


def _consent(item: dict[str, Any], consent_type: str) -> Consent:
    topic, channel = item.get("topic_discriminator"), item.get("channel_discriminator")
    if consent_type not in CONSENT_TYPES or not (topic and channel):
        msg = "APSIS One API: a consent without topic, channel or a known type"
        raise ApsisAnswerError(msg)
    return Consent(str(topic), str(channel), consent_type, _instant(item.get("updated_at")))


def _instant(text: Any) -> datetime | None:
    """An RFC 3339 instant; None when there is none (an assumption: no page shows the item)."""
    if not isinstance(text, str):
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else None
