"""What a company has set up in the platform beside its lists: campaigns, apps, codes, pools.

Plain data. Set-up happens in the platform's own pages, which the sandbox does not have: whoever
wants another catalogue gives it to the sandbox at its start.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from vibes_pipelines.sandbox.platform_records import SubscriptionList

PARTICIPATION = timedelta(hours=24)
"""How long a participation waits for its answer (an assumption: samples show a day)."""

_SINCE = datetime(2025, 1, 1, tzinfo=UTC)
_UNTIL = datetime(2025, 6, 1, tzinfo=UTC)

BroadcastStatus = Literal[
    "scheduled", "in_progress", "sent", "canceled", "deleted", "paused", "failed"
]


@dataclass(frozen=True)
class AcquisitionCampaign:
    """A campaign that brings subscribers to one list; `double` asks them for an answer first."""

    id: str
    description: str
    list_id: str
    keywords: tuple[str, ...]
    opt_in: Literal["double", "single"] = "double"
    status: Literal["scheduled", "active", "deleted", "past"] = "active"
    start: datetime = _SINCE
    end: datetime | None = None


@dataclass(frozen=True)
class WalletCampaign:
    """A wallet campaign under its SmartLink token; `uid` is what extracts call it."""

    token: str
    uid: str
    name: str
    type: Literal["offer", "loyalty", "event_ticket"] = "loyalty"
    created_at: datetime = _SINCE


@dataclass(frozen=True)
class Broadcast:
    """A broadcast to a list, to be read only."""

    id: str
    name: str
    list_id: str
    message: str
    status: BroadcastStatus
    send_date: datetime
    recipients: int = 0


@dataclass(frozen=True)
class EventType:
    """An event type with the event-triggered message that takes it, for persons on `list_id`.

    A message with a code of `incentive_pool` in it is not sent while the pool has none.
    """

    name: str
    campaign_id: str
    message: str
    list_id: str | None = None
    incentive_pool: str | None = None


@dataclass(frozen=True)
class SourceCode:
    """A short code that texts come from."""

    code: str
    country_code: str = "US"
    country_name: str = "United States"


@dataclass(frozen=True)
class Catalogue:
    """Everything set up."""

    campaigns: tuple[AcquisitionCampaign, ...] = ()
    apps: tuple[str, ...] = ()
    wallet_campaigns: tuple[WalletCampaign, ...] = ()
    broadcasts: tuple[Broadcast, ...] = ()
    event_types: tuple[EventType, ...] = ()
    source_codes: tuple[SourceCode, ...] = ()
    incentive_pools: tuple[str, ...] = ()

    def only_for(self, lists: dict[str, SubscriptionList]) -> "Catalogue":
        """Without what belongs to lists that do not exist."""
        return replace(
            self,
            campaigns=tuple(entry for entry in self.campaigns if entry.list_id in lists),
            broadcasts=tuple(entry for entry in self.broadcasts if entry.list_id in lists),
        )


DEFAULT_CATALOGUE = Catalogue(
    campaigns=(
        AcquisitionCampaign("777", "Offers by web form", "1234", ("OFFERS",)),
        AcquisitionCampaign("778", "Offers at the till", "1234", ("TILL",), opt_in="single"),
        AcquisitionCampaign("779", "Last year's", "1234", ("OLD",), status="past", end=_UNTIL),
        AcquisitionCampaign("787", "News by web form", "1235", ("NEWS",)),
    ),
    apps=("APP1",),
    wallet_campaigns=(WalletCampaign("r3zhm8", "cc2b61d0", "Loyalty card"),),
    broadcasts=(
        Broadcast("501", "Spring", "1234", "Spring is here", "sent", _UNTIL, recipients=3),
        Broadcast("502", "Autumn", "1234", "Autumn is near", "scheduled", _UNTIL),
    ),
    event_types=(
        EventType("order_shipped", "901", "Your order is on its way", "1234"),
        EventType("day_of_delivery", "902", "Your order comes today"),
        EventType("coupon_earned", "903", "A coupon for you", incentive_pool="1"),
    ),
    source_codes=(SourceCode("12345"),),
    incentive_pools=("1",),
)
"""The catalogue of a sandbox that is given none."""
