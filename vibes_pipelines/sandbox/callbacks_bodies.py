"""The JSON that callbacks carry, and the entity that the Callback API shows.

Bodies are those of the Vibes documentation, in its present samples or in those of 2021. The old
subscription body's `acquisition_campaign` is left out; of a person the sandbox knows no time zone.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vibes_pipelines.sandbox.api_bodies import (
    list_url,
    person_url,
    show_minute,
    show_person,
    show_subscription,
)
from vibes_pipelines.sandbox.callbacks_records import Registration
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_mdn import ApiVersion, render_mdn
from vibes_pipelines.sandbox.platform_records import Happening, Person, Subscription
from vibes_pipelines.sandbox.platform_values import show_instant
from vibes_pipelines.sandbox.switches import Switches


def show_callback_id(number: int, switches: Switches) -> str | int:
    """The id of a registration; the documentation has both forms."""
    return 10_000 + number if switches.callback_id_form == "integer" else f"CB{number:06d}"


def show_registration(
    company_key: str, registration: Registration, switches: Switches
) -> dict[str, Any]:
    """A registration as the Callback API shows it; both names of the type are filled."""
    callback_id = show_callback_id(registration.number, switches)
    destination = registration.destination
    shown: dict[str, Any] = {
        "callback_id": callback_id,
        "callback_type": registration.kind,
        "event_type": registration.kind,
    }
    if registration.config:
        shown[registration.kind] = dict(registration.config)
    shown["destination"] = {
        "url": destination.url,
        "method": destination.method,
        "content_type": destination.content_type,
    }
    shown["start_date"] = show_instant(registration.start)
    if registration.end is not None:
        shown["end_date"] = show_instant(registration.end)
    stem = "_at" if switches.callback_stamps == "created_at" else "_date"
    return shown | {
        "url": f"/companies/{company_key}/config/callbacks/{callback_id}",
        f"created{stem}": show_instant(registration.created_at),
        f"updated{stem}": show_instant(registration.updated_at),
    }


def envelope(
    registration: Registration,
    event_id: str,
    at: datetime,
    payload: Mapping[str, Any],
    switches: Switches,
) -> dict[str, Any]:
    """A callback's whole body, except for the number of the attempt."""
    body: dict[str, Any] = {}
    if switches.callback_body == "former":
        body["callback_id"] = show_callback_id(registration.number, switches)
    return body | {
        "event_id": event_id,
        "callback_type": registration.kind,
        "event_type": registration.kind,
        "event_date": show_instant(at, switches.callback_event_date),
        **payload,
    }


def payload_of(
    platform: Platform, happening: Happening, version: ApiVersion, switches: Switches
) -> dict[str, Any]:
    """What a callback says beside its envelope, as of the moment in which it happens."""
    if happening.subscription is None:
        return {"person": _show_person(platform, happening.person, version, switches)}
    show = _show_former_stay if switches.callback_body == "former" else _show_stay
    return {
        "subscription": show(platform, happening.person, happening.subscription, version, switches)
    }


def _show_person(
    platform: Platform, person: Person, version: ApiVersion, switches: Switches
) -> dict[str, Any]:
    """The person's full state; the documented samples hold no person_key."""
    shown = show_person(platform, person, version)
    return {
        "person_id": person.person_id,
        **_set(switches, external_person_id=person.external_person_id),
        **_set(switches, mobile_phone=shown["mobile_phone"]),
        **_set(switches, timezone=None, timezone_source=None),
        "custom_fields": shown["custom_fields"],
        "created_at": show_minute(person.created_at),
        "updated_at": show_minute(person.updated_at),
        "url": person_url(platform, person.person_id),
    }


def _show_stay(
    platform: Platform,
    person: Person,
    subscription: Subscription,
    version: ApiVersion,
    switches: Switches,
) -> dict[str, Any]:
    external = person.external_person_id
    mdn = None if person.mdn is None else render_mdn(person.mdn, version)
    phone = None if mdn is None else {"mdn": mdn}
    shown: dict[str, Any] = {
        "person": {
            "id": person.person_id,
            **_set(switches, external_id=external, external_person_id=external),
            "person_key": person.person_key,
            "url": person_url(platform, person.person_id),
            **_set(switches, mobile_phone=phone),
        },
        "subscription_list": {
            "id": subscription.list_id,
            "url": list_url(platform, subscription.list_id),
        },
        "opt_in_date": show_instant(subscription.opt_in_date),
    }
    if subscription.opt_out_date is not None:
        shown["opt_out_date"] = show_instant(subscription.opt_out_date)
        shown["opt_out_reason"] = subscription.opt_out_reason
    return shown


def _show_former_stay(
    platform: Platform,
    person: Person,
    subscription: Subscription,
    _: ApiVersion,
    switches: Switches,
) -> dict[str, Any]:
    """The body of 2021: of the person only ids, and the end with an offset instead of a Z."""
    shown = show_subscription(platform, person, subscription)
    shown["person"] |= _set(switches, external_id=person.external_person_id)
    if "opt_out_date" in shown:
        shown["opt_out_date"] = shown["opt_out_date"].replace("Z", "+0000")
    return shown


def _set(switches: Switches, **values: object) -> dict[str, object]:
    """Values that may be unset, which are shown as `null` or not at all."""
    is_shown = switches.unset_identifiers == "null"
    return {name: value for name, value in values.items() if is_shown or value is not None}
