"""What people and companies outside the platform do, for the control API: one row of `ACTS` each.

Persons answer texts, open the app, keep and remove passes; carriers deactivate and recycle numbers,
and their look-up fails. A wish is a JSON object; unknown keys are refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.activity import Click, Message, number_after
from vibes_pipelines.sandbox.platform_mdn import parse_mdn
from vibes_pipelines.sandbox.platform_records import PersonPatch
from vibes_pipelines.sandbox.platform_refusals import RefusalError
from vibes_pipelines.sandbox.push_devices import Os
from vibes_pipelines.sandbox.texts import IDENTIFIERS, find_phone_owner
from vibes_pipelines.sandbox.wallet import Provider

_Wish = Mapping[str, Any]
_Done = dict[str, object]


class ActError(ValueError):
    """A wish cannot be followed; the message says what would be right."""


@dataclass(frozen=True)
class _Act:
    """How an act is done, and which keys its wish takes by type; those in `optional` may lack."""

    do: Callable[[Account, _Wish], _Done]
    takes: Mapping[str, type]
    optional: frozenset[str] = frozenset()
    names_person: bool = False


def act(account: Account, name: str, wish: _Wish) -> _Done:
    """Do it and tell what came of it; raises ActError, TextError for a person without a phone."""
    chosen = ACTS[name]
    takes = dict(chosen.takes)
    if chosen.names_person:
        named = [key for key in IDENTIFIERS if key in wish]
        if len(named) != 1:
            raise ActError(f"{name} names the person by one of {', '.join(IDENTIFIERS)}")
        takes[named[0]] = str
    missing = sorted(takes.keys() - wish.keys() - chosen.optional)
    wrong = sorted(key for key in wish if key not in takes or type(wish[key]) is not takes[key])
    if missing or wrong:
        known = ", ".join(f"{key} ({kind.__name__})" for key, kind in takes.items())
        raise ActError(f"{name} takes {known}; not so: {', '.join([*missing, *wrong])}")
    try:
        with account.platform.lock:
            done = chosen.do(account, wish)
            account.save()
            return done
    except RefusalError as refusal:
        raise ActError(str(refusal)) from refusal


def _reply(account: Account, wish: _Wish) -> _Done:
    person = find_phone_owner(account.platform, wish)
    return {"status": account.acquisition.reply(wish["campaign_id"], person, wish["word"])}


def _click(account: Account, wish: _Wish) -> _Done:
    """A click on a short URL of the person's latest message."""
    person, clicks = find_phone_owner(account.platform, wish), account.activity.clicks
    sent = account.activity.messages
    latest = max((n for n, m in sent.items() if m.person_key == person.person_key), default=None)
    is_first = all(
        (click.person_key, click.long_url) != (person.person_key, wish["long_url"])
        for click in clicks.values()
    )
    clicks[number_after(clicks)] = Click(
        account.platform.clock(),
        person.person_key,
        person.external_person_id,
        person.mdn,
        None if latest is None else str(latest),
        f"k{len(clicks) + 1}",
        wish["long_url"],
        is_first,
    )
    return {"first_click": is_first}


def _message(account: Account, wish: _Wish) -> _Done:
    """A broadcast reaches the person, or fails with the status given."""
    person, messages = find_phone_owner(account.platform, wish), account.activity.messages
    number = number_after(messages)
    messages[number] = Message(
        account.platform.clock(),
        person.person_key,
        person.external_person_id,
        person.mdn or "",
        person.carrier_code,
        wish["text"],
        "Broadcast",
        "501",
        wish.get("status", "SUCCESS"),
    )
    return {"message_id": str(number)}


def _deactivate(account: Account, wish: _Wish) -> _Done:
    return {"changed": account.handsets.deactivate(parse_mdn(wish["mdn"], 2))}


def _recycle(account: Account, wish: _Wish) -> _Done:
    """The number is in service again; with a list its new owner texts that list's keyword."""
    mdn, list_id = parse_mdn(wish["mdn"], 2), wish.get("list_id")
    if list_id is not None and list_id not in account.platform.lists:
        raise ActError(f"there is no list {list_id!r}")
    account.handsets.recycle(mdn, wish["carrier_code"])
    if list_id is None:
        return {"person_key": None}
    person = account.platform.add(PersonPatch(mdn=mdn), source="handset").person
    if not account.platform.subscriptions_of(person.person_key):
        account.platform.subscribe(person.person_key, list_id, account.platform.clock())
    return {"person_key": person.person_key}


def _fail_lookups(account: Account, wish: _Wish) -> _Done:
    if wish["times"] < 0:
        raise ActError(f"times is at least 0, not {wish['times']}")
    account.handsets.fail_lookups(wish["times"])
    return {"times": wish["times"]}


def _open_app(account: Account, wish: _Wish) -> _Done:
    device = account.devices.open_app(wish["app_id"], _one_of(wish, "os", Os))
    return {"vibes_device_id": device.vibes_device_id, "person_key": device.person_key}


def _install(account: Account, wish: _Wish) -> _Done:
    tokens = wish.get("tokens", {})
    if not all(isinstance(value, str) for value in tokens.values()):
        raise ActError("tokens is an object of strings")
    provider = _one_of(wish, "provider", Provider)
    account.wallet.install(wish["token"], wish["uuid"], provider, tokens)
    return {"installed": wish["uuid"]}


def _remove(account: Account, wish: _Wish) -> _Done:
    return {"changed": account.wallet.remove(wish["token"], wish["uuid"])}


def _one_of(wish: _Wish, key: str, kind: Any) -> Any:
    if wish[key] not in get_args(kind):
        raise ActError(f"{key} is one of {', '.join(get_args(kind))}, not {wish[key]!r}")
    return wish[key]


_PASS: Mapping[str, type] = {"token": str, "uuid": str}

ACTS: Mapping[str, _Act] = {
    "texts/reply": _Act(_reply, {"campaign_id": str, "word": str}, names_person=True),
    "texts/click": _Act(_click, {"long_url": str}, names_person=True),
    "texts/broadcast": _Act(
        _message, {"text": str, "status": str}, frozenset({"status"}), names_person=True
    ),
    "numbers/deactivate": _Act(_deactivate, {"mdn": str}),
    "numbers/recycle": _Act(
        _recycle, {"mdn": str, "carrier_code": str, "list_id": str}, frozenset({"list_id"})
    ),
    "numbers/fail-lookups": _Act(_fail_lookups, {"times": int}),
    "devices/open-app": _Act(_open_app, {"app_id": str, "os": str}),
    "wallet/install": _Act(
        _install, {**_PASS, "provider": str, "tokens": dict}, frozenset({"tokens"})
    ),
    "wallet/remove": _Act(_remove, _PASS),
}
"""Every act by its path below the control API's prefix."""
