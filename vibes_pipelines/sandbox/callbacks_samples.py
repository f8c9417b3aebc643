"""Test events of the Callback API: which types have one, what a request may say, what is sent.

A test event carries what its request says in the documented shape and changes nothing. Types of
which the published API description has no test request are refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vibes_pipelines.sandbox.api_bodies import list_url, person_url
from vibes_pipelines.sandbox.callbacks_requests import read_kind
from vibes_pipelines.sandbox.catalogue import PARTICIPATION
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_refusals import InvalidBodyError
from vibes_pipelines.sandbox.platform_values import show_instant

_Shape = Mapping[str, Any]
"""Keys that an object may hold; the value is `str`, `dict` for any object, or a shape again."""

_Show = Callable[[Platform, datetime, str, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class SampleEvent:
    """What a test request named: its type, which registrations it is for, what they are sent."""

    kind: str
    config: Mapping[str, str]
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class _Sample:
    """How the test event of a type is made.

    `shape` is what a request may say. `path` leads to the value that registrations of the type hold
    under `config_key`; then it must be given.
    """

    shape: _Shape
    show: _Show
    path: tuple[str, ...] = ()
    config_key: str = ""


def read_test(platform: Platform, body: Mapping[str, Any], at: datetime) -> SampleEvent:
    """The test event that a request asks for; raises InvalidBodyError."""
    kind = read_kind(body, list(_SAMPLES))
    sample = _SAMPLES[kind]
    given = {
        key: value for key, value in body.items() if key not in {"callback_type", "event_type"}
    }
    faults: list[str] = []
    _check(given, sample.shape, "", faults)
    if faults:
        raise InvalidBodyError(*faults)
    config: dict[str, str] = {}
    if sample.path:
        target = _at(given, sample.path)
        if not isinstance(target, str):
            raise InvalidBodyError(f"{'.'.join(sample.path)} is required")
        config = {sample.config_key: target}
    return SampleEvent(kind, config, sample.show(platform, at, kind, given))


def _check(given: Mapping[str, Any], shape: _Shape, place: str, faults: list[str]) -> None:
    for key, value in given.items():
        wanted, name = shape.get(key), f"{place}{key}"
        if wanted is None:
            faults.append(f"unknown field: {name}")
        elif wanted is str:
            if not isinstance(value, str):
                faults.append(f"{name} takes a string")
        elif not isinstance(value, dict):
            faults.append(f"{name} takes an object")
        elif wanted is not dict:
            _check(value, wanted, f"{name}.", faults)


def _at(given: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = given
    for key in path:
        value = value.get(key, {})
    return value


def _show_subscription(
    platform: Platform, at: datetime, kind: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    person_id = _at(given, ("subscription", "person", "id")) or "0"
    list_id = given["subscription"]["subscription_list"]["id"]
    shown: dict[str, Any] = {
        "person": {"id": person_id, "url": person_url(platform, person_id)},
        "subscription_list": {"id": list_id, "url": list_url(platform, list_id)},
        "opt_in_date": show_instant(at),
    }
    if kind == "subscription_removed":
        shown |= {"opt_out_date": show_instant(at), "opt_out_reason": "user_opt_out"}
    return {"subscription": shown}


def _show_person(
    platform: Platform, at: datetime, _kind: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    person = given.get("person", {})
    person_id = person.get("person_id", "0")
    return {
        "person": {
            "person_id": person_id,
            "external_person_id": person.get("external_person_id"),
            "mobile_phone": person.get("mobile"),
            "custom_fields": person.get("custom_fields", {}),
            "created_at": show_instant(at),
            "updated_at": show_instant(at),
            "url": person_url(platform, person_id),
        }
    }


def _show_list(
    platform: Platform, _at: datetime, _kind: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    entry = given.get("subscription_list", {})
    list_id = entry.get("id", "0")
    url = list_url(platform, list_id)
    return {
        "subscription_list": {
            "id": list_id,
            "name": entry.get("name", ""),
            "url": url,
            "subscribers_url": f"{url}/subscribers",
            "acquisition_campaigns_url": f"{url}/acquisition_campaigns",
        }
    }


def _show_participant(
    platform: Platform, at: datetime, kind: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """A participant; how the company-wide types show one is an assumption: like the others."""
    participant = given.get("participant", {})
    campaign = participant.get("acquisition_campaign", {})
    person_id, campaign_id = participant.get("id", "0"), campaign.get("api_key", "0")
    return {
        "participant": {
            "person": {
                "id": person_id,
                "mobile_phone": participant.get("mobile_phone"),
                "url": person_url(platform, person_id),
            },
            "acquisition_campaign": {
                "id": campaign_id,
                "description": campaign.get("description", ""),
                "url": f"/companies/{platform.company_key}/campaigns/acquisition/{campaign_id}",
                "keyword": campaign.get("keyword", ""),
            },
            "participation_date": show_instant(at),
            "expire_date": show_instant(at + PARTICIPATION),
            "status": "CONFIRMED" if kind.endswith("_changed") else "PENDING",
        }
    }


def _show_device(
    _platform: Platform, _at: datetime, _kind: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    person, device = given.get("person", {}), given["push_device"]
    device_url = f"/mobile_apps/{device['app_id']}/devices/{device.get('vibes_device_id', '0')}"
    return {
        "person": {
            "person_id": person.get("person_id"),
            "external_id": person.get("external_person_id"),
        },
        "push_device": {**device, "url": device_url},
    }


def _show_event(
    _platform: Platform, _at: datetime, _kind: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    event = given.get("event_processed", {})
    action = {
        "type": "routing",
        "status": "processing",
        "status_reason": "accepted_by_event_triggered_message",
    }
    return {"event_processed": {"event_id": None, "event_data": {}, **event, "action": action}}


_PARTICIPANT: _Shape = {
    "participant": {
        "id": str,
        "mobile_phone": {"mdn": str},
        "acquisition_campaign": {"api_key": str, "description": str, "keyword": str},
        "subscription_list": {"id": str},
    }
}
_PERSON: _Shape = {
    "person": {
        "person_id": str,
        "external_person_id": str,
        "mobile": {"mdn": str, "carrier_code": str},
        "custom_fields": dict,
    }
}
_DEVICE: _Shape = {
    "person": {"person_id": str, "external_person_id": str},
    "push_device": {"app_id": str, "vibes_device_id": str, "push_token": str, "device_os": str},
}
_STAY: _Shape = {"subscription": {"person": {"id": str}, "subscription_list": {"id": str}}}
_LIST: _Shape = {"subscription_list": {"id": str, "name": str}}
_EVENT: _Shape = {"event_processed": {"event_id": str, "event_data": dict}}

_OF_LIST = _Sample(
    _STAY, _show_subscription, ("subscription", "subscription_list", "id"), "list_id"
)
_OF_CAMPAIGN = _Sample(
    _PARTICIPANT,
    _show_participant,
    ("participant", "acquisition_campaign", "api_key"),
    "campaign_id",
)
_OF_APP = _Sample(_DEVICE, _show_device, ("push_device", "app_id"), "app_id")

_SAMPLES: Mapping[str, _Sample] = {
    "subscription_added": _OF_LIST,
    "subscription_removed": _OF_LIST,
    "person_added": _Sample(_PERSON, _show_person),
    "person_updated": _Sample(_PERSON, _show_person),
    "subscription_list_added": _Sample(_LIST, _show_list),
    "subscription_list_updated": _Sample(_LIST, _show_list),
    "ack_participant_added": _OF_CAMPAIGN,
    "ack_participant_changed": _OF_CAMPAIGN,
    "company_participant_added": _Sample(_PARTICIPANT, _show_participant),
    "company_participant_changed": _Sample(_PARTICIPANT, _show_participant),
    "device_added": _OF_APP,
    "device_updated": _OF_APP,
    "device_removed": _OF_APP,
    "event_processed": _Sample(_EVENT, _show_event),
}
