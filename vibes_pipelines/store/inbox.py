"""Inbox: every callback body as it came, what was read from it, and what became of it.

It lives in the ledger's database. Only keeping belongs here: reading a body is in
`vibes.callbacks`, acting on it in `stages.inbox`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.models import callbacks

Status = Literal["stored", "applied", "ignored", "parked"]
Reception = Literal["stored", "duplicate", "conflict"]

PAGE_ROWS = 500
"""Callbacks read, acted on and marked at once."""

CLOCK_SKEW = timedelta(hours=1)
"""How far a sender's clock may run ahead. What comes from later happened when it arrived."""

CONFLICT = "another body came earlier under the same event_id"

_IDENTIFIERS = ("external_person_id", "person_key", "person_id", "mdn")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One body as it came, and what could be read of it. `parked`: why nobody will act on it.

    `body` may be the beginning of a longer one of `body_bytes`; `content_hash` is of the whole.
    """

    source_address: str
    path: str
    body: bytes
    body_bytes: int
    content_hash: str
    event_id: str | None = None
    event_type: str | None = None
    event_at: datetime | None = None
    company_key: str | None = None
    subscription_list_id: str | None = None
    external_person_id: str | None = None
    person_key: str | None = None
    person_id: str | None = None
    mdn: str | None = None
    parked: str | None = None


@dataclass(frozen=True, slots=True)
class StoredCallback:
    """A callback of the inbox without its body. `order_at` is `event_at`, or else its arrival."""

    id: int
    received_at: datetime
    event_id: str | None
    event_type: str | None
    event_at: datetime | None
    order_at: datetime
    company_key: str | None
    subscription_list_id: str | None
    external_person_id: str | None
    person_key: str | None
    person_id: str | None
    mdn: str | None
    status: Status
    reason: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of one callback, and why."""

    id: int
    status: Literal["applied", "ignored", "parked"]
    reason: str


_COLUMNS = tuple(callbacks.c[name] for name in StoredCallback.__dataclass_fields__)


class Inbox(Database):
    """The callbacks of one ledger database: every method one transaction, `waiting` one a page."""

    def store(self, arrivals: Sequence[Arrival]) -> list[Reception]:
        """Keeps each body once; all of them are on disk when this returns, or none is.

        An event that is there already is a duplicate. Another body under the same event id is kept
        beside the first one, parked as a conflict.
        """
        with self._writer.begin() as connection:
            return [self._store(connection, arrival) for arrival in arrivals]

    def waiting(self) -> Iterator[list[StoredCallback]]:
        """What nobody acted on yet, page by page, in the order of events (ties: of arrival).

        The caller may finish a page before it asks for the next one.
        """
        table = callbacks.c
        query = sa.select(*_COLUMNS).where(table.status == "stored")
        query = query.order_by(table.order_at, table.id).limit(PAGE_ROWS)
        page = self._read(query)
        while page:
            yield page
            last = page[-1]
            is_later = sa.or_(
                table.order_at > last.order_at,
                sa.and_(table.order_at == last.order_at, table.id > last.id),
            )
            page = self._read(query.where(is_later))

    def finish(self, finished: Iterable[Finished]) -> None:
        """Records what became of callbacks. One that was finished before keeps its first end."""
        table = callbacks.c
        statement = (
            sa.update(callbacks)
            .where(table.id == sa.bindparam("b_id"), table.status == "stored")
            .values(
                status=sa.bindparam("b_status"),
                reason=sa.bindparam("b_reason"),
                finished_at=self._clock(),
            )
        )
        rows = ({"b_id": f.id, "b_status": f.status, "b_reason": f.reason} for f in finished)
        with self._writer.begin() as connection:
            for chunk in chunks(rows):
                connection.execute(statement, chunk)

    def later_events(self, callback: StoredCallback, event_type: str) -> list[StoredCallback]:
        """Events of a type, for the same list, dated after this one, that share an identifier.

        Whether they are of the same person is not decided here. Parked ones are left out.
        """
        table = callbacks.c
        shared = [
            table[name] == value for name in _IDENTIFIERS if (value := getattr(callback, name))
        ]
        query = sa.select(*_COLUMNS).where(
            sa.or_(sa.false(), *shared),
            table.event_type == event_type,
            table.subscription_list_id == callback.subscription_list_id,
            table.event_at > callback.order_at,
            table.status != "parked",
        )
        return self._read(query.order_by(table.order_at, table.id))

    def newest_waiting(self) -> int | None:
        """The id of the newest callback that nobody acted on yet."""
        query = sa.select(sa.func.max(callbacks.c.id)).where(callbacks.c.status == "stored")
        with self._engine.begin() as connection:
            newest: int | None = connection.execute(query).scalar()
        return newest

    def backlog(self) -> dict[Status, int]:
        """How many callbacks there are of each status."""
        status = callbacks.c.status
        query = sa.select(status, sa.func.count()).group_by(status).order_by(status)
        with self._engine.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def ping(self) -> None:
        """Raises unless the database answers and has the table."""
        with self._engine.begin() as connection:
            connection.execute(sa.select(callbacks.c.id).limit(1)).all()

    def _store(self, connection: sa.Connection, arrival: Arrival) -> Reception:
        row = self._row(arrival)
        if self._insert(connection, row):
            return "stored"
        first = sa.select(callbacks.c.content_hash).where(callbacks.c.dedup_key == row["dedup_key"])
        if connection.execute(first).scalar() == arrival.content_hash:
            return "duplicate"
        conflict = {
            "dedup_key": _key("conflict", arrival.event_id, arrival.content_hash),
            "status": "parked",
            "reason": CONFLICT,
            "finished_at": row["received_at"],
        }
        return "conflict" if self._insert(connection, row | conflict) else "duplicate"

    def _insert(self, connection: sa.Connection, row: dict[str, Any]) -> bool:
        build = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = build(callbacks).on_conflict_do_nothing(index_elements=["dedup_key"])
        return connection.execute(statement.returning(callbacks.c.id), row).first() is not None

    def _row(self, arrival: Arrival) -> dict[str, Any]:
        now = self._clock()
        event_at = arrival.event_at
        if event_at is not None and event_at > now + CLOCK_SKEW:
            event_at = now
        key = ("event", arrival.event_id) if arrival.event_id else ("body", arrival.content_hash)
        values = {name: getattr(arrival, name) for name in _ARRIVING}
        return values | {
            "received_at": now,
            "event_at": event_at,
            "order_at": event_at or now,
            "dedup_key": _key(*key),
            "status": "parked" if arrival.parked else "stored",
            "reason": arrival.parked,
            "finished_at": now if arrival.parked else None,
        }

    def _read(self, query: sa.Select[Any]) -> list[StoredCallback]:
        with self._engine.begin() as connection:
            return [StoredCallback(*row) for row in connection.execute(query)]


_ARRIVING = tuple(name for name in Arrival.__dataclass_fields__ if name in callbacks.c)


def _key(kind: str, *parts: str | None) -> str:
    text = "\n".join(part or "" for part in parts)
    return f"{kind} {hashlib.sha256(text.encode()).hexdigest()}"
