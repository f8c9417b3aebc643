"""What is sent to the platform between two daily runs, and how far the CRM's changes were read.

It lives in the ledger's database beside the ledger, whose operations belong to a diff set of a day;
these belong to none. What to send is decided in `stages.changes`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import chunks, insert_if_absent
from vibes_pipelines.store.ledger_views import PENDING_SCHEMA
from vibes_pipelines.store.models import cursors, operations, realtime_operations
from vibes_pipelines.store.realtime_views import HAS_LEFT
from vibes_pipelines.store.records import (
    OPEN_STATUSES,
    PERSON_KINDS,
    Change,
    Kind,
    Operation,
    Receipt,
)

_ops = realtime_operations.c
_COLUMNS = tuple(c for c in realtime_operations.c if c.name in Operation.__dataclass_fields__)

_OPT_OUTS: tuple[Kind, ...] = ("opt_out", "crm_opt_out")
_STANDS = _ops.status != "superseded"


@dataclass(frozen=True, slots=True)
class Sent:
    """An operation that has left, when it was sent (see `mark_sent`), and whether in real time."""

    operation: Operation
    at: datetime
    in_real_time: bool = False


class RealtimeBook(Database):
    """The operations sent in real time, and the cursors; every method is one transaction."""

    def plan(self, intents: Iterable[Operation]) -> None:
        """Writes intents; one that is there already stays as it is."""
        with self._writer.begin() as connection:
            insert_if_absent(connection, realtime_operations, map(_row, intents))

    def unfinished(self, kinds: Collection[Kind] | None = None) -> list[Operation]:
        """Operations still to be sent, or sent without a known answer; opt-outs first."""
        query = sa.select(*_COLUMNS).where(_ops.status.in_(OPEN_STATUSES))
        if kinds is not None:
            query = query.where(_ops.kind.in_(kinds))
        return self._read(query.order_by(_ops.lane, _ops.as_of, _ops.operation_id))

    def open_opt_outs(self) -> list[tuple[Operation, datetime]]:
        """Opt-outs that the platform did not take, nor a later one of the person, and since when.

        A refused one is open too, until a later one is accepted. The instant is that of the first
        attempt since the last one that was accepted.
        """
        later = realtime_operations.alias()
        made_good = sa.exists().where(
            later.c.kind == "opt_out",
            later.c.status == "accepted",
            later.c.external_person_id == _ops.external_person_id,
            later.c.subscription_list_id == _ops.subscription_list_id,
            later.c.as_of >= _ops.as_of,
        )
        query = sa.select(*_COLUMNS).where(_ops.kind == "opt_out", sa.not_(made_good))
        first: dict[tuple[str | None, str | None], datetime] = {}
        found = []
        for one in self._read(query.order_by(_ops.as_of)):
            whose = one.external_person_id, one.subscription_list_id
            since = first.setdefault(whose, one.as_of)
            if one.status != "superseded":  # made anew, and then it stands here once more
                found.append((one, since))
        return found

    def accepted_opt_outs(self, contacts: Collection[str], since: datetime) -> list[Sent]:
        """Opt-outs that either side took since then, of the daily job too, oldest first."""
        return self._sent(contacts, since, lambda table: table.c.status == "accepted", _OPT_OUTS)

    def withdraw(self, operation_ids: Collection[str]) -> None:
        """Ends operations that were planned or sent without a known answer: they are made anew."""
        self._update(operation_ids, status="superseded", finished_at=self._clock())

    def newest(self, contacts: Collection[str]) -> dict[str, Operation]:
        """The newest operation on the person of each contact, whatever became of it."""
        query = sa.select(*_COLUMNS).where(_ops.kind != "opt_out")
        found: dict[str, Operation] = {}
        for chunk in chunks(contacts):
            chosen = query.where(_ops.external_person_id.in_(chunk))
            rows = self._read(chosen.order_by(_ops.as_of, _ops.operation_id))
            found |= {operation.external_person_id or "": operation for operation in rows}
        return found

    def sent_in_real_time(self, contacts: Collection[str], since: datetime) -> list[Operation]:
        """What left of the persons of these contacts, decided on since then; oldest first."""
        query = sa.select(*_COLUMNS).where(
            _ops.kind != "opt_out", _ops.status.in_(HAS_LEFT), _ops.as_of > since
        )
        return [
            operation
            for chunk in chunks(contacts)
            for operation in self._read(
                query.where(_ops.external_person_id.in_(chunk)).order_by(_ops.as_of)
            )
        ]

    def size(self) -> int:
        """How many operations there are."""
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(sa.func.count()).select_from(realtime_operations))
            return found.scalar() or 0

    def mark_sent(self, operation_ids: Collection[str]) -> None:
        """Records the intent to send now. To be called before the first byte leaves.

        Values of persons count from when they were first sent, an opt-out from when it last was.
        """
        now = sa.literal(self._clock(), type_=_ops.sent_at.type)
        first = sa.func.coalesce(_ops.sent_at, now)
        sent_at = sa.case((_ops.kind.in_(PERSON_KINDS), first), else_=now)
        self._update(operation_ids, status="sent", attempts=_ops.attempts + 1, sent_at=sent_at)

    def record(self, receipts: Iterable[Receipt]) -> None:
        """Records answers."""
        statement = (
            sa.update(realtime_operations)
            .where(_ops.operation_id == sa.bindparam("b_id"))
            .values(
                status=sa.bindparam("b_status"),
                error_class=sa.bindparam("b_class"),
                message=sa.bindparam("b_message"),
                retry_later=sa.bindparam("b_retry"),
                finished_at=self._clock(),
            )
        )
        rows = (
            {
                "b_id": taken.operation_id,
                "b_status": taken.status,
                "b_class": taken.error_class,
                "b_message": taken.message,
                "b_retry": taken.retry_later,
            }
            for taken in receipts
        )
        with self._writer.begin() as connection:
            for chunk in chunks(rows):
                connection.execute(statement, chunk)

    def sent(self, contacts: Collection[str], since: datetime) -> list[Sent]:
        """What was sent of these contacts since then, by the daily job too, oldest first."""
        return self._sent(contacts, since, _left_for_platform)

    def adopted(
        self,
        since: datetime,
        *,
        contacts: Collection[str] = (),
        person_keys: Collection[str] = (),
    ) -> dict[str, str]:
        """The contact whose key each of these persons was sent since then, by person_key.

        Persons are named by their person_key, or by the contacts; the daily job's sends are told
        too.
        """
        named = {"external_person_id": contacts, "person_key": person_keys}
        sent = [
            one
            for column, values in named.items()
            for one in self._sent(values, since, _left_for_platform, PERSON_KINDS, column)
        ]
        return {
            one.operation.person_key: one.operation.external_person_id
            for one in sorted(sent, key=lambda one: one.at)
            if one.operation.person_key
            and one.operation.external_person_id
            and one.operation.touches("external_person_id")
        }

    def _sent(
        self,
        values: Collection[str],
        since: datetime,
        which: Callable[[sa.Table], sa.ColumnElement[bool]],
        kinds: Collection[Kind] | None = None,
        column_name: str = "external_person_id",
    ) -> list[Sent]:
        found = []
        for table in (realtime_operations, operations):
            columns = [table.c[column.name] for column in _COLUMNS]
            query = sa.select(*columns, table.c.sent_at)
            query = query.where(which(table), table.c.sent_at >= since)
            if kinds is not None:
                query = query.where(table.c.kind.in_(kinds))
            with self._engine.begin() as connection:
                for chunk in chunks(values):
                    chosen = query.where(table.c[column_name].in_(chunk))
                    for row in connection.execute(chosen):
                        of_realtime = table is realtime_operations
                        found.append(Sent(_operation(row[:-1], columns), row[-1], of_realtime))
        return sorted(found, key=lambda one: one.at)

    def pending(self, since: datetime) -> pa.Table:
        """Values of persons sent since then, in the shape of `Ledger.pending`."""
        query = sa.select(*_COLUMNS).where(
            _ops.status.in_(HAS_LEFT), _ops.kind != "opt_out", _ops.as_of >= since
        )
        rows = self._read(query.order_by(_ops.as_of, _ops.operation_id))
        return pa.Table.from_pylist(list(_pending_rows(rows)), PENDING_SCHEMA)

    def counts(self, day: str) -> Mapping[str, int]:
        """How many operations of each kind the day has, without those that were withdrawn.

        An opt-out counts once per contact and list, however often it was sent.
        """
        query = sa.select(_ops.kind, sa.func.count()).where(_ops.day == day, _STANDS)
        with self._engine.begin() as connection:
            counted = {row[0]: row[1] for row in connection.execute(query.group_by(_ops.kind))}
        once = {kind: len(self.opt_outs(day, kind)) for kind in counted if kind in _OPT_OUTS}
        return Counter(counted | once)

    def opt_outs(self, day: str, kind: Kind = "opt_out") -> set[tuple[str | None, str | None]]:
        """Contact and list of each opt-out of the day, without those that were withdrawn."""
        query = sa.select(_ops.external_person_id, _ops.subscription_list_id).where(
            _ops.day == day, _ops.kind == kind, _STANDS
        )
        with self._engine.begin() as connection:
            return {(row[0], row[1]) for row in connection.execute(query.distinct())}

    def clears(self, day: str) -> int:
        """How many operations of the day clear a field, without those that were withdrawn."""
        query = sa.select(_ops.changes).where(_ops.day == day, _STANDS)
        with self._engine.begin() as connection:
            return sum(
                any(change["action"] == "clear" for change in row[0] or ())
                for row in connection.execute(query)
            )

    def cursor(self, name: str) -> str | None:
        """How far something was read."""
        query = sa.select(cursors.c.value).where(cursors.c.name == name)
        with self._engine.begin() as connection:
            value: str | None = connection.execute(query).scalar()
        return value

    def move_cursor(self, name: str, value: str) -> None:
        """Records how far something was read; to be called after its effects."""
        with self._writer.begin() as connection:
            build = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            statement = build(cursors).values(name=name, value=value)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["name"], set_={"value": statement.excluded.value}
                )
            )

    def _update(self, operation_ids: Collection[str], **values: Any) -> None:
        with self._writer.begin() as connection:
            for chunk in chunks(operation_ids):
                connection.execute(
                    sa.update(realtime_operations)
                    .where(_ops.operation_id.in_(chunk))
                    .values(**values)
                )

    def _read(self, query: sa.Select[Any]) -> list[Operation]:
        with self._engine.begin() as connection:
            return [_operation(row, _COLUMNS) for row in connection.execute(query)]


def _left_for_platform(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.status.in_(HAS_LEFT), table.c.route != "crm")


def _operation(row: Sequence[Any], columns: Sequence[sa.Column[Any]]) -> Operation:
    values = dict(zip((column.name for column in columns), row, strict=True))
    values["changes"] = tuple(Change.from_json(change) for change in values["changes"])
    return Operation(**values)


def _row(operation: Operation) -> dict[str, Any]:
    row = {column.name: getattr(operation, column.name) for column in _COLUMNS}
    row["changes"] = [change.as_json() for change in operation.changes]
    return row


def _pending_rows(sent: Iterable[Operation]) -> Iterator[dict[str, Any]]:
    for operation in sent:
        fields = {change.field: change.after for change in operation.changes}
        if operation.kind == "add":
            fields["external_person_id"] = operation.external_person_id
            fields |= {"mdn": operation.mdn} if operation.mdn else {}
        for field, value in fields.items():
            yield {
                "external_person_id": operation.external_person_id,
                "field": field,
                "value": value,
                "accepted_at": operation.as_of.replace(tzinfo=None),
            }
