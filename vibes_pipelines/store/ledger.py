"""Ledger: the durable record of diff sets, batches, operations, receipts and approvals.

Only reading and writing records belongs here. Which record may be written when is decided in
`delivery`; questions over many days are in `ledger_views`; tables and migrations stand beside.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.store import file_rows, ledger_views, realtime_views, without_effect
from vibes_pipelines.store.diff_set_records import DiffSetRecords
from vibes_pipelines.store.leases import Leases
from vibes_pipelines.store.ledger_rows import (
    CHUNK_ROWS,
    batch_from,
    batch_row,
    chunks,
    insert_if_absent,
    operation_from,
    operation_row,
    select_operations,
)
from vibes_pipelines.store.models import batches, diff_sets, operations, realtime_operations
from vibes_pipelines.store.records import (
    FINAL_OUTCOMES,
    OPEN_STATUSES,
    Batch,
    Kind,
    Lane,
    LedgerError,
    Operation,
    OperationCount,
    Outcome,
    Receipt,
    Route,
    Status,
)
from vibes_pipelines.store.states import IllegalTransition, sources_of
from vibes_pipelines.store.without_effect import Ineffective


class Ledger(DiffSetRecords, Leases):
    """One ledger database, SQLite or PostgreSQL. Every method is one transaction."""

    # Plans

    def write_plan(
        self,
        diff_set: str,
        planned_batches: Iterable[Batch],
        planned_operations: Iterable[Operation],
        document: Callable[[], Mapping[str, Any]],
    ) -> bool:
        """Writes every intent of a diff set in one transaction; False when it was planned before.

        A second plan of the same diff set changes nothing, whatever it would say. `document` is
        asked for once every operation is written: it may be counted while they are.
        """
        with self._writer.begin() as connection:
            row = connection.execute(
                sa.select(diff_sets.c.plan)
                .where(diff_sets.c.diff_set == diff_set)
                .with_for_update()
            ).first()
            if row is None:
                raise LedgerError(f"diff set {diff_set} is not registered; register it, then plan")
            if row.plan is not None:
                return False
            now = self._clock()
            insert_if_absent(connection, batches, (batch_row(b, now) for b in planned_batches))
            insert_if_absent(connection, operations, map(operation_row, planned_operations))
            connection.execute(
                sa.update(diff_sets)
                .where(diff_sets.c.diff_set == diff_set)
                .values(plan=dict(document()))
            )
        return True

    def plan(self, diff_set: str) -> Mapping[str, Any] | None:
        """The plan as written; None when the diff set was not planned."""
        query = sa.select(diff_sets.c.plan).where(diff_sets.c.diff_set == diff_set)
        with self._engine.begin() as connection:
            plan: Mapping[str, Any] | None = connection.execute(query).scalar()
        return plan

    # Operations and batches

    def open_operations(self, diff_set: str, lane: Lane, route: Route) -> Iterator[Operation]:
        """Operations still to be sent, or sent without a known answer, in the order of their ids.

        Reads page by page, so that the caller may write receipts between two operations.
        """
        table = operations.c
        query = select_operations().where(
            table.diff_set == diff_set,
            table.lane == lane,
            table.route == route,
            table.status.in_(OPEN_STATUSES),
            sa.or_(table.outcome.is_(None), table.outcome.not_in(FINAL_OUTCOMES)),
        )
        yield from self._pages(query)

    def batch_operations(self, batch_id: str) -> list[Operation]:
        """The operations of one import file, in the order of its rows."""
        query = select_operations().where(operations.c.batch_id == batch_id)
        return self._operations(query.order_by(operations.c.row_number))

    def file_rows(self, batch_id: str) -> pa.Table:
        """See `file_rows.file_rows`."""
        with self._engine.begin() as connection:
            return file_rows.file_rows(connection, batch_id)

    def operation(self, operation_id: str) -> Operation | None:
        """One operation by its id."""
        query = select_operations().where(operations.c.operation_id == operation_id)
        return next(iter(self._operations(query)), None)

    def opt_outs_of_crm(self, day: str) -> list[Operation]:
        """Opt-outs that the CRM took, of diff sets of this day and later; the oldest first."""
        table = operations.c
        query = select_operations().where(
            table.kind == "crm_opt_out", table.status == "accepted", table.day >= day
        )
        return self._operations(query.order_by(table.as_of))

    def mark_sent(self, operation_ids: Collection[str]) -> None:
        """Records the intent to send now. To be called before the first byte leaves.

        Raises:
            IllegalTransition: one of them was answered or withdrawn already.
        """
        with self._writer.begin() as connection:
            for chunk in chunks(operation_ids):
                _require_source(connection, operations.c.operation_id.in_(chunk), "sent")
                connection.execute(
                    sa.update(operations)
                    .where(operations.c.operation_id.in_(chunk))
                    .values(_sent(self._clock()))
                )

    def take_back(self, operation_ids: Collection[str]) -> None:
        """Undoes the last `mark_sent` of operations that certainly did not leave after it.

        One that had been sent before stays unknown: that send may have had its effect.
        """
        left = operations.c.attempts - 1
        status = sa.case((left > 0, "unknown"), else_="planned")
        with self._writer.begin() as connection:
            for chunk in chunks(operation_ids):
                connection.execute(
                    sa.update(operations)
                    .where(operations.c.operation_id.in_(chunk), operations.c.status == "sent")
                    .values(status=status, attempts=left)
                )

    def withdraw(self, reasons: Mapping[str, str], day: str) -> None:
        """Ends operations that must not leave any more, each with its reason, on this logical day.

        Those of an import file leave it; that file must not be on the server.

        Raises:
            IllegalTransition: one of them was answered already.
        """
        with self._writer.begin() as connection:
            self._withdraw(connection, reasons, day)

    def record(self, receipts: Iterable[Receipt], day: str) -> None:
        """Records answers; `day` is the logical day on which they became known.

        Raises:
            IllegalTransition: one of them is about an operation that was not sent, or was answered
                otherwise before.
        """
        with self._writer.begin() as connection:
            self._record(connection, receipts, day)

    def batches(self, *, diff_set: str | None = None, status: str | None = None) -> list[Batch]:
        """Batches by name, narrowed to a diff set or a status."""
        query = sa.select(batches).order_by(batches.c.name)
        if diff_set is not None:
            query = query.where(batches.c.diff_set == diff_set)
        if status is not None:
            query = query.where(batches.c.status == status)
        with self._engine.begin() as connection:
            return [batch_from(row) for row in connection.execute(query)]

    def mark_batch_sent(self, batch_id: str) -> None:
        """Records the intent to upload a file now, for the file and each of its rows."""
        with self._writer.begin() as connection:
            self._mark_batch_sent(connection, batch_id)

    def finish_batch(
        self, batch_id: str, report: Mapping[str, Any], receipts: Iterable[Receipt], day: str
    ) -> None:
        """Records the platform's report on a file: the batch is done, each row has its receipt."""
        with self._writer.begin() as connection:
            self._finish_batch(connection, batch_id, report, receipts, day)

    def hand_over_batch(
        self,
        batch: Batch,
        report: Mapping[str, Any],
        receipts: Iterable[Receipt],
        day: str,
        without: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Records a file as sent and done at once: a person takes it, and no report is read.

        The operations `without` are withdrawn with it, and it has other rows besides.

        Raises:
            DiffSetSuperseded: its diff set is not the newest any more.
        """
        with self._writer.begin() as connection:
            self._require_newest(connection, batch.diff_set)
            self._withdraw(connection, without, day)
            self._mark_batch_sent(connection, batch.batch_id)
            self._finish_batch(connection, batch.batch_id, report, receipts, day)

    def failures(self, diff_set: str) -> Iterator[Operation]:
        """Operations of a diff set that were refused, got no answer or were withdrawn, by id."""
        query = select_operations().where(
            operations.c.diff_set == diff_set,
            operations.c.status.in_(("rejected", "unknown", "superseded")),
        )
        yield from self._pages(query)

    def operation_counts(self, diff_set: str) -> list[OperationCount]:
        """Operations of a diff set, counted by lane, route, kind, status and error class."""
        names = ("lane", "route", "kind", "status", "error_class")
        keys = [operations.c[name] for name in names]
        query: sa.Select[Any] = sa.select(*keys, sa.func.count()).group_by(*keys).order_by(*keys)
        with self._engine.begin() as connection:
            found = connection.execute(query.where(operations.c.diff_set == diff_set))
            return [OperationCount(*row) for row in found]

    def status_counts(self, diff_set: str) -> dict[tuple[Lane, Route, Status], int]:
        """Operations of a diff set, counted by (lane, route, status)."""
        counts: Counter[tuple[Lane, Route, Status]] = Counter()
        for counted in self.operation_counts(diff_set):
            counts[counted.lane, counted.route, counted.status] += counted.rows
        return dict(counts)

    def record_outcomes(self, outcomes: Iterable[tuple[str, Outcome, str]], day: str) -> None:
        """Records the verdicts (operation id, outcome, evidence) of the certificate of `day`.

        The verdict of a later certificate is never replaced by that of an earlier day.
        """
        rows = (
            {"b_id": operation, "b_outcome": outcome, "b_evidence": evidence}
            for operation, outcome, evidence in outcomes
        )
        with self._writer.begin() as connection:
            prompt = realtime_views.certified_ids(connection, day)
            for chunk in chunks(rows):
                for table, is_prompt in ((operations, False), (realtime_operations, True)):
                    of_table = [row for row in chunk if (row["b_id"] in prompt) is is_prompt]
                    if of_table:
                        connection.execute(_verdict_on(table, day), of_table)

    # Questions over many days

    def pending(self, day: str, config_hash: str | None = None) -> pa.Table:
        """See `ledger_views.pending`."""
        with self._engine.begin() as connection:
            return ledger_views.pending(connection, day, config_hash)

    def pending_in_real_time(self, day: str, as_of: datetime) -> pa.Table:
        """See `realtime_views.pending`."""
        with self._engine.begin() as connection:
            return realtime_views.pending(connection, day, as_of)

    def blocked(self, day: str, config_hash: str | None = None) -> pa.Table:
        """See `ledger_views.blocked` and `without_effect.blocked`."""
        with self._engine.begin() as connection:
            views = (ledger_views, without_effect)
            return pa.concat_tables([view.blocked(connection, day, config_hash) for view in views])

    def without_effect(
        self, kinds: Sequence[Kind], day: str, config_hash: str | None = None
    ) -> frozenset[Ineffective]:
        """See `without_effect.without_effect`."""
        with self._engine.begin() as connection:
            return frozenset(without_effect.without_effect(connection, kinds, day, config_hash))

    def to_certify(self, day: str) -> pa.Table:
        """See `ledger_views.to_certify` and `realtime_views.to_certify`."""
        with self._engine.begin() as connection:
            return pa.concat_tables(
                [view.to_certify(connection, day) for view in (ledger_views, realtime_views)]
            )

    def rivals(self, day: str, as_of: datetime) -> pa.Table:
        """See `ledger_views.rivals` and `realtime_views.rivals`."""
        with self._engine.begin() as connection:
            of_days = ledger_views.rivals(connection, day)
            return pa.concat_tables([of_days, realtime_views.rivals(connection, day, as_of)])

    def set_back(self, day: str) -> pa.Table:
        """See `ledger_views.set_back`."""
        with self._engine.begin() as connection:
            return ledger_views.set_back(connection, day)

    def earlier_attempts(
        self, kinds: Sequence[str], day: str, config_hash: str | None = None
    ) -> list[Operation]:
        """See `ledger_views.earlier_attempts`."""
        with self._engine.begin() as connection:
            return ledger_views.earlier_attempts(connection, kinds, day, config_hash)

    # Inside a transaction

    def _pages(self, query: sa.Select[Any]) -> Iterator[Operation]:
        """The operations in the order of their ids, page by page, each its own transaction."""
        key, last = operations.c.operation_id, ""
        while page := self._operations(query.where(key > last).order_by(key).limit(CHUNK_ROWS)):
            yield from page
            last = page[-1].operation_id

    def _operations(self, query: sa.Select[Any]) -> list[Operation]:
        with self._engine.begin() as connection:
            return [operation_from(row) for row in connection.execute(query)]

    def _withdraw(self, connection: sa.Connection, reasons: Mapping[str, str], day: str) -> None:
        end = sa.update(operations).where(operations.c.operation_id == sa.bindparam("b_id"))
        end = end.values(status="superseded", message=sa.bindparam("b_message"))
        end = end.values(finished_at=self._clock(), finished_day=day)
        for chunk in chunks(reasons):
            _require_source(connection, operations.c.operation_id.in_(chunk), "superseded")
            connection.execute(end, [{"b_id": one, "b_message": reasons[one]} for one in chunk])
            file_rows.leave_files(connection, chunk, self._clock())

    def _mark_batch_sent(self, connection: sa.Connection, batch_id: str) -> None:
        now, in_batch = self._clock(), operations.c.batch_id == batch_id
        sent = sa.update(batches).where(batches.c.batch_id == batch_id)
        connection.execute(sent.values(status="sent", sent_at=now))
        _require_source(connection, in_batch, "sent")
        connection.execute(sa.update(operations).where(in_batch).values(_sent(now)))

    def _finish_batch(
        self,
        connection: sa.Connection,
        batch_id: str,
        report: Mapping[str, Any],
        receipts: Iterable[Receipt],
        day: str,
    ) -> None:
        done = sa.update(batches).where(batches.c.batch_id == batch_id)
        done = done.values(status="done", report=dict(report), done_at=self._clock())
        connection.execute(done)
        self._record(connection, receipts, day)

    def _record(self, connection: sa.Connection, receipts: Iterable[Receipt], day: str) -> None:
        said = ("status", "error_class", "message", "retry_later")
        statement = (
            sa.update(operations)
            .where(operations.c.operation_id == sa.bindparam("b_id"))
            .values(finished_at=self._clock(), finished_day=day)
            .values({name: sa.bindparam(f"b_{name}") for name in said})
        )
        rows = (
            {"b_id": receipt.operation_id} | {f"b_{name}": getattr(receipt, name) for name in said}
            for receipt in receipts
        )
        for chunk in chunks(rows):
            for status in {str(row["b_status"]) for row in chunk}:
                ids = [row["b_id"] for row in chunk if row["b_status"] == status]
                _require_source(connection, operations.c.operation_id.in_(ids), status)  # type: ignore[arg-type]
            connection.execute(statement, chunk)


def _require_source(
    connection: sa.Connection, which: sa.ColumnElement[bool], status: Status
) -> None:
    """Raises unless all of these operations may become `status`; see `states.TRANSITIONS`."""
    query = sa.select(operations.c.operation_id, operations.c.status).where(
        which, operations.c.status.not_in(sources_of(status))
    )
    wrong = connection.execute(query.limit(1)).first()
    if wrong is not None:
        raise IllegalTransition(
            f"operation {wrong.operation_id} is {wrong.status} and cannot become {status}; "
            "nothing was recorded: see whether another process delivers the same diff set"
        )


def _verdict_on(table: sa.Table, day: str) -> sa.Update:
    return (
        sa.update(table)
        .where(
            table.c.operation_id == sa.bindparam("b_id"),
            sa.or_(table.c.confirmed_day.is_(None), table.c.confirmed_day <= day),
        )
        .values(
            outcome=sa.bindparam("b_outcome"),
            evidence=sa.bindparam("b_evidence"),
            confirmed_day=day,
        )
    )


def _sent(now: datetime) -> dict[str, Any]:
    return {"status": "sent", "sent_at": now, "attempts": operations.c.attempts + 1}
