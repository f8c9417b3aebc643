"""DiffSetRecords: the ledger's part about diff sets, approvals and accepted snapshots."""

from typing import Any

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import diff_set_from, diff_set_row, insert_if_absent
from vibes_pipelines.store.models import accepted_snapshots, diff_sets
from vibes_pipelines.store.records import DiffSet, DiffSetSuperseded, LedgerError

_LOCK = 7_245_190_313
"""Any constant: PostgreSQL's advisory lock under which diff sets are numbered, one at a time."""


class DiffSetRecords(Database):
    """Diff sets, approvals and accepted snapshots of one ledger database."""

    def register(self, record: DiffSet) -> DiffSet:
        """Records a diff set and supersedes every open one of the same or an earlier day.

        The newest one again is a no-op. One of an earlier day than the newest is recorded as
        superseded already. One of the newest day that was superseded (a changed sync config was
        changed back) becomes the newest again. `sequence` and `status` of the argument are ignored.
        """
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            newest = self._newest(connection)
            if newest is not None and newest.diff_set == record.diff_set:
                return newest
            known = self._diff_set(connection, record.diff_set)
            if newest is not None and record.day < newest.day:
                if known is None:
                    self._insert_diff_set(connection, record, "superseded")
                return self._require(connection, record.diff_set)
            if known is None:
                self._insert_diff_set(connection, record, "open")
            else:
                self._reopen(connection, known)
            connection.execute(
                sa.update(diff_sets)
                .where(
                    diff_sets.c.diff_set != record.diff_set,
                    diff_sets.c.status == "open",
                    diff_sets.c.day <= record.day,
                )
                .values(status="superseded")
            )
            return self._require(connection, record.diff_set)

    def diff_set(self, diff_set: str) -> DiffSet | None:
        """The record of one diff set."""
        with self._engine.begin() as connection:
            return self._diff_set(connection, diff_set)

    def newest_diff_set(self) -> DiffSet | None:
        """The newest diff set of the newest day."""
        with self._engine.begin() as connection:
            return self._newest(connection)

    def last_delivered(self, before: str | None = None) -> DiffSet | None:
        """The newest diff set that was delivered whole; with `before`, of days before that one."""
        query = sa.select(diff_sets).where(diff_sets.c.status == "delivered")
        if before is not None:
            query = query.where(diff_sets.c.day < before)
        with self._engine.begin() as connection:
            row = connection.execute(_newest_first(query).limit(1)).first()
        return diff_set_from(row) if row else None

    def approve(self, diff_set: str, reason: str) -> DiffSet:
        """Records that a person released this diff set. A second approval keeps the first."""
        with self._writer.begin() as connection:
            connection.execute(
                sa.update(diff_sets)
                .where(diff_sets.c.diff_set == diff_set, diff_sets.c.approved_reason.is_(None))
                .values(approved_reason=reason, approved_at=self._clock())
            )
            return self._require(connection, diff_set)

    def mark_delivered(self, diff_set: str) -> None:
        """Closes a diff set as delivered and accepts the snapshots it was made from."""
        with self._writer.begin() as connection:
            record = self._require(connection, diff_set)
            connection.execute(
                sa.update(diff_sets)
                .where(diff_sets.c.diff_set == diff_set)
                .values(status="delivered")
            )
            rows = [
                {
                    "day": record.day,
                    "feed": feed,
                    "rows": snapshot.rows,
                    "content_hash": snapshot.content_hash,
                }
                for feed, snapshot in record.snapshots.items()
            ]
            insert_if_absent(connection, accepted_snapshots, rows)

    def accepted_rows(self, day: str) -> dict[str, int] | None:
        """Rows per feed of the last accepted snapshots before `day`; None when there are none."""
        table = accepted_snapshots.c
        last = sa.select(sa.func.max(table.day)).where(table.day < day).scalar_subquery()
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(table.feed, table.rows).where(table.day == last))
            rows = {row.feed: row.rows for row in found}
        return rows or None

    def _newest(self, connection: sa.Connection) -> DiffSet | None:
        row = connection.execute(_newest_first(sa.select(diff_sets)).limit(1)).first()
        return diff_set_from(row) if row else None

    def _diff_set(self, connection: sa.Connection, diff_set: str) -> DiffSet | None:
        query = sa.select(diff_sets).where(diff_sets.c.diff_set == diff_set)
        row = connection.execute(query).first()
        return diff_set_from(row) if row else None

    def _require(self, connection: sa.Connection, diff_set: str) -> DiffSet:
        record = self._diff_set(connection, diff_set)
        if record is None:
            raise LedgerError(f"diff set {diff_set} is not registered; rebuild its day first")
        return record

    def _require_newest(self, connection: sa.Connection, diff_set: str) -> None:
        """Raises DiffSetSuperseded unless it is the newest, and stays so in this transaction."""
        locked = sa.select(diff_sets.c.day).where(diff_sets.c.diff_set == diff_set)
        connection.execute(locked.with_for_update()).all()
        newest = self._newest(connection)
        if newest is not None and newest.diff_set != diff_set:
            raise DiffSetSuperseded(
                f"diff set {diff_set[:12]} is not the newest any more, which is "
                f"{newest.diff_set[:12]} of {newest.day}; nothing of the file was recorded: run "
                "this again for the newest"
            )

    def _insert_diff_set(self, connection: sa.Connection, record: DiffSet, status: str) -> None:
        row = diff_set_row(record) | {"status": status, "sequence": _next_sequence(connection)}
        connection.execute(sa.insert(diff_sets), row)

    def _reopen(self, connection: sa.Connection, record: DiffSet) -> None:
        status = "open" if record.status == "superseded" else record.status
        connection.execute(
            sa.update(diff_sets)
            .where(diff_sets.c.diff_set == record.diff_set)
            .values(status=status, sequence=_next_sequence(connection))
        )


def _newest_first(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.order_by(diff_sets.c.day.desc(), diff_sets.c.sequence.desc())


def _next_sequence(connection: sa.Connection) -> int:
    last = connection.execute(sa.select(sa.func.max(diff_sets.c.sequence))).scalar()
    return (last or 0) + 1
