"""Bodies of the Callback API, read strictly: all their faults are raised together.

Stricter than the documentation where it is silent: unknown keys, empty texts and dates in other
forms than those shown are refused.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vibes_pipelines.sandbox.callbacks_http import parse_url
from vibes_pipelines.sandbox.callbacks_records import (
    CALLBACKS_TO_SEND,
    CONTENT_TYPES,
    KINDS,
    MAX_URL,
    METHODS,
    Destination,
    Wish,
)
from vibes_pipelines.sandbox.platform_refusals import CallbackUrlError, InvalidBodyError
from vibes_pipelines.sandbox.switches import Switches

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\dZ)?", re.ASCII)
_ENVELOPE = frozenset({"callback_type", "event_type", "destination", "start_date", "end_date"})
_DESTINATION_KEYS = frozenset({"url", "method", "content_type"})


def read_kind(body: Mapping[str, Any], known: Sequence[str]) -> str:
    """The callback type, under its name or under the deprecated one; raises InvalidBodyError."""
    named = [body[key] for key in ("callback_type", "event_type") if body.get(key) is not None]
    if not named:
        raise InvalidBodyError("callback_type is required")
    if any(value != named[0] for value in named):
        raise InvalidBodyError("callback_type and event_type contradict each other")
    if named[0] not in known:
        raise InvalidBodyError(f"callback_type takes one of {', '.join(known)}")
    return str(named[0])


def read_wish(body: Mapping[str, Any], switches: Switches) -> Wish:
    """What a body registers or alters; raises InvalidBodyError with everything that is wrong."""
    kind = read_kind(body, list(KINDS))
    faults: list[str] = []
    config_key = _config_key(kind, body, switches)
    faults.extend(f"unknown field: {key}" for key in body if key not in _ENVELOPE | {config_key})
    config = _read_config(kind, config_key, body, faults) if KINDS[kind].has_config else {}
    destination = _read_destination(body.get("destination"), faults)
    start = _read_date("start_date", body, faults)
    end = _read_date("end_date", body, faults)
    if start and end and end <= start:
        faults.append("end_date must be later than start_date")
    if faults or destination is None:
        raise InvalidBodyError(*faults)
    return Wish(kind, config, destination, start, end)


def _config_key(kind: str, body: Mapping[str, Any], switches: Switches) -> str | None:
    """Under which key the configuration stands; `None` for a type that takes none."""
    if not KINDS[kind].has_config:
        return None
    sample_key = KINDS[kind].sample_key
    is_tolerated = switches.callback_config_key == "sample" and kind not in body
    return sample_key if is_tolerated and sample_key in body else kind


def _read_config(
    kind: str, key: str | None, body: Mapping[str, Any], faults: list[str]
) -> dict[str, str]:
    rule, config = KINDS[kind], body.get(key or kind)
    if not isinstance(config, dict):
        keys = ", ".join((*rule.required, *rule.optional))
        faults.append(f"{kind} is required and takes an object with {keys}")
        return {}
    faults.extend(f"{kind}.{name} is required" for name in rule.required if name not in config)
    for name, value in config.items():
        if name not in (*rule.required, *rule.optional):
            faults.append(f"unknown field: {kind}.{name}")
        elif name == "callbacks_to_send" and value not in CALLBACKS_TO_SEND:
            faults.append(f"{kind}.{name} takes one of {', '.join(CALLBACKS_TO_SEND)}")
        elif not isinstance(value, str) or not value:
            faults.append(f"{kind}.{name} takes a string")
    return {name: value for name, value in config.items() if isinstance(value, str)}


def _read_destination(value: object, faults: list[str]) -> Destination | None:
    if not isinstance(value, dict):
        faults.append("destination is required and takes an object with url")
        return None
    faults.extend(f"unknown field: destination.{key}" for key in set(value) - _DESTINATION_KEYS)
    url, method = value.get("url"), value.get("method", METHODS[0])
    content_type = value.get("content_type", CONTENT_TYPES[0])
    if method not in METHODS:
        faults.append(f"destination.method takes one of {', '.join(METHODS)}")
    if content_type not in CONTENT_TYPES:
        faults.append(f"destination.content_type takes one of {', '.join(CONTENT_TYPES)}")
    if not isinstance(url, str) or not 0 < len(url) <= MAX_URL:
        faults.append(f"destination.url is required, a string of 1 to {MAX_URL} characters")
        return None
    try:
        parse_url(url)
    except CallbackUrlError as refusal:
        faults.extend(refusal.messages)
    return Destination(url, str(method), str(content_type))


def _read_date(key: str, body: Mapping[str, Any], faults: list[str]) -> datetime | None:
    """An instant; a day means its beginning in UTC (an assumption)."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            faults.append(f"{key} takes a date that exists")
            return None
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    faults.append(f"{key} takes a date as YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ")
    return None
