"""Events: what happened in the CRM, or what a caller says, told to the platform once.

An event may lead to a message. So it is written down before it is sent, under an id that is the
same whenever the same thing is told again, and more new ones at once than `events.max_per_run`
allows are not sent at all.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.cells import instant_of
from vibes_pipelines.crm.events import EventRow, read_events
from vibes_pipelines.delivery.events import EventsSent, send_open_events
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.stages.api import vibes_api
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.kept_out import without_erased
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.database import utc_now
from vibes_pipelines.store.events import (
    EventReceipt,
    Events,
    EventStatus,
    PlannedEvent,
    RecordedOutcome,
)
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.outreach import Events as EventSource
from vibes_pipelines.vibes.error_classes import ERROR_CLASSES
from vibes_pipelines.vibes.event_api import MAX_EVENT_ID, Event, InvalidEvent
from vibes_pipelines.vibes.event_outcomes import read_outcome

CALL = "call"
"""The source of events that a caller named, not a table."""

ERASED = "the person was erased; `quarantine undo` lets it in again"
ID_NOT_UNIQUE = "two rows of the table have this id; events.id must be unique"

_REGION = "US"
"""The region of national numbers where `contacts.mdn` names none."""


class TooManyEvents(RuntimeError):  # noqa: N818 - the name says what is wrong
    """More new events than may be sent at once; nothing was planned or sent."""


class OtherEvent(ValueError):  # noqa: N818 - the name says what it is
    """Another event was told under the same type and key; nothing was planned or sent."""


class NoAnswerToEvents(RuntimeError):  # noqa: N818 - the name says what happened
    """Some events got no answer. They stay open, and the next run sends them under their ids."""


@dataclass(frozen=True)
class EventsRun:
    """What a run did; a dry run counts what is new in the CRM and does nothing."""

    dry_run: bool
    new: int = 0
    refused: int = 0
    expired: int = 0
    outcomes: int = 0
    sent: EventsSent = field(default_factory=EventsSent)

    @property
    def sentence(self) -> str:
        """One line for the log."""
        sent = self.sent
        whole = (
            f"new {self.new}, refused {self.refused}, expired {self.expired}; accepted "
            f"{sent.accepted}, rejected {sent.rejected}, unknown {sent.unknown}, unclear "
            f"{sent.unclear}; outcomes {self.outcomes}"
        )
        return f"{'dry run: ' if self.dry_run else ''}{whole}"


def event_id_of(company_key: str, source: str, key: str) -> str:
    """The id of an event: the same for the same company, source and key, and for no other."""
    text = "\n".join((company_key, source, key))
    return hashlib.sha256(text.encode()).hexdigest()[:MAX_EVENT_ID]


@not_while_erasing
def send_crm_events(project: Project, *, dry_run: bool = True) -> EventsRun:
    """Records outcomes, plans what is new in the CRM's table, sends everything that is open.

    Without a section `events` in sync.yaml only what is open already is sent.

    Raises:
        CrmError: the CRM does not answer, or is not as sync.yaml says.
        TooManyEvents: nothing was planned or sent.
        VibesAuthError: the platform refuses the login.
        NoAnswerToEvents: some stay open.
    """
    with closing(Events(project.settings.ledger_url)) as store:
        new = _new_events(project, store)
        refused = sum(event.refused is not None for event in new)
        if dry_run:
            return EventsRun(dry_run, len(new), refused)
        outcomes = record_outcomes(store)
        store.plan(new)
        expired = store.expire()
        sent = run_until_interrupted(_send(project, store))
    run = EventsRun(dry_run, len(new), refused, expired, outcomes, sent)
    if sent.unknown:
        msg = f"{run.sentence}; the next run sends what is unknown again ({_classes(sent)})"
        raise NoAnswerToEvents(msg)
    return run


@not_while_erasing
def send_one(project: Project, /, event_type: str, key: str, **parts: Any) -> EventReceipt:
    """Sends one event now, with everything else that is open; says where it stands.

    The same key never leads to a second event: one that was answered is not sent again.

    Args:
        project: whose company it is.
        event_type: as the platform knows it.
        key: what makes it the same event when it is told again, e.g. an order's number.
        parts: `event_data` and `debug_data`.

    Raises:
        InvalidEvent: a rule of the platform is broken, or the person was erased; nothing was sent.
        OtherEvent: the same key stands for other data; nothing was sent.
        LaneBusy: another process sends events; this one is sent by the next run.
        VibesAuthError: the platform refuses the login.
    """
    event_id = event_id_of(project.config.company_key, CALL, f"{event_type.lower()}\n{key}")
    event = Event(event_id, event_type, **parts)
    if _names_erased(project, [event.event_data]):
        raise InvalidEvent(f"event {event_id}: {ERASED}")
    with closing(Events(project.settings.ledger_url)) as store:
        store.plan([PlannedEvent(event_id, CALL, event_type, event.event_data, event.debug_data)])
        _require_same(store.planned(event_id), event)
        store.expire()
        run_until_interrupted(_send(project, store))
        found = store.find(event_id)
    return found or EventReceipt(event_id, "unknown")


def _require_same(known: PlannedEvent | None, event: Event) -> None:
    told = [dict(event.event_data), dict(event.debug_data)]
    if known is None or [known.event_data, known.debug_data] == json.loads(json.dumps(told)):
        return
    msg = (
        f"event {event.event_id}: other data were told under this type and key, and the first stay;"
        " give what happened since a --key of its own"
    )
    raise OtherEvent(msg)


def record_outcomes(store: Events) -> int:
    """Records what `event_processed` callbacks say; returns how many there were."""
    recorded = 0
    for page in store.unrecorded_outcomes():
        outcomes = [(heard, read_outcome(heard.body)) for heard in page]
        store.record_outcomes(
            [
                RecordedOutcome(
                    heard.callback_id,
                    heard.happened_at,
                    outcome.event_id,
                    outcome.stage,
                    outcome.state,
                    outcome.reason,
                )
                for heard, outcome in outcomes
            ]
        )
        recorded += len(page)
    return recorded


def event_status(project: Project) -> dict[str, Any]:
    """Events by where they stand, and their outcomes, those just heard included.

    An outcome whose reason is a known error class carries its `advice`.
    """
    with closing(Events(project.settings.ledger_url)) as store:
        record_outcomes(store)
        stands: Mapping[EventStatus, int] = store.status_counts()
        outcomes = [
            {
                "stage": stage,
                "state": state,
                "reason": reason,
                "advice": known.advice if (known := ERROR_CLASSES.get(reason or "")) else None,
                "callbacks": callbacks,
            }
            for stage, state, reason, callbacks in store.outcome_counts()
        ]
    return {"events": dict(stands), "outcomes": outcomes}


def planned_event(config: SyncConfig, source: EventSource, row: EventRow) -> PlannedEvent:
    """A row of the CRM as an event; one that breaks a rule says which.

    A row without an id is told from others by all that it holds, and is refused each time.
    """
    key = as_text(row[source.id]) or ""
    has_id = bool(trimmed(key))
    key = key if has_id else f"\n{as_text(dict(row))}"
    event_id = event_id_of(config.company_key, source.table, key)
    event_type = as_text(row[source.type]) or ""
    data = _who(config, source, row) | _carried(row, source.data)
    debug = _carried(row, source.debug)
    send_until = _send_until(source, row)
    try:
        _require_id(source, has_id=has_id)
        Event(event_id, event_type, data, debug)
        _require_age(source, send_until)
    except InvalidEvent as invalid:
        # Its values may be the very thing that is too long.
        return PlannedEvent(
            event_id,
            source.table,
            event_type[:255],
            {},
            send_until=send_until,
            refused=str(invalid),
        )
    return PlannedEvent(event_id, source.table, event_type, data, debug, send_until)


def json_value(value: Any) -> Any:
    """A database value as an event carries it: numbers and truth as such, the rest as text.

    None for what JSON cannot say: no value, and a number that is none or has no end.
    """
    match value:
        case list():
            return [json_value(one) for one in value]
        case dict():
            return {name: json_value(one) for name, one in value.items()}
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return _decimal(value) if value.is_finite() else None
        case None | bool() | int() | str():
            return value
    return value.isoformat() if isinstance(value, date | time) else as_text(value)


def _decimal(value: Decimal) -> int | str | None:
    return int(value) if value == value.to_integral_value() else as_text(value)


def _new_events(project: Project, store: Events) -> list[PlannedEvent]:
    source = project.config.events
    if source is None:
        return []
    new: dict[str, PlannedEvent] = {}
    for page in _rows(project, source):
        planned = [planned_event(project.config, source, row) for row in page]
        unknown = store.unknown_ids({event.event_id for event in planned})
        erased = _names_erased(project, [event.event_data for event in planned])
        for event in planned:
            if not erased.isdisjoint(_named(event.event_data)):
                event = _refused(event, ERASED)  # noqa: PLW2901 - the event as it is kept
            if event.event_id in unknown:
                new[event.event_id] = _alone(event, new.get(event.event_id))
        if len(new) > source.max_per_run:
            msg = (
                f"{source.table} has more than {source.max_per_run} new events; look why, then "
                "raise events.max_per_run in sync.yaml. Nothing was sent"
            )
            raise TooManyEvents(msg)
    return list(new.values())


def _alone(event: PlannedEvent, other: PlannedEvent | None) -> PlannedEvent:
    """The event; two that contradict each other under one id are refused, since one is wrong."""
    if other is None or other == event:
        return event
    return _refused(event, ID_NOT_UNIQUE)


def _refused(event: PlannedEvent, why: str) -> PlannedEvent:
    return replace(event, event_data={}, debug_data={}, refused=why)


def _named(data: Mapping[str, Any]) -> set[str]:
    """The keys by which an event names its person, as erasures know them."""
    external, person_key = data.get("external_person_id"), data.get("person_key")
    return {str(key) for key in (external, str(person_key or "").lower()) if key}


def _names_erased(project: Project, told: Sequence[Mapping[str, Any]]) -> set[str]:
    """Those of the keys in the data of events that are of erased people."""
    named = set[str]().union(*map(_named, told))
    return named.difference(without_erased(project.settings, named))


def _rows(project: Project, source: EventSource) -> Iterator[Any]:
    since = None
    if source.occurred_at is not None:
        since = utc_now() - timedelta(hours=source.max_age_h)
    return read_events(project.settings.crm_url, source, since)


def _who(config: SyncConfig, source: EventSource, row: EventRow) -> dict[str, Any]:
    contact = as_text(row[source.contact]) if source.contact else None
    number = as_text(row[source.mdn]) if source.mdn else None
    mdn = (
        to_e164(number, config.contacts.mdn.default_region if config.contacts.mdn else _REGION)
        if number
        else None
    )
    named = {"external_person_id": trimmed(contact or ""), "mdn": mdn}
    return {name: value for name, value in named.items() if value}


def _carried(row: EventRow, columns: tuple[str, ...]) -> dict[str, Any]:
    values = {name: json_value(row[name]) for name in columns}
    return {name: value for name, value in values.items() if value is not None}


def _send_until(source: EventSource, row: EventRow) -> datetime | None:
    occurred = instant_of(row[source.occurred_at]) if source.occurred_at else None
    try:
        return occurred and occurred.astimezone(UTC) + timedelta(hours=source.max_age_h)
    except OverflowError:  # the end of all calendars: a mark, and no time
        return None


def _require_id(source: EventSource, *, has_id: bool) -> None:
    """Nobody could tell a row without an id from another, nor that it was told already."""
    if not has_id:
        msg = f"a row of {source.table} has no {source.id} (events.id): give it one"
        raise InvalidEvent(msg)


def _require_age(source: EventSource, send_until: datetime | None) -> None:
    """Nobody could say that an event without a time is not too old to be told."""
    if source.occurred_at and send_until is None:
        named = f"{source.occurred_at} (events.occurred_at)"
        msg = f"{named} holds no time that can be read: write e.g. 2026-01-31T08:00:00Z"
        raise InvalidEvent(msg)


async def _send(project: Project, store: Events) -> EventsSent:
    async with vibes_api(project) as api:
        return await send_open_events(store, api.events)


def _classes(sent: EventsSent) -> str:
    return ", ".join(f"{name} {count}" for name, count in sent.error_classes.items())
