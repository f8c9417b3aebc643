"""What a callback registration and a callback on its way are: plain data, and the known types.

Types, their scopes and the keys of their configuration are those of the Vibes documentation,
Callback API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from vibes_pipelines.sandbox.platform_mdn import ApiVersion

MAX_URL = 1024
"""Longest destination URL, in characters (Vibes documentation, Callback API)."""

MAX_DESTINATIONS = 50
"""To how many URLs the same callback may go (Vibes documentation, Callbacks)."""

METHODS = ("POST", "PUT")
CONTENT_TYPES = ("application/json", "text/json")
CALLBACKS_TO_SEND = ("all", "only_failures", "routing", "carrier_dlr", "handset_dlr")


@dataclass(frozen=True)
class CallbackKind:
    """How one callback type is configured, in an object under the type's own name.

    `required` and `optional` are the keys within that object; a type with neither is company-wide
    and takes no object. `sample_key` is another name for the object, which samples and clients use.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    sample_key: str | None = None

    @property
    def has_config(self) -> bool:
        """Whether a registration of the type holds a configuration."""
        return bool(self.required or self.optional)


KINDS: Mapping[str, CallbackKind] = {
    "subscription_added": CallbackKind(("list_id",)),
    "subscription_removed": CallbackKind(("list_id",), sample_key="subscription_added"),
    "person_added": CallbackKind(),
    "person_updated": CallbackKind(),
    "subscription_list_added": CallbackKind(),
    "subscription_list_updated": CallbackKind(),
    "ack_participant_added": CallbackKind(("campaign_id",)),
    "ack_participant_changed": CallbackKind(("campaign_id",)),
    "company_participant_added": CallbackKind(),
    "company_participant_changed": CallbackKind(),
    "device_added": CallbackKind(("app_id",)),
    "device_updated": CallbackKind(("app_id",)),
    "device_removed": CallbackKind(("app_id",), sample_key="device_added"),
    "wallet_item_install": CallbackKind(("campaign_token",)),
    "wallet_item_remove": CallbackKind(("campaign_token",), sample_key="wallet_item_install"),
    "unmatched_message_received": CallbackKind(("source_code",), ("country_code",)),
    "event_processed": CallbackKind((), ("event_type", "callbacks_to_send")),
}
"""Every callback type that can be registered."""


@dataclass(frozen=True)
class Destination:
    """Where callbacks of a registration go, and how."""

    url: str
    method: str = "POST"
    content_type: str = "application/json"


@dataclass(frozen=True)
class Wish:
    """What a registration request asks for; `start` and `end` aware UTC, `None` when left out."""

    kind: str
    config: Mapping[str, str]
    destination: Destination
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Registration:
    """A registered callback.

    `version` is the API version with which it was created or last altered: it decides how phone
    numbers are written (Vibes documentation, Subscription Callbacks). `end` is exclusive.
    """

    number: int
    kind: str
    config: Mapping[str, str]
    destination: Destination
    version: ApiVersion
    start: datetime
    end: datetime | None
    created_at: datetime
    updated_at: datetime

    def is_active(self, at: datetime) -> bool:
        """Whether events of this instant are sent."""
        return self.start <= at and (self.end is None or at < self.end)


@dataclass(slots=True, eq=False)
class Delivery:
    """One callback on its way to one registration's destination.

    `body` is written when the event happens, so that later changes do not show in it. A copy is a
    scripted duplicate: it is sent once and nothing depends on its answer. The queue gives it its
    number.
    """

    registration: int
    kind: str
    body: Mapping[str, Any] = field(repr=False)
    is_copy: bool = False
    attempts: int = 0
    number: int = 0
