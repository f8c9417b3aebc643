"""Events for the platform: each written down before it is sent, with its end and its outcomes.

It lives in the ledger's database. Only keeping belongs here: what becomes an event is in
`stages.events`, sending one in `delivery.events`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from vibes_pipelines.store.leases import Leases
from vibes_pipelines.store.ledger_rows import chunks, insert_if_absent
from vibes_pipelines.store.models import callbacks, event_outcomes, events

EventStatus = Literal["planned", "sent", "unknown", "accepted", "rejected", "expired", "unclear"]
"""Where an event stands.

`sent`: it may have left. `unknown`: no answer came; it is sent again under its id, which the
platform ignores when it has it. `expired`: it became too old before it was sent. `unclear`: it may
have arrived, and is not sent again; an outcome tells.
"""

OPEN: tuple[EventStatus, ...] = ("planned", "sent", "unknown")

PAGE_ROWS = 1_000
EVENT_PROCESSED = "event_processed"


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """One event to be sent; `attempts` counts the times it may have left already.

    `refused`: it breaks a rule of the platform and is kept as rejected, unsent.
    """

    event_id: str
    source: str
    event_type: str
    event_data: Mapping[str, Any]
    debug_data: Mapping[str, Any] = field(default_factory=dict)
    send_until: datetime | None = None
    attempts: int = 0
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class EventReceipt:
    """The platform's answer to one event."""

    event_id: str
    status: EventStatus
    error_class: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class HeardCallback:
    """An `event_processed` callback whose outcome is not recorded yet."""

    callback_id: int
    happened_at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """What one callback says became of an event; without `event_id` it could not be read."""

    callback_id: int
    happened_at: datetime
    event_id: str | None
    stage: str
    state: str
    reason: str | None


_SENT_FIELDS = ("event_id", "source", "event_type", "event_data", "debug_data", "send_until")
_COLUMNS = tuple(events.c[name] for name in (*_SENT_FIELDS, "attempts"))


class Events(Leases):
    """The events of one ledger database; every method is one transaction, `open_events` a page."""

    def plan(self, planned: Iterable[PlannedEvent]) -> None:
        """Writes the intent to send; an event whose id is there already changes nothing."""
        now = self._clock()
        with self._writer.begin() as connection:
            insert_if_absent(connection, events, (_row(event, now) for event in planned))

    def unknown_ids(self, event_ids: Collection[str]) -> set[str]:
        """Those of the ids that were never planned."""
        left = set(event_ids)
        with self._engine.begin() as connection:
            for chunk in chunks(sorted(event_ids)):
                query = sa.select(events.c.event_id).where(events.c.event_id.in_(chunk))
                left.difference_update(connection.execute(query).scalars())
        return left

    def open_events(self) -> Iterator[list[PlannedEvent]]:
        """What is to be sent, page by page, in the order of ids; each only once."""
        query = sa.select(*_COLUMNS).where(events.c.status.in_(OPEN))
        query = query.order_by(events.c.event_id).limit(PAGE_ROWS)
        page = self._read(query)
        while page:
            yield page
            page = self._read(query.where(events.c.event_id > page[-1].event_id))

    def planned(self, event_id: str) -> PlannedEvent | None:
        """One event as it was planned."""
        query = sa.select(*_COLUMNS).where(events.c.event_id == event_id)
        return next(iter(self._read(query)), None)

    def find(self, event_id: str) -> EventReceipt | None:
        """Where one event stands."""
        table = events.c
        query = sa.select(table.event_id, table.status, table.error_class, table.message)
        with self._engine.begin() as connection:
            row = connection.execute(query.where(table.event_id == event_id)).first()
        return EventReceipt(*row) if row else None

    def expire(self) -> int:
        """Ends what is too old to be sent; returns how many never left."""
        table, now = events.c, self._clock()
        late = sa.and_(table.status.in_(OPEN), table.send_until < now)
        with self._writer.begin() as connection:
            never = connection.execute(
                sa.update(events)
                .where(late, table.attempts == 0)
                .values(status="expired", finished_at=now)
            )
            connection.execute(
                sa.update(events).where(late).values(status="unclear", finished_at=now)
            )
        return int(never.rowcount)

    def mark_sent(self, event_ids: Collection[str]) -> set[str]:
        """Records the intent to send now. To be called before the first byte leaves.

        Returns those that may leave: one that ended meanwhile stays as it is.
        """
        values = {
            "status": "sent",
            "attempts": events.c.attempts + 1,
            "sent_at": self._clock(),
        }
        marked: set[str] = set()
        with self._writer.begin() as connection:
            for chunk in chunks(event_ids):
                statement = (
                    sa.update(events)
                    .where(events.c.event_id.in_(chunk), events.c.status.in_(OPEN))
                    .values(values)
                    .returning(events.c.event_id)
                )
                marked.update(connection.execute(statement).scalars())
        return marked

    def take_back(self, event_ids: Collection[str]) -> None:
        """Undoes the last `mark_sent` of events that certainly did not leave after it."""
        left = events.c.attempts - 1
        status = sa.case((left > 0, "unknown"), else_="planned")
        with self._writer.begin() as connection:
            for chunk in chunks(event_ids):
                connection.execute(
                    sa.update(events)
                    .where(events.c.event_id.in_(chunk), events.c.status == "sent")
                    .values(status=status, attempts=left)
                )

    def record(self, receipts: Iterable[EventReceipt]) -> None:
        """Records answers."""
        statement = (
            sa.update(events)
            .where(events.c.event_id == sa.bindparam("b_id"))
            .values(
                status=sa.bindparam("b_status"),
                error_class=sa.bindparam("b_error_class"),
                message=sa.bindparam("b_message"),
                finished_at=self._clock(),
            )
        )
        rows = (
            {
                "b_id": receipt.event_id,
                "b_status": receipt.status,
                "b_error_class": receipt.error_class,
                "b_message": receipt.message,
            }
            for receipt in receipts
        )
        with self._writer.begin() as connection:
            for chunk in chunks(rows):
                connection.execute(statement, chunk)

    def unrecorded_outcomes(self) -> Iterator[list[HeardCallback]]:
        """Callbacks about events that `record_outcomes` has not seen, page by page."""
        table = callbacks.c
        is_recorded = sa.exists().where(event_outcomes.c.callback_id == table.id)
        query = sa.select(table.id, table.order_at, table.body).where(
            table.event_type == EVENT_PROCESSED, table.status != "parked", ~is_recorded
        )
        query = query.order_by(table.id).limit(PAGE_ROWS)
        last = 0
        while page := self._heard(query.where(table.id > last)):
            yield page
            last = page[-1].callback_id

    def record_outcomes(self, outcomes: Sequence[RecordedOutcome]) -> None:
        """Keeps each outcome once."""
        names = RecordedOutcome.__dataclass_fields__
        rows = ({name: getattr(outcome, name) for name in names} for outcome in outcomes)
        with self._writer.begin() as connection:
            insert_if_absent(connection, event_outcomes, rows)

    def status_counts(self) -> dict[EventStatus, int]:
        """Events by where they stand."""
        status = events.c.status
        query = sa.select(status, sa.func.count()).group_by(status).order_by(status)
        with self._engine.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def outcome_counts(self) -> list[tuple[str, str, str | None, int]]:
        """Outcomes by stage, state and reason."""
        keys = [event_outcomes.c[name] for name in ("stage", "state", "reason")]
        query: sa.Select[Any] = sa.select(*keys, sa.func.count()).group_by(*keys).order_by(*keys)
        with self._engine.begin() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]

    def _read(self, query: sa.Select[Any]) -> list[PlannedEvent]:
        with self._engine.begin() as connection:
            return [PlannedEvent(*row) for row in connection.execute(query)]

    def _heard(self, query: sa.Select[Any]) -> list[HeardCallback]:
        with self._engine.begin() as connection:
            return [HeardCallback(*row) for row in connection.execute(query)]


def _row(event: PlannedEvent, now: datetime) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in _SENT_FIELDS}
    refusal = {"error_class": "InvalidEvent", "message": event.refused, "finished_at": now}
    return {
        **values,
        "event_data": dict(event.event_data),
        "debug_data": dict(event.debug_data),
        "planned_at": now,
        "status": "rejected" if event.refused else "planned",
        "attempts": 0,
        **(refusal if event.refused else dict.fromkeys(refusal)),
    }
