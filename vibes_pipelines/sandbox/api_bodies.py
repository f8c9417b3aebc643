"""JSON bodies of the API: person bodies read as patches; persons, subscriptions, lists shown.

Stricter than the documentation where it is silent: a top-level key that no page names is refused.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_mdn import ApiVersion, parse_mdn, render_mdn
from vibes_pipelines.sandbox.platform_records import (
    OMITTED,
    CustomField,
    Omitted,
    Person,
    PersonPatch,
    Subscription,
    SubscriptionList,
    Value,
)
from vibes_pipelines.sandbox.platform_refusals import (
    InvalidBodyError,
    MalformedMdnError,
    MalformedRequestError,
)
from vibes_pipelines.sandbox.platform_values import (
    InvalidValueError,
    read_json,
    show_instant,
    show_json,
)
from vibes_pipelines.sandbox.request_body import parse_json

MAX_EXTERNAL_ID = 128
"""Longest external person id, in characters (published API description)."""

_IGNORED = frozenset({"person_id", "timezone_source", "created_at", "updated_at"})
_KNOWN = _IGNORED | {"external_person_id", "mobile_phone", "custom_fields"}
_PHONE_KEYS = frozenset({"mdn", "carrier_code"})


def parse_body(raw: bytes, parse_float: Callable[[str], object]) -> dict[str, Any]:
    """The JSON object of a request. Raises MalformedRequestError (not JSON), InvalidBodyError."""
    try:
        body = parse_json(raw, parse_float)
    except ValueError as error:
        raise MalformedRequestError("the body is not valid JSON") from error
    if not isinstance(body, dict):
        raise InvalidBodyError("the body must be a JSON object")
    return body


def read_patch(
    body: Mapping[str, Any], fields: Mapping[str, CustomField], version: ApiVersion
) -> PersonPatch:
    """What a person body asks for; all its faults are raised together as InvalidBodyError."""
    faults = [f"unknown field: {key}" for key in body if key not in _KNOWN]
    external = _read_external(body.get("external_person_id", OMITTED), faults)
    mdn = _read_phone(body.get("mobile_phone", OMITTED), version, faults)
    custom = _read_custom(body.get("custom_fields", {}), fields, faults)
    if faults:
        raise InvalidBodyError(*faults)
    return PersonPatch(external, mdn, custom)


def require_external_id(text: str) -> None:
    """Raises InvalidBodyError unless a path may name a person so, as a body may."""
    faults: list[str] = []
    _read_external(text, faults)
    if faults:
        raise InvalidBodyError(*faults)


def _read_external(value: object, faults: list[str]) -> str | Omitted | None:
    if value is None or isinstance(value, Omitted):
        return value
    if isinstance(value, str) and 0 < len(value) <= MAX_EXTERNAL_ID:
        return value
    faults.append(f"external_person_id takes a string of 1 to {MAX_EXTERNAL_ID} characters")
    return OMITTED


def _read_phone(phone: object, version: ApiVersion, faults: list[str]) -> str | Omitted | None:
    """The number a body sets; the carrier code is accepted and ignored, it comes from a look-up."""
    if phone is None or isinstance(phone, Omitted):
        return phone
    if not isinstance(phone, dict):
        faults.append("mobile_phone takes an object")
        return OMITTED
    faults.extend(f"unknown field: mobile_phone.{key}" for key in phone if key not in _PHONE_KEYS)
    if not isinstance(phone.get("carrier_code"), str | None):
        faults.append("mobile_phone.carrier_code takes a string")
    mdn = phone.get("mdn", OMITTED)
    if isinstance(mdn, str):
        try:
            return parse_mdn(mdn, version)
        except MalformedMdnError as refusal:
            faults.extend(refusal.messages)
            return OMITTED
    if mdn is None or isinstance(mdn, Omitted):
        return mdn
    faults.append("mobile_phone.mdn takes a string")
    return OMITTED


def _read_custom(
    values: object, fields: Mapping[str, CustomField], faults: list[str]
) -> dict[str, Value]:
    if not isinstance(values, dict):
        faults.append("custom_fields takes an object")
        return {}
    custom: dict[str, Value] = {}
    for name, value in values.items():
        if name not in fields:
            faults.append(f"unknown custom field: {name}")
            continue
        try:
            custom[name] = read_json(fields[name], value)
        except InvalidValueError as error:
            faults.append(f"custom field {name}: {error}")
    return custom


def show_person(platform: Platform, person: Person, version: ApiVersion) -> dict[str, Any]:
    """A person as the API shows it: every custom field of the account, set or not."""
    mdn = None if person.mdn is None else render_mdn(person.mdn, version)
    phone = None if mdn is None else {"mdn": mdn, "carrier_code": person.carrier_code}
    return {
        "person_id": person.person_id,
        "person_key": person.person_key,
        "external_person_id": person.external_person_id,
        "mobile_phone": phone,
        "custom_fields": {
            field.name: show_json(field, person.custom.get(field.name))
            for field in platform.custom_fields
        },
        "created_at": show_minute(person.created_at),
        "updated_at": show_minute(person.updated_at),
        "url": person_url(platform, person.person_key),
    }


def show_subscription(
    platform: Platform, person: Person, subscription: Subscription
) -> dict[str, Any]:
    """A subscription; how it ended is mentioned only when it has."""
    url = person_url(platform, person.person_id)
    list_id = subscription.list_id
    shown: dict[str, Any] = {
        "person": {"id": person.person_id, "url": url},
        "subscription_list": {"id": list_id, "url": list_url(platform, list_id)},
        "opt_in_date": show_instant(subscription.opt_in_date),
        "url": f"{url}/subscriptions/{list_id}",
    }
    if subscription.opt_out_date is not None:
        shown["opt_out_date"] = show_instant(subscription.opt_out_date)
        shown["opt_out_reason"] = subscription.opt_out_reason
    return shown


def show_list(platform: Platform, entry: SubscriptionList) -> dict[str, str]:
    """A subscription list with the addresses that belong to it."""
    url = list_url(platform, entry.id)
    return {
        "id": entry.id,
        "name": entry.name,
        "url": url,
        "subscribers_url": f"{url}/subscribers",
        "acquisition_campaigns_url": f"{url}/acquisition_campaigns",
    }


def person_url(platform: Platform, identifier: str) -> str:
    """The address of a person, by person key or by the legacy id."""
    return f"/companies/{platform.company_key}/mobiledb/persons/{identifier}"


def list_url(platform: Platform, list_id: str) -> str:
    """The address of a subscription list."""
    return f"/companies/{platform.company_key}/mobiledb/subscription_lists/{list_id}"


def show_minute(instant: datetime) -> str:
    """Minutes are the precision in which the documentation shows when a person was made."""
    return show_instant(instant, "minutes")
