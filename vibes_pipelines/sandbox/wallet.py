"""Wallet items: passes that end users keep in Apple's or Google's wallet.

An item arises when somebody opens a SmartLink; the API reads and changes it (Vibes documentation,
Wallet). Google lets the platform change 20 items a second.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from vibes_pipelines.sandbox.activity import Activity, PageView, WalletInstance, number_after
from vibes_pipelines.sandbox.api_limits import RateLimit
from vibes_pipelines.sandbox.catalogue import WalletCampaign
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_records import Notice
from vibes_pipelines.sandbox.platform_refusals import NotFoundError, TooManyRequestsError
from vibes_pipelines.sandbox.platform_values import show_instant
from vibes_pipelines.sandbox.shelf import Shelf

Provider = Literal["passbook", "google_wallet"]

FIRST_CLASS_FIELDS = frozenset(
    {
        "uuid",
        "email_address",
        "external_email_id",
        "first_name",
        "last_name",
        "code",
        "expiration_date",
        "account_number",
        "balance",
        "tier",
        "offer_value",
        "loyalty_tier",
        "loyalty_balance",
        "loyalty_unit_of_measure",
    }
)
"""Names that tokens may have (Vibes documentation, First-Class Fields)."""

_PLATFORMS: Mapping[Provider, str] = {"passbook": "iOS", "google_wallet": "Android 7.1.1"}


@dataclass(frozen=True, slots=True)
class WalletItem:
    """One pass of a wallet campaign; `uuid` is usually the customer's own name for it."""

    token: str
    uuid: str
    provider: Provider
    created_at: datetime
    updated_at: datetime
    tokens: Mapping[str, str] = field(default_factory=dict)
    expiration_date: datetime | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    """`locations`, `passbook` and `google_wallet` as a request gave them."""


@dataclass(frozen=True, slots=True)
class ItemPatch:
    """What a write asks for; what it does not mention stays."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    expiration_date: datetime | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


class Wallet:
    """The wallet items of one company; used under the platform's lock."""

    def __init__(
        self,
        platform: Platform,
        campaigns: Iterable[WalletCampaign],
        activity: Activity,
        google_rate_per_s: int | None = 20,
    ) -> None:
        self.campaigns = {campaign.token: campaign for campaign in campaigns}
        self.items: Shelf[str, WalletItem] = Shelf("wallet_items")
        self._platform = platform
        self._activity = activity
        self._google_limit = RateLimit(google_rate_per_s)

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return (self.items,)

    def campaign(self, token: str) -> WalletCampaign:
        """A campaign; raises NotFoundError."""
        if token not in self.campaigns:
            raise NotFoundError("the wallet campaign cannot be found")
        return self.campaigns[token]

    def items_of(self, token: str) -> list[WalletItem]:
        """A campaign's items; raises NotFoundError when there is no such campaign."""
        self.campaign(token)
        return [item for item in self.items.values() if item.token == token]

    def item(self, token: str, uuid: str) -> WalletItem:
        """An item; raises NotFoundError."""
        found = self.items.get(_key(token, uuid))
        if found is None:
            raise NotFoundError("the wallet item cannot be found")
        return found

    def update(
        self, token: str, uuid: str, patch: ItemPatch, *, source: Literal["api", "import"] = "api"
    ) -> bool:
        """Change an item; False when it was so already.

        Raises NotFoundError, and TooManyRequestsError for more Google items a second by API than
        Google takes.
        """
        item = self.item(token, uuid)
        limited = source == "api" and item.provider == "google_wallet"
        if limited and not self._google_limit.admit():
            raise TooManyRequestsError("429 Too Many Requests: Google Wallet")
        changed = replace(
            item,
            tokens={**item.tokens, **patch.tokens},
            expiration_date=patch.expiration_date or item.expiration_date,
            extras={**item.extras, **patch.extras},
        )
        if changed == item:
            self._platform.audit.repeat(f"{source}_wallet", uuid)
            return False
        self.items[_key(token, uuid)] = replace(changed, updated_at=self._platform.clock())
        self._platform.audit.effect(f"{source}_wallet", uuid)
        return True

    def install(
        self, token: str, uuid: str, provider: Provider, tokens: Mapping[str, str]
    ) -> WalletItem:
        """Somebody opens the SmartLink and keeps the pass; an existing pass on another phone."""
        self.campaign(token)
        now, platform = self._platform.clock(), _PLATFORMS[provider]
        views = self._activity.page_views
        views[number_after(views)] = PageView(now, token, uuid, "smartlink", platform, "sandbox")
        item = self.items.get(_key(token, uuid))
        if item is None:
            item = WalletItem(token, uuid, provider, now, now, dict(tokens))
            self.items[_key(token, uuid)] = item
        instances = self._activity.wallet_instances
        uid = f"wi-{len(instances) + 1:06d}"
        instances[uid] = WalletInstance(uid, token, uuid, item.provider, platform, now)
        self._tell("wallet_item_install", item, instances[uid])
        return item

    def remove(self, token: str, uuid: str) -> bool:
        """The pass is taken off every phone that has it; False when none has."""
        item, now = self.item(token, uuid), self._platform.clock()
        present = [
            instance
            for instance in self._activity.wallet_instances.values()
            if (instance.token, instance.uuid) == (token, uuid)
            if instance.unregistered_at is None
        ]
        for instance in present:
            removed = replace(instance, unregistered_at=now)
            self._activity.wallet_instances[instance.uid] = removed
            self._tell("wallet_item_remove", item, removed)
        return bool(present)

    def is_active(self, item: WalletItem) -> bool:
        """Whether an item has not expired."""
        return item.expiration_date is None or item.expiration_date > self._platform.clock()

    def _tell(self, kind: str, item: WalletItem, instance: WalletInstance) -> None:
        """Callbacks about passes name no person (Vibes documentation, Wallet Callbacks)."""
        gone = instance.unregistered_at
        campaign, url = self.campaigns[item.token], wallet_url(self._platform, item.token)
        expires = item.expiration_date
        payload = {
            "wallet_instance": {
                "registered_at": show_instant(instance.registered_at),
                "unregistered_at": None if gone is None else show_instant(gone),
                "wallet_instance_uid": instance.uid,
                "provider": "google" if item.provider == "google_wallet" else "apple",
            },
            "wallet_item": {
                "uuid": item.uuid,
                "wallet_object_uid": object_uid(item.uuid),
                "expiration_date": None if expires is None else show_instant(expires),
                "tokens": dict(item.tokens),
                "url": f"{url}/items/{item.uuid}",
            },
            "wallet_campaign": {
                "wallet_campaign_uid": campaign.uid,
                "token": item.token,
                "url": f"{url}/",
            },
        }
        config = {"campaign_token": item.token}
        at = self._platform.clock()
        self._platform.on_notice(Notice(kind, at, config, lambda _: payload))


def wallet_url(platform: Platform, token: str) -> str:
    """The address of a wallet campaign."""
    return f"/companies/{platform.company_key}/campaigns/wallet/{token}"


def object_uid(uuid: str) -> str:
    """What the platform itself calls an item, beside the customer's name for it."""
    return f"wo-{uuid}"


def _key(token: str, uuid: str) -> str:
    return f"{token}/{uuid}"
