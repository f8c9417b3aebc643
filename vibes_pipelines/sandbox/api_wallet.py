"""The calls about wallet campaigns, to be read, and wallet items, to be read and changed."""

from collections.abc import Mapping
from typing import Any

from vibes_pipelines.sandbox.api_bodies import show_minute
from vibes_pipelines.sandbox.api_calls import Answer, Call, Route
from vibes_pipelines.sandbox.catalogue import WalletCampaign
from vibes_pipelines.sandbox.platform_refusals import InvalidBodyError, NotFoundError
from vibes_pipelines.sandbox.platform_values import show_instant
from vibes_pipelines.sandbox.wallet import ItemPatch, WalletItem, wallet_url

_EXTRAS: Mapping[str, type] = {"locations": list, "passbook": dict, "google_wallet": dict}
_NOTHING: Mapping[str, Any] = {
    "locations": [],
    "passbook": {"notification": ""},
    "google_wallet": {"messages": {"header": "", "body": ""}},
}


def _show_campaign(call: Call, campaign: WalletCampaign) -> dict[str, Any]:
    return {
        "wallet_id": campaign.token,
        "name": campaign.name,
        "description": "",
        "type": campaign.type,
        "smartlink_url": f"https://wallet.invalid/{campaign.token}",
        "url": wallet_url(call.platform, campaign.token),
        "redirect_link": "",
        "expiration_date": "",
        "ignore_unsecure_params": False,
        "created_at": show_minute(campaign.created_at),
        "updated_at": show_minute(campaign.created_at),
    }


def _show_item(call: Call, item: WalletItem) -> dict[str, Any]:
    url = wallet_url(call.platform, item.token)
    campaign = call.account.wallet.campaigns[item.token]
    return {
        "wallet_item_id": item.uuid,
        "group_code": "",
        "campaign_ref": {"id": item.token, "type": campaign.type, "url": url},
        "active": call.account.wallet.is_active(item),
        "tokens": dict(item.tokens),
        **_NOTHING,
        **item.extras,
        "provider": item.provider,
        "created_at": show_minute(item.created_at),
        "updated_at": show_minute(item.updated_at),
        "url": f"{url}/items/{item.uuid}",
    }


def _campaigns(call: Call) -> Answer:
    campaigns = call.account.wallet.campaigns.values()
    if not campaigns:
        raise NotFoundError("no wallet campaigns can be found")
    return Answer(200, [_show_campaign(call, entry) for entry in campaigns])


def _campaign(call: Call) -> Answer:
    return Answer(200, _show_campaign(call, call.account.wallet.campaign(call.path[0])))


def _items(call: Call) -> Answer:
    """A campaign's items; every parameter but `provider` and the date is a token's name."""
    wanted = dict(call.query)
    provider, expires = wanted.pop("provider", None), wanted.pop("expiration_date", None)
    group_code = wanted.pop("group_code", "")
    items = [
        item
        for item in call.account.wallet.items_of(call.path[0])
        if provider in {None, item.provider}
        if expires in {None, _expiration(item)}
        if not group_code  # the sandbox's items are in no group
        if all(item.tokens.get(name) == value for name, value in wanted.items())
    ]
    return Answer(200, [_show_item(call, item) for item in items])


def _expiration(item: WalletItem) -> str | None:
    return None if item.expiration_date is None else show_instant(item.expiration_date)


def _item(call: Call) -> Answer:
    return Answer(200, _show_item(call, call.account.wallet.item(call.path[0], call.path[1])))


def _update(call: Call) -> Answer:
    token, uuid = call.path
    call.account.wallet.update(token, uuid, _read_patch(call.plain_body()))
    return _item(call)


def _read_patch(body: Mapping[str, Any]) -> ItemPatch:
    faults = [f"unknown field: {key}" for key in body if key not in {"tokens", *_EXTRAS}]
    tokens = body.get("tokens", {})
    if not isinstance(tokens, dict) or not all(isinstance(v, str) for v in tokens.values()):
        faults.append("tokens takes an object of strings")
    faults += [
        f"{key} takes {'a list' if wanted is list else 'an object'}"
        for key, wanted in _EXTRAS.items()
        if key in body and not isinstance(body[key], wanted)
    ]
    if faults:
        raise InvalidBodyError(*faults)
    return ItemPatch(tokens, extras={key: body[key] for key in _EXTRAS if key in body})


_WALLET = "/campaigns/wallet"

WALLET_ROUTES: tuple[Route, ...] = (
    Route(_WALLET, {"GET": _campaigns}),
    Route(f"{_WALLET}/*", {"GET": _campaign}),
    Route(f"{_WALLET}/*/items", {"GET": _items}),
    Route(f"{_WALLET}/*/items/*", {"GET": _item, "PUT": _update}),
)
"""The calls of the Wallet API that the stand-in knows, from the operations that Vibes publishes."""
