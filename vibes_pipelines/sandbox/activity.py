"""What the platform sent and saw: messages, push messages, clicks, passes on phones, page views.

Extracts tell of these day by day; nothing else depends on them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from vibes_pipelines.sandbox.shelf import Shelf

ActivityType = Literal[
    "ACQUISITION",
    "Broadcast",
    "Campaigns::Site",
    "Campaigns::Wallet",
    "DateTriggeredBroadcast",
    "EventTriggeredMessage",
    "INCENTIVE",
    "MSG",
    "NONE",
    "help",
]
"""Kinds of activity that a message can belong to (Vibes documentation, Activity Types)."""

SUCCESS = "SUCCESS"
"""The status of a message that was sent; any other is a failure in words."""


@dataclass(frozen=True, slots=True)
class Message:
    """A text message sent to a person, who is shown as they were then."""

    at: datetime
    person_key: str
    external_person_id: str | None
    mdn: str
    carrier_code: str | None
    text: str
    activity_type: ActivityType
    activity_id: str | None = None
    status: str = SUCCESS


@dataclass(frozen=True, slots=True)
class PushMessage:
    """A push message sent to a device."""

    at: datetime
    person_key: str
    external_person_id: str | None
    vibes_device_id: str
    os: str
    push_token: str
    app_id: str
    content: str
    activity_type: ActivityType
    activity_id: str | None = None
    response: str = "Success"


@dataclass(frozen=True, slots=True)
class Click:
    """A click on a short URL that a message held."""

    at: datetime
    person_key: str
    external_person_id: str | None
    mdn: str | None
    message_id: str | None
    short_key: str
    long_url: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class WalletInstance:
    """A pass on one phone; a pass that comes back is another instance."""

    uid: str
    token: str
    uuid: str
    provider: Literal["passbook", "google_wallet"]
    platform: str
    registered_at: datetime
    unregistered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PageView:
    """A view of a wallet campaign's page."""

    at: datetime
    token: str
    uuid: str | None
    page_type: Literal["UNKNOWN", "smartlink", "location_selector", "passbook"]
    platform: str
    user_agent: str


class Activity:
    """The record of everything sent and seen, numbered by its order."""

    def __init__(self) -> None:
        self.messages: Shelf[int, Message] = Shelf("messages")
        self.push_messages: Shelf[int, PushMessage] = Shelf("push_messages")
        self.clicks: Shelf[int, Click] = Shelf("clicks")
        self.page_views: Shelf[int, PageView] = Shelf("page_views")
        self.wallet_instances: Shelf[str, WalletInstance] = Shelf("wallet_instances")

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return (
            self.messages,
            self.push_messages,
            self.clicks,
            self.page_views,
            self.wallet_instances,
        )


def number_after(shelf: Shelf[int, Any]) -> int:
    """The next number on a numbered shelf, whose last record has the highest one."""
    return next(reversed(shelf), 0) + 1
