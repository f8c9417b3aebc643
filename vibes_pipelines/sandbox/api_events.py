"""The Event API, and what can only be read: broadcasts and source codes."""

from typing import Any

from vibes_pipelines.sandbox.api_bodies import show_minute
from vibes_pipelines.sandbox.api_calls import Answer, Call, Route
from vibes_pipelines.sandbox.catalogue import Broadcast, BroadcastStatus, SourceCode
from vibes_pipelines.sandbox.events import (
    EVENT_TYPE,
    IDENTIFIERS,
    MAX_EVENT_BYTES,
    MAX_EVENT_ID,
    Event,
)
from vibes_pipelines.sandbox.platform_mdn import parse_mdn
from vibes_pipelines.sandbox.platform_refusals import (
    InvalidBodyError,
    MalformedRequestError,
    NotFoundError,
)

EVENTS = "/events"

_KNOWN = frozenset({"event_type", "event_data", "event_id", "debug_data"})
_STATUSES: frozenset[BroadcastStatus] = frozenset(
    ("scheduled", "in_progress", "sent", "canceled", "deleted", "paused", "failed")
)


def _accept(call: Call) -> Answer:
    """Take an event: 202 does not promise a message; statuses of refusals are an assumption."""
    body = call.plain_body()
    if len(call.raw_body) > MAX_EVENT_BYTES:
        raise InvalidBodyError(f"an event has at most {MAX_EVENT_BYTES} bytes")
    event = _read_event(call, body)
    call.account.events.accept(event, refuse_repeats=call.switches.event_id_reused == "refused")
    return Answer(202, {"event_id": event.event_id})


def _read_event(call: Call, body: dict[str, Any]) -> Event:
    faults = [f"unknown field: {key}" for key in body if key not in _KNOWN]
    event_type, data = body.get("event_type"), body.get("event_data")
    if not isinstance(event_type, str) or not EVENT_TYPE.fullmatch(event_type):
        faults.append("event_type is required: letters, digits, - and _")
    if not isinstance(data, dict):
        faults.append("event_data is required: an object")
        data = {}
    elif not any(isinstance(data.get(name), str) and data[name] for name in IDENTIFIERS):
        faults.append(f"event_data needs one of {', '.join(IDENTIFIERS)} as a string")
    if "event_id" in body and not _is_event_id(body["event_id"]):
        faults.append(f"event_id takes a string of 1 to {MAX_EVENT_ID} characters")
    if not isinstance(body.get("debug_data", {}), dict):
        faults.append("debug_data takes an object")
    if faults:
        raise InvalidBodyError(*faults)
    mdn = data.get("mdn")
    parsed = parse_mdn(mdn, call.version) if isinstance(mdn, str) else None
    named = {"event_id": body["event_id"]} if "event_id" in body else {}
    return Event(str(event_type), data, parsed, debug_data=body.get("debug_data"), **named)


def _is_event_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_EVENT_ID


def _show_broadcast(call: Call, entry: Broadcast) -> dict[str, Any]:
    sent = show_minute(entry.send_date) if entry.status == "sent" else ""
    return {
        "broadcast_id": entry.id,
        "status": entry.status,
        "name": entry.name,
        "send_scheduled_date": show_minute(entry.send_date),
        "created_by": "sandbox@localhost",
        "created_by_application": "sandbox",
        "targeting": {
            "message_template": entry.message,
            "short_url_base": "",
            "shorten_urls": False,
            "channel": "SMS",
            "source_short_code": "".join(code.code for code in _codes(call)[:1]),
            "source_lists": [entry.list_id],
            "filters": [],
            "delivery": {
                "send_start_date": sent,
                "enqueue_completed_date": sent,
                "recipient_count": entry.recipients,
            },
            "url": f"/companies/{call.platform.company_key}/mobiledb/broadcasts/{entry.id}",
            "created_at": show_minute(entry.send_date),
            "updated_at": show_minute(entry.send_date),
        },
    }


def _broadcasts(call: Call) -> Answer:
    status = call.query.get("status")
    if status is not None and status not in _STATUSES:
        raise MalformedRequestError(f"status takes one of {', '.join(sorted(_STATUSES))}")
    entries = call.account.catalogue.broadcasts
    shown = [_show_broadcast(call, entry) for entry in entries if status in {None, entry.status}]
    return Answer(200, shown)


def _broadcast(call: Call) -> Answer:
    for entry in call.account.catalogue.broadcasts:
        if entry.id == call.path[0]:
            return Answer(200, _show_broadcast(call, entry))
    raise NotFoundError("the broadcast cannot be found")


def _source_codes(call: Call) -> Answer:
    shown = [
        {
            "sourcecode": entry.code,
            "country_code": entry.country_code,
            "sourcecode_type": "SC",
            "primary_country_name": entry.country_name,
            "sms_enabled": True,
            "mms_enabled": True,
            "sourcecode_end_date": "",
        }
        for entry in _codes(call)
    ]
    return Answer(200, shown)


def _codes(call: Call) -> tuple[SourceCode, ...]:
    return call.account.catalogue.source_codes


EVENT_ROUTES: tuple[Route, ...] = (
    Route(EVENTS, {"POST": _accept}),
    Route("/mobiledb/broadcasts", {"GET": _broadcasts}),
    Route("/mobiledb/broadcasts/*", {"GET": _broadcast}),
    Route("/sourcecodes", {"GET": _source_codes}),
)
"""The calls of this module, from the operations that Vibes publishes."""
