"""What an `event_processed` callback says became of an event.

Bodies: the Vibes documentation, Event-Triggered Message Callbacks. It names some of the words only;
all of them are kept as they come.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vibes_pipelines.vibes.callbacks import MAX_TEXT, CallbackError, body_document

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """One step of one event, e.g. stage `routing`, state `failed` and the reason for it."""

    event_id: str | None
    stage: str
    state: str
    reason: str | None = None


def read_outcome(body: bytes) -> EventOutcome:
    """The outcome in a body; stage `unreadable` when it has not the documented form."""
    try:
        document = body_document(body)
    except CallbackError:
        return EventOutcome(None, UNREADABLE, UNREADABLE)
    told = _object(document.get("event_processed"))
    action = _object(told.get("action"))
    event_id, stage = _text(told.get("event_id")), _text(action.get("type"))
    if event_id is None or stage is None:
        return EventOutcome(event_id, UNREADABLE, UNREADABLE)
    state = _text(action.get("status")) or "unknown"
    return EventOutcome(event_id, stage, state, _text(action.get("status_reason")))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    text = value.strip()[:MAX_TEXT] if isinstance(value, str) else ""
    return text if text and text.isprintable() else None
