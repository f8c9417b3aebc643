"""Events: accepted at once, then perhaps a message, and a callback that says what became of them.

An event id counts once for ever (Vibes documentation, Event API).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from vibes_pipelines.sandbox.activity import Activity, Message, PushMessage, number_after
from vibes_pipelines.sandbox.catalogue import EventType
from vibes_pipelines.sandbox.platform import Person, Platform
from vibes_pipelines.sandbox.platform_records import Notice
from vibes_pipelines.sandbox.platform_refusals import EventIdTakenError
from vibes_pipelines.sandbox.push_devices import PushDevices
from vibes_pipelines.sandbox.shelf import Shelf

MAX_EVENT_BYTES = 16 * 1024
"""Largest event (Vibes documentation, Event-Triggered Messaging)."""

MAX_EVENT_ID = 40
EVENT_TYPE = re.compile(r"[A-Za-z0-9_-]+")

IDENTIFIERS = ("person_key", "person_id", "external_person_id", "mdn", "vibes_device_id")
"""Of these `event_data` holds at least one."""

_REASONS: Mapping[str, str] = {
    "": "accepted_by_event_triggered_message",
    "no_route": "no_route_rules",
    "not_found": "person_not_found",
    "not_subscribed": "person_not_subscribed",
    "no_phone": "carrier_not_supported",
    "no_codes": "et127_no_incentive_codes",
}
"""Words for outcomes; those of success and of no codes are documented, the others an assumption."""

_Stage = Literal["routing", "processing"]


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event; `mdn` E.164."""

    event_type: str
    data: Mapping[str, Any]
    mdn: str | None = None
    event_id: str = field(default_factory=lambda: str(uuid4()))
    debug_data: Mapping[str, Any] | None = None


class Events:
    """The events of one company; used under the platform's lock.

    `codes` are the incentive codes with the pool of each. None is used up: a pool is empty until
    codes are imported.
    """

    def __init__(
        self,
        platform: Platform,
        event_types: Iterable[EventType],
        devices: PushDevices,
        activity: Activity,
        codes: Mapping[str, str],
    ) -> None:
        self.event_types = {entry.name.lower(): entry for entry in event_types}
        self.accepted: Shelf[str, datetime] = Shelf("events")
        self._platform = platform
        self._devices = devices
        self._activity = activity
        self._codes = codes

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return (self.accepted,)

    def accept(self, event: Event, *, refuse_repeats: bool = False) -> bool:
        """Take an event; False when its id was used before and nothing happens.

        Raises EventIdTakenError for such an id when `refuse_repeats`.
        """
        audit = self._platform.audit
        if event.event_id in self.accepted:
            if refuse_repeats:
                raise EventIdTakenError
            audit.repeat("api_event", event.event_id)
            return False
        self.accepted[event.event_id] = self._platform.clock()
        audit.effect("api_event", event.event_id)
        self._process(event)
        return True

    def _process(self, event: Event) -> None:
        """Route the event to its message, send that, and report how it went."""
        entry = self.event_types.get(event.event_type.lower())
        person = self._person(event)
        failure = self._failure(entry, person)
        self._tell(event, entry, "routing", failure)
        if entry is None or person is None or failure:
            return
        if entry.incentive_pool is None or entry.incentive_pool in self._codes.values():
            self._send(entry, person)
        else:
            self._tell(event, entry, "processing", "no_codes")

    def _person(self, event: Event) -> Person | None:
        """Whom the event is about; `person_id` may carry a person key."""
        data = {name: _text(event.data.get(name)) for name in IDENTIFIERS}
        device = self._devices.devices.get(data["vibes_device_id"] or "")
        if device is not None:
            return self._platform.persons[device.person_key]
        either = data["person_key"] or data["person_id"]
        return (
            self._platform.find(person_key=either)
            or self._platform.find(person_id=either)
            or self._platform.find(external_person_id=data["external_person_id"])
            or self._platform.find(mdn=event.mdn)
        )

    def _failure(self, entry: EventType | None, person: Person | None) -> str:
        """Why the event finds no message; empty when it does."""
        if entry is None:
            return "no_route"
        if person is None:
            return "not_found"
        stays = self._platform.subscriptions_of(person.person_key)
        if entry.list_id is not None and all(stay.list_id != entry.list_id for stay in stays):
            return "not_subscribed"
        return "" if person.mdn or self._devices.of(person.person_key) else "no_phone"

    def _send(self, entry: EventType, person: Person) -> None:
        now = self._platform.clock()
        if person.mdn is not None:
            messages = self._activity.messages
            messages[number_after(messages)] = Message(
                now,
                person.person_key,
                person.external_person_id,
                person.mdn,
                person.carrier_code,
                entry.message,
                "EventTriggeredMessage",
                entry.campaign_id,
            )
            return
        device = self._devices.of(person.person_key)[0]
        pushed = self._activity.push_messages
        pushed[number_after(pushed)] = PushMessage(
            now,
            person.person_key,
            person.external_person_id,
            device.vibes_device_id,
            device.os,
            device.push_token,
            device.app_id,
            entry.message,
            "EventTriggeredMessage",
            entry.campaign_id,
        )

    def _tell(self, event: Event, entry: EventType | None, stage: _Stage, failure: str) -> None:
        action = {
            "type": stage,
            "status": "failed" if failure else "processing",
            "status_reason": _REASONS[failure],
        }
        if entry is not None:
            action["resource_url"] = (
                f"/companies/{self._platform.company_key}/mobiledb/event_triggered_messages"
                f"/{entry.campaign_id}"
            )
        told: dict[str, Any] = {
            "event_id": event.event_id,
            "event_type": event.event_type,
            "event_data": event.data,
            "action": action,
        }
        if event.debug_data is not None:
            told["debug_data"] = event.debug_data
        self._platform.on_notice(
            Notice(
                "event_processed",
                self._platform.clock(),
                {"event_type": event.event_type},
                lambda _: {"event_processed": told},
                stage=stage,
                is_failure=bool(failure),
            )
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
