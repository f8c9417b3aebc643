"""The Callback API: which events the platform sends, and where. The events are `callbacks`.

Rules: the Vibes documentation, Callbacks and Callback API. A registration is for one list, one
campaign, one app or one source code, as its type asks; several addresses are several registrations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from vibes_pipelines.vibes.api_calls import (
    Answer,
    Calls,
    Record,
    all_records,
    one_record,
    segment,
    text_of,
)
from vibes_pipelines.vibes.api_transport import VibesApiError, VibesAuthError

MAX_URL = 1024

_NO_TARGET = (
    "company_participant_added",
    "company_participant_changed",
    "person_added",
    "person_updated",
    "subscription_list_added",
    "subscription_list_updated",
)

TARGETS: Mapping[str, tuple[str, ...]] = {
    "subscription_added": ("list_id",),
    "subscription_removed": ("list_id",),
    "ack_participant_added": ("campaign_id",),
    "ack_participant_changed": ("campaign_id",),
    "device_added": ("app_id",),
    "device_updated": ("app_id",),
    "device_removed": ("app_id",),
    "wallet_item_install": ("campaign_token",),
    "wallet_item_remove": ("campaign_token",),
    "unmatched_message_received": ("source_code",),
    "event_processed": (),
    **dict.fromkeys(_NO_TARGET, ()),
}
"""Every callback type, with what its registration must name."""

# The published schema wants this object even when it names nothing.
_ALWAYS_NAMED = frozenset({"event_processed"})
_UNTESTABLE = frozenset({"wallet_item_install", "wallet_item_remove", "unmatched_message_received"})
# The documentation's samples put the target of these under the key of the sister type.
_SISTERS = {
    "subscription_removed": "subscription_added",
    "wallet_item_remove": "wallet_item_install",
    "device_removed": "device_added",
}
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class InvalidCallback(ValueError):  # noqa: N818 - the name says what is wrong
    """A registration that the platform would refuse; the message names the rule."""


@dataclass(frozen=True, slots=True)
class CallbackSpec:
    """What to register. `target` as `TARGETS` asks, e.g. `{"list_id": "1234"}`.

    Raises:
        InvalidCallback: an unknown type, a target that is missing, or an unusable address.
    """

    callback_type: str
    url: str
    target: Mapping[str, str] = field(default_factory=dict)
    method: Literal["POST", "PUT"] = "POST"
    start_date: str | None = None
    end_date: str | None = None

    def __post_init__(self) -> None:
        if self.callback_type not in TARGETS:
            msg = f"no callback type {self.callback_type!r}; one of {', '.join(sorted(TARGETS))}"
            raise InvalidCallback(msg)
        missing = [name for name in TARGETS[self.callback_type] if not self.target.get(name)]
        if missing:
            msg = f"callback {self.callback_type}: name its {', '.join(missing)}"
            raise InvalidCallback(msg)
        address = urlsplit(self.url)
        if address.scheme != "https" and address.hostname not in _LOOPBACK:
            msg = f"callback {self.callback_type}: the address must begin with https://"
            raise InvalidCallback(msg)
        if len(self.url) > MAX_URL:
            msg = f"callback {self.callback_type}: the address is longer than {MAX_URL} characters"
            raise InvalidCallback(msg)

    def body(self) -> dict[str, Any]:
        """The registration as JSON."""
        destination = {"url": self.url, "method": self.method, "content_type": "application/json"}
        body: dict[str, Any] = {"callback_type": self.callback_type, "destination": destination}
        if self.target or self.callback_type in _ALWAYS_NAMED:
            body[self.callback_type] = dict(self.target)
        dates = {"start_date": self.start_date, "end_date": self.end_date}
        return body | {name: date for name, date in dates.items() if date is not None}

    def matches(self, registration: "Registration") -> bool:
        """True when the registration sends the same events to the same address."""
        wanted = (self.callback_type, self.url, self.method)
        has = (registration.callback_type, registration.url, registration.method)
        return wanted == has and dict(self.target).items() <= dict(registration.target).items()


@dataclass(frozen=True, slots=True)
class Registration:
    """A callback as the platform has it. Ids are text here: it writes text or numbers."""

    callback_id: str
    callback_type: str
    url: str
    method: str
    target: Mapping[str, str]
    created_at: str | None
    updated_at: str | None
    end_date: str | None

    @classmethod
    def read(cls, record: Record) -> Self:
        """A registration in any of the documented forms."""
        kind = text_of(record, "callback_type", "event_type") or ""
        destination = record.get("destination")
        place = destination if isinstance(destination, dict) else {}
        named = record.get(kind) or record.get(_SISTERS.get(kind, kind))
        target = named if isinstance(named, dict) else {}
        return cls(
            callback_id=text_of(record, "callback_id") or "",
            callback_type=kind,
            url=text_of(place, "url") or "",
            method=text_of(place, "method") or "POST",
            target={key: str(value) for key, value in target.items() if value is not None},
            created_at=text_of(record, "created_at", "created_date"),
            updated_at=text_of(record, "updated_at", "updated_date"),
            end_date=text_of(record, "end_date"),
        )


class CallbackApi:
    """The company's registrations, over open calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._root = f"{calls.company}/config/callbacks"

    async def registrations(self) -> list[Registration]:
        """All registrations."""
        found = all_records(await self._calls.read(f"{self._root}/") or [])
        return [Registration.read(record) for record in found]

    async def registration(self, callback_id: str) -> Registration | None:
        """One registration."""
        record = one_record(await self._calls.read(f"{self._root}/{segment(callback_id)}"))
        return None if record is None else Registration.read(record)

    async def register(self, spec: CallbackSpec) -> Answer:
        """Registers a callback; the answer's body is what `Registration.read` takes.

        A second registration of the same is a second delivery of every event. When no answer
        comes the registrations are read: one that matches is the answer, none leaves it unknown.
        """
        answer = await self._calls.write("POST", f"{self._root}/", spec.body(), repeatable=False)
        if answer.outcome != "unknown":
            return answer
        try:
            records = all_records(await self._calls.read(f"{self._root}/") or [])
        except VibesAuthError:
            raise
        except VibesApiError:
            return answer
        same = (record for record in records if spec.matches(Registration.read(record)))
        found = next(same, None)
        return answer if found is None else Answer(200, "accepted", body=found, is_repeat=True)

    async def update(self, callback_id: str, spec: CallbackSpec) -> Answer:
        """Replaces a registration. Bodies then have the form of this client's API version."""
        path = f"{self._root}/{segment(callback_id)}"
        return await self._calls.write("PUT", path, spec.body())

    async def cancel(self, callback_id: str) -> Answer:
        """Ends a registration. Not there any more after a lost answer: it was ended by that."""
        answer = await self._calls.write("DELETE", f"{self._root}/{segment(callback_id)}")
        if answer.status == 404 and answer.is_repeat:
            return Answer(404, "accepted", is_repeat=True)
        return answer

    async def test(self, callback_type: str, sample: Mapping[str, Any] | None = None) -> Answer:
        """Has the platform send a made-up event of a type; the body has its `event_id`.

        `sample` is put into the event, e.g. `{"person": {...}}`. `NoActiveCallback`: nothing is
        registered for the type.

        Raises:
            InvalidCallback: the platform does not test this type.
        """
        if callback_type not in TARGETS or callback_type in _UNTESTABLE:
            msg = f"the platform does not test callbacks of type {callback_type!r}"
            raise InvalidCallback(msg)
        path = f"{self._calls.company}/config/callback_events/test"
        body = {"callback_type": callback_type, **(sample or {})}
        answer = await self._calls.write("POST", path, body, repeatable=False)
        if answer.status == 404 and answer.outcome == "rejected":
            return Answer(404, "rejected", "NoActiveCallback", answer.message)
        return answer
