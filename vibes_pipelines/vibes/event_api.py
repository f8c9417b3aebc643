"""The Event API: facts about a person that may lead to a message.

Rules: the Vibes documentation, Event API. The platform ignores an event whose id it has seen, so
that the id makes a repeated send harmless, and every event needs one here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vibes_pipelines.vibes.api_calls import Answer, Calls
from vibes_pipelines.vibes.api_transport import EVENTS

MAX_BYTES = 16 * 1024
"""Larger events are refused."""

MAX_EVENT_ID = 40
IDENTIFIERS = ("external_person_id", "mdn", "person_key", "person_id", "vibes_device_id")

_EVENT_TYPE = re.compile(r"[A-Za-z0-9_-]{1,255}")
# What the documentation could mean by saying that a later event of one id may fail.
_SEEN_BEFORE = frozenset({400, 409, 422})


class InvalidEvent(ValueError):  # noqa: N818 - the name says what is wrong
    """An event that the platform would refuse; the message says which rule it breaks."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `event_data` names the person; `debug_data` is carried along for callbacks.

    Raises:
        InvalidEvent: a rule of the documentation is broken.
    """

    event_id: str
    event_type: str
    event_data: Mapping[str, Any]
    debug_data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < len(self.event_id) <= MAX_EVENT_ID:
            msg = f"event_id has {len(self.event_id)} characters, allowed are 1 to {MAX_EVENT_ID}"
            raise InvalidEvent(msg)
        if not _EVENT_TYPE.fullmatch(self.event_type):
            told = repr(self.event_type[:255])
            msg = f"event_type {told}: use letters, digits, - and _ only, at most 255"
            raise InvalidEvent(msg)
        if not any(self.event_data.get(name) for name in IDENTIFIERS):
            names = ", ".join(IDENTIFIERS)
            msg = f"event {self.event_id}: event_data names no person; give one of {names}"
            raise InvalidEvent(msg)
        try:
            size = len(json.dumps(self.body(), allow_nan=False).encode())
        except ValueError as no_json:
            msg = f"event {self.event_id}: NaN and Infinity are no JSON; leave them out"
            raise InvalidEvent(msg) from no_json
        if size > MAX_BYTES:
            msg = f"event {self.event_id}: {size} bytes, allowed are {MAX_BYTES}; send less data"
            raise InvalidEvent(msg)

    def body(self) -> dict[str, Any]:
        """The event as JSON."""
        named = {"event_id": self.event_id, "event_type": self.event_type}
        debug = {"debug_data": dict(self.debug_data)} if self.debug_data else {}
        return named | {"event_data": dict(self.event_data)} | debug


class EventApi:
    """Sends the company's events, over open calls, in their own rate lane."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def send(self, event: Event) -> Answer:
        """Sends one event. `accepted` promises no message: `event_processed` callbacks tell.

        A refusal after an attempt whose answer was lost is `unknown`: the platform may be refusing
        the repeated id of an event that it took.
        """
        path = f"{self._calls.company}/events"
        answer = await self._calls.write("POST", path, event.body(), lane=EVENTS)
        if answer.is_repeat and answer.status in _SEEN_BEFORE and answer.outcome == "rejected":
            return Answer(answer.status, "unknown", answer.error_class, answer.message)
        return answer
