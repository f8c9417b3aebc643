"""What a callback says beyond whom it is about: the facts of its type, read from its body.

Bodies: the Vibes documentation, Callbacks. Who is meant, and when it happened, is in `callbacks`.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.vibes.callbacks import CallbackError, body_document, read_instant


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is so since an event: of a `kind`, about a `subject`, in a `state`.

    `contact` is the contact that the body names in its own way, where the type has one.
    """

    kind: str
    subject: str
    state: str
    contact: str | None = None


def fact_of(event_type: str, body: bytes, wallet_contact_token: str | None = None) -> Fact | None:
    """The fact of a callback; None for a type that states none.

    Raises:
        CallbackError: the body lacks what its type has; the message names the place.
    """
    document = body_document(body)
    match event_type:
        case "subscription_added" | "subscription_removed":
            state = "subscribed" if event_type.endswith("added") else "unsubscribed"
            return Fact("subscription", _need(document, "subscription.subscription_list.id"), state)
        case "device_added" | "device_updated" | "device_removed":
            app = _need(document, "push_device.app_id")
            device = _need(document, "push_device.vibes_device_id")
            state = "removed" if event_type == "device_removed" else "active"
            return Fact("device", f"{app}/{device}", state)
        case "wallet_item_install" | "wallet_item_remove":
            return _wallet_item(event_type, document, wallet_contact_token)
        case (
            "ack_participant_added"
            | "ack_participant_changed"
            | "company_participant_added"
            | "company_participant_changed"
        ):
            return Fact(
                "participation",
                _need(document, "participant.acquisition_campaign.id"),
                _need(document, "participant.status").lower(),
            )
        case "event_processed":
            return _event(document)
    return None


def person_state(body: bytes) -> Mapping[str, str | None]:
    """The custom fields of a person's callback as text: option keys of selects, sets joined by |.

    None is a field that is empty. One whose options are named without their keys, as in bodies of
    old, is left out: which they are is not told, and they are not none.

    Raises:
        CallbackError: the body has no person, or a field of a form that no type has.
    """
    person = _at(body_document(body), "person")
    if not isinstance(person, dict):
        msg = "person is missing"
        raise CallbackError(msg)
    custom = person.get("custom_fields") or {}
    if not isinstance(custom, dict):
        msg = "person.custom_fields is not an object"
        raise CallbackError(msg)
    places = {name: f"person.custom_fields.{name}" for name in custom}
    told = {name: value for name, value in custom.items() if _is_told(value, places[name])}
    return {name: _plain(value, places[name]) for name, value in told.items()}


def told_opt_out(body: bytes) -> datetime | None:
    """The opt-out date that a subscription's callback shows; None when none can be read."""
    text = _at(body_document(body), "subscription.opt_out_date")
    return read_instant(text) if isinstance(text, str) else None


def asks_to_stop(body: bytes, words: Collection[str]) -> bool:
    """Whether an unmatched text has one of the words, as whole words, whatever their case."""
    message = _at(body_document(body), "message")
    if not isinstance(message, str):
        return False
    text = f" {_NO_LETTER.sub(' ', message.casefold()).strip()} "
    return any(f" {_NO_LETTER.sub(' ', word.casefold()).strip()} " in text for word in words)


_NO_LETTER = re.compile(r"[\W_]+")


def _wallet_item(event_type: str, document: Mapping[str, Any], token: str | None) -> Fact:
    uuid = _need(document, "wallet_item.uuid")
    campaign = _need(document, "wallet_campaign.token")
    state = "installed" if event_type == "wallet_item_install" else "removed"
    named = _at(document, f"wallet_item.tokens.{token}") if token else uuid
    contact = trimmed(named) if isinstance(named, str) else None
    return Fact("wallet_item", f"{campaign}/{uuid}", state, contact)


def _event(document: Mapping[str, Any]) -> Fact:
    said = [_at(document, f"event_processed.action.{key}") for key in ("type", "status")]
    state = " ".join(part for part in said if isinstance(part, str)) or "unknown"
    contact = _at(document, "event_processed.event_data.external_person_id")
    return Fact(
        "event",
        _need(document, "event_processed.event_id"),
        state,
        trimmed(contact) if isinstance(contact, str) else None,
    )


def _at(document: Any, path: str) -> Any:
    found = document
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _need(document: Mapping[str, Any], path: str) -> str:
    found = _at(document, path)
    text = trimmed(str(found)) if isinstance(found, str | int) else None
    if text is None:
        msg = f"{path} is missing"
        raise CallbackError(msg)
    return text


def _is_told(value: Any, place: str) -> bool:
    """Whether a value says what it is: every option, where it has some, by its key."""
    options = value if isinstance(value, list) else [value] if isinstance(value, Mapping) else []
    return all(_plain(option, place) for option in options)


def _plain(value: Any, place: str) -> str | None:
    if isinstance(value, Mapping):
        return _plain(value.get("option_key"), place)
    if isinstance(value, list):
        keys = [_plain(item, place) for item in value]
        return "|".join(key for key in keys if key) or None
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    msg = f"{place} is of no known form"
    raise CallbackError(msg)
