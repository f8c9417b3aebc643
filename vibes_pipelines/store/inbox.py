"""Inbox: every callback body as it came, what was read from it, and what became of it.

It lives in the ledger's database. Only keeping belongs here: reading a body is in
`vibes.callbacks`, acting on it in `stages.inbox`.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.models import callbacks

Status = Literal["stored", "applied", "ignored", "parked", "dropped"]
Reception = Literal["stored", "duplicate", "conflict"]

PAGE_ROWS = 500
"""Callbacks read, acted on and marked at once."""

CLOCK_SKEW = timedelta(hours=1)
"""How far a sender's clock may run ahead. What comes from later happened when it arrived."""

CONFLICT = "another body of its type came earlier under the same event_id"

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
    decided_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of one callback, and why."""

    id: int
    status: Literal["applied", "ignored", "parked"]
    reason: str


# Messages of other systems are worked off by themselves: see `stored`.
_OURS = callbacks.c.event_type.is_(None) | callbacks.c.event_type.not_like("tribe.%")
_COLUMNS = tuple(callbacks.c[name] for name in StoredCallback.__dataclass_fields__)


class Inbox(Database):
    """The callbacks of one ledger database: every method one transaction, `waiting` one a page."""

    def store(self, arrivals: Sequence[Arrival]) -> list[Reception]:
        """Keeps each body once; all of them are on disk when this returns, or none is.

        An event that is there already is a duplicate. Another body of the same type under the same
        event id is kept beside the first one, parked as a conflict.
        """
        with self._writer.begin() as connection:
            return [self._store(connection, arrival) for arrival in arrivals]

    def waiting(self, urgent: Collection[str] = ()) -> Iterator[list[StoredCallback]]:
        """What nobody acted on yet, page by page, in the order of events (ties: of arrival).

        Events of the types `urgent` come first; those that arrive meanwhile, before the next page
        of the others. The caller may finish a page before it asks for the next one.
        """
        seen = 0
        table = callbacks.c
        others = self._pages(_OURS, table.event_type.is_(None) | table.event_type.not_in(urgent))
        page: list[StoredCallback] | None = []
        while page is not None:
            for ahead in self._pages(table.event_type.in_(urgent), table.id > seen):
                seen = max(seen, *(callback.id for callback in ahead))
                yield ahead
            page = next(others, None)
            if page:
                yield page

    def _pages(self, *conditions: sa.ColumnElement[bool]) -> Iterator[list[StoredCallback]]:
        table = callbacks.c
        query = sa.select(*_COLUMNS).where(table.status == "stored", *conditions)
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

        Whether they are of the same person is not decided here. Left out are those that are parked
        and those that a person dropped.
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
            table.status.not_in(("parked", "dropped")),
        )
        return self._read(query.order_by(table.order_at, table.id))

    def events(
        self,
        event_type: str,
        lists: Collection[str] | None,
        identifiers: Mapping[str, Collection[str]],
    ) -> list[StoredCallback]:
        """Events of a type for one of these lists that share an identifier, acted on or not.

        Without `lists`, of whatever list or none.

        `identifiers`: values by name, of `external_person_id`, `person_key`, `person_id`, `mdn`.
        """
        found: dict[int, StoredCallback] = {}
        for name, values in identifiers.items():
            for chunk in chunks(values):
                query = sa.select(*_COLUMNS).where(
                    callbacks.c[name].in_(chunk), callbacks.c.event_type == event_type
                )
                if lists is not None:
                    query = query.where(callbacks.c.subscription_list_id.in_(list(lists)))
                found |= {event.id: event for event in self._read(query)}
        return [found[number] for number in sorted(found)]

    def bodies(self, ids: Collection[int]) -> dict[int, bytes]:
        """The bodies of callbacks, by id."""
        query = sa.select(callbacks.c.id, callbacks.c.body)
        with self._engine.begin() as connection:
            return {
                row[0]: row[1]
                for chunk in chunks(ids)
                for row in connection.execute(query.where(callbacks.c.id.in_(chunk)))
            }

    def heard(
        self,
        types: Collection[str],
        since: datetime,
        contacts: Collection[str],
        *,
        person_keys: Collection[str] = (),
        mdns: Collection[str] = (),
        company_key: str | None = None,
    ) -> list[StoredCallback]:
        """Events of these types since then that have one of these identifiers, in their order.

        Parked and dropped ones are left out; with a `company_key` those that name another, too.
        """
        table = callbacks.c
        query = sa.select(*_COLUMNS).where(
            table.event_type.in_(types),
            table.order_at >= since,
            table.status.not_in(["parked", "dropped"]),
            _of_company(company_key),
        )
        wanted = {"external_person_id": contacts, "person_key": person_keys, "mdn": mdns}
        found = {
            callback.id: callback
            for name, values in wanted.items()
            for chunk in chunks(values)
            for callback in self._read(query.where(table[name].in_(chunk)))
        }
        return sorted(found.values(), key=lambda one: (one.order_at, one.id))

    def arrived_after(
        self, number: int, event_type: str, lists: Collection[str], company_key: str
    ) -> Iterator[list[StoredCallback]]:
        """Events of a type for these lists with a higher id, by pages; left out as in `heard`."""
        table = callbacks.c
        query = sa.select(*_COLUMNS).where(
            table.event_type == event_type,
            table.subscription_list_id.in_(list(lists)),
            table.status.not_in(["parked", "dropped"]),
            _of_company(company_key),
        )
        query = query.order_by(table.id).limit(PAGE_ROWS)
        while page := self._read(query.where(table.id > number)):
            yield page
            number = page[-1].id

    def newest(self) -> int:
        """The highest id; 0 when there is nothing."""
        with self._engine.begin() as connection:
            return connection.execute(sa.select(sa.func.max(callbacks.c.id))).scalar() or 0

    def parked(self, types: Collection[str] | None = None) -> list[StoredCallback]:
        """What is parked, the oldest event first."""
        query = sa.select(*_COLUMNS).where(callbacks.c.status == "parked")
        if types is not None:
            query = query.where(callbacks.c.event_type.in_(types))
        return self._read(query.order_by(callbacks.c.order_at, callbacks.c.id))

    def stored(self, types: Collection[str]) -> list[StoredCallback]:
        """What waits of these types, the oldest event first."""
        return [
            callback for page in self._pages(callbacks.c.event_type.in_(types)) for callback in page
        ]

    def retry(self, read: Mapping[int, Arrival], reason: str) -> list[int]:
        """Lets parked callbacks wait again, as they are read now; returns those that do.

        One that cannot be read yet stays parked, with what is said of it now.
        """
        return [number for number, arrival in read.items() if self._retry(number, arrival, reason)]

    def drop(self, ids: Collection[int], reason: str) -> list[int]:
        """Ends parked callbacks without an effect; returns those that were parked."""
        table = callbacks.c
        now = self._clock()
        statement = (
            sa.update(callbacks)
            .where(table.id.in_(ids), table.status == "parked")
            .values(status="dropped", decided_reason=reason, decided_at=now, finished_at=now)
            .returning(table.id)
        )
        with self._writer.begin() as connection:
            return sorted(row[0] for row in connection.execute(statement))

    def finished_since(self, reason: str, since: datetime) -> int:
        """How many callbacks ended with this reason since then."""
        table = callbacks.c
        query = sa.select(sa.func.count()).where(table.reason == reason, table.finished_at >= since)
        with self._engine.begin() as connection:
            return connection.execute(query).scalar() or 0

    def newest_waiting(self) -> int | None:
        """The id of the newest callback that nobody acted on yet."""
        query = sa.select(sa.func.max(callbacks.c.id)).where(callbacks.c.status == "stored", _OURS)
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

    def _retry(self, number: int, arrival: Arrival, reason: str) -> bool:
        table = callbacks.c
        row = self._row(arrival)
        kept = {"received_at", "dedup_key", "content_hash", "source_address", "path"}
        kept |= {"body", "body_bytes"}
        values = {name: value for name, value in row.items() if name not in kept}
        values |= {"decided_reason": reason, "decided_at": self._clock()}
        if arrival.event_at is None:
            values["order_at"] = table.received_at  # when it came, not when it was read again
        statement = (
            sa.update(callbacks)
            .where(table.id == number, table.status == "parked")
            .values(values)
            .returning(table.status)
        )
        with self._writer.begin() as connection:
            return connection.execute(statement).scalar() == "stored"

    def _store(self, connection: sa.Connection, arrival: Arrival) -> Reception:
        row = self._row(arrival)
        if self._insert(connection, row):
            return "stored"
        first = sa.select(callbacks.c.content_hash).where(callbacks.c.dedup_key == row["dedup_key"])
        if connection.execute(first).scalar() == arrival.content_hash:
            return "duplicate"
        conflict = {
            "dedup_key": _key(
                "conflict", arrival.event_type, arrival.event_id, arrival.content_hash
            ),
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
        values = {name: getattr(arrival, name) for name in _ARRIVING}
        return values | {
            "received_at": now,
            "event_at": event_at,
            "order_at": event_at or now,
            "dedup_key": _dedup_key(arrival),
            "status": "parked" if arrival.parked else "stored",
            "reason": arrival.parked,
            "finished_at": now if arrival.parked else None,
        }

    def _read(self, query: sa.Select[Any]) -> list[StoredCallback]:
        with self._engine.begin() as connection:
            return [StoredCallback(*row) for row in connection.execute(query)]


def _of_company(key: str | None) -> sa.ColumnElement[bool]:
    return sa.true() if key is None else sa.func.coalesce(callbacks.c.company_key, key) == key


_ARRIVING = tuple(name for name in Arrival.__dataclass_fields__ if name in callbacks.c)


def _dedup_key(arrival: Arrival) -> str:
    """What is equal for each delivery of an event.

    An event id tells events of one type apart, no more: the documentation's own samples of two
    types share one.
    """
    if arrival.event_id:
        return _key("event", arrival.event_type, arrival.event_id)
    return _key("body", arrival.content_hash)


def _key(kind: str, *parts: str | None) -> str:
    text = "\n".join(part or "" for part in parts)
    return f"{kind} {hashlib.sha256(text.encode()).hexdigest()}"
