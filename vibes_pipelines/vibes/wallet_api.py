"""The Wallet API: campaigns and their passes (items).

Rules: the Vibes documentation, Wallet API. Passes come into being when somebody opens a link,
never here; templates, locations and the messages to a campaign's holders belong to the platform's
own pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from vibes_pipelines.vibes.api_calls import (
    Answer,
    Calls,
    Record,
    all_records,
    one_record,
    query,
    segment,
    text_of,
)
from vibes_pipelines.vibes.api_transport import CALLS, GOOGLE_WALLET

WalletProvider = Literal["passbook", "google_wallet"]


@dataclass(frozen=True, slots=True)
class WalletItem:
    """One pass; `record` has everything that the platform says of it."""

    wallet_item_id: str
    provider: str | None
    active: bool | None
    group_code: str | None
    tokens: Mapping[str, Any]
    record: Mapping[str, Any]

    @classmethod
    def read(cls, record: Record) -> Self:
        """A pass; keys that are not there are None."""
        tokens, active = record.get("tokens"), record.get("active")
        return cls(
            wallet_item_id=text_of(record, "wallet_item_id", "uuid") or "",
            provider=text_of(record, "provider"),
            active=active if isinstance(active, bool) else None,
            group_code=text_of(record, "group_code"),
            tokens=tokens if isinstance(tokens, dict) else {},
            record=record,
        )


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What to change of a pass. `notification` and the Google message reach the holder's phone."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    locations: Sequence[Mapping[str, Any]] = ()
    notification: str | None = None
    google_header: str | None = None
    google_body: str | None = None

    @property
    def is_message(self) -> bool:
        """True when somebody gets to read something; such a change is never repeated blindly."""
        return any((self.notification, self.google_header, self.google_body))

    def body(self) -> dict[str, Any]:
        """The change as JSON."""
        said = {"header": self.google_header, "body": self.google_body}
        message = {key: text for key, text in said.items() if text is not None}
        parts = {
            "tokens": dict(self.tokens),
            "locations": [dict(location) for location in self.locations],
            "passbook": {"notification": self.notification} if self.notification else {},
            "google_wallet": {"messages": message} if message else {},
        }
        return {name: part for name, part in parts.items() if part}


class WalletApi:
    """The company's wallet campaigns and their passes, over open calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._root = f"{calls.company}/campaigns/wallet"

    async def campaigns(self) -> list[Record]:
        """All wallet campaigns; a company without any answers 404."""
        return all_records(await self._calls.read(self._root) or [])

    async def campaign(self, wallet_id: str) -> Record | None:
        """One campaign, by its token."""
        return one_record(await self._calls.read(f"{self._root}/{segment(wallet_id)}"))

    async def items(
        self,
        wallet_id: str,
        *,
        group_code: str | None = None,
        expiration_date: str | None = None,
        provider: WalletProvider | None = None,
    ) -> list[WalletItem] | None:
        """The campaign's passes that match; None when the campaign is not there."""
        asked = query(
            {"group_code": group_code, "expiration_date": expiration_date, "provider": provider}
        )
        found = await self._calls.read(f"{self._root}/{segment(wallet_id)}/items{asked}")
        return None if found is None else [WalletItem.read(item) for item in all_records(found)]

    async def item(self, wallet_id: str, wallet_item_id: str) -> WalletItem | None:
        """One pass."""
        record = one_record(await self._calls.read(self._item(wallet_id, wallet_item_id)))
        return None if record is None else WalletItem.read(record)

    async def update_item(
        self,
        wallet_id: str,
        wallet_item_id: str,
        change: ItemChange,
        provider: WalletProvider | None = None,
    ) -> Answer:
        """Changes a pass. Any that is not known to be Apple's counts against Google's rate."""
        return await self._calls.write(
            "PUT",
            self._item(wallet_id, wallet_item_id),
            change.body(),
            lane=CALLS if provider == "passbook" else GOOGLE_WALLET,
            repeatable=not change.is_message,
        )

    def _item(self, wallet_id: str, wallet_item_id: str) -> str:
        return f"{self._root}/{segment(wallet_id)}/items/{segment(wallet_item_id)}"
