"""What was sent to a destination since an instant, by day and in real time: whom it concerns.

Only reading belongs here. A destination without a share is read back by this list.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import (
    CHUNK_ROWS,
    chunks,
    operation_from,
    select_operations,
)
from vibes_pipelines.store.ledger_views import CERTIFY_SCHEMA, has_left, is_without_verdict
from vibes_pipelines.store.models import operations, realtime_operations
from vibes_pipelines.store.realtime import Sent
from vibes_pipelines.store.realtime_views import had_left
from vibes_pipelines.store.records import Change, Operation

SENT_SCHEMA = pa.schema([CERTIFY_SCHEMA.field(name) for name in ("external_person_id", "changes")])


class SentChanges(Database):
    """The operations of one ledger database that left, whatever became of them."""

    def since(self, instant: datetime | None, diff_set: str | None = None) -> Iterator[Sent]:
        """Operations sent since then, those withdrawn at the last look too, oldest first.

        With `diff_set` of that one only.
        """
        found: list[Sent] = []
        for table in (operations, realtime_operations):
            columns = [c for c in table.c if c.name in Operation.__dataclass_fields__]
            query = sa.select(*columns, table.c.sent_at).where(table.c.sent_at.is_not(None))
            if instant is not None:
                query = query.where(table.c.sent_at >= instant)
            if diff_set is not None:
                query = query.where(table.c.diff_set == diff_set)
            is_prompt = table is realtime_operations
            with self._engine.begin() as connection:
                rows = connection.execute(query.execution_options(yield_per=CHUNK_ROWS))
                found += [_sent(row, in_real_time=is_prompt) for row in rows]
        yield from sorted(found, key=lambda one: one.at)

    def values(self, day: str, as_of: datetime, judged: str) -> pa.Table:
        """Changes of persons that left before `day`, in real time before the instant `as_of`.

        As the ledger was then: what was refused by then is left out, and what had its final verdict
        on the day `judged` or before.
        """
        of_days = operations.c
        wanted = {
            operations: sa.and_(
                of_days.day < day,
                has_left(),
                sa.not_(
                    sa.and_(
                        of_days.status == "rejected",
                        sa.func.coalesce(of_days.finished_day, day) < day,
                    )
                ),
            ),
            realtime_operations: had_left(as_of),
        }
        found = []
        for table, left in wanted.items():
            query = sa.select(table.c.external_person_id, table.c.changes).where(
                left,
                table.c.kind.in_(("add", "update")),
                is_without_verdict(table, judged, pending=True),
            )
            with self._engine.begin() as connection:
                rows = connection.execute(query.execution_options(yield_per=CHUNK_ROWS))
                for part in rows.mappings().partitions():
                    listed = [dict(row) for row in part]
                    found.append(pa.RecordBatch.from_pylist(listed, schema=SENT_SCHEMA))
        return pa.Table.from_batches(found, schema=SENT_SCHEMA)

    def invitations(
        self, day: str, contacts: Collection[str]
    ) -> Iterator[tuple[str, str | None, str]]:
        """Contact, list and diff set of each invitation of a day that left, or may have.

        Only of these contacts; a refused one reached nobody.
        """
        found = operations.c
        query = sa.select(
            found.external_person_id, found.subscription_list_id, found.diff_set
        ).where(
            found.day == day,
            found.kind == "invite",
            found.status.in_(("sent", "accepted", "unknown")),
        )
        for chunk in chunks(contacts):
            with self._engine.begin() as connection:
                rows = connection.execute(query.where(found.external_person_id.in_(chunk))).all()
            yield from ((row[0], row[1], row[2]) for row in rows)

    def answered_opt_outs(
        self, day: str, contacts: Collection[str], nobody: Sequence[str]
    ) -> Iterator[Operation]:
        """Opt-outs of these contacts to which the other side had an answer before `day`.

        It took them, or refused them by an error class of `nobody`: it has none of that name.
        """
        found = operations.c
        query = select_operations().where(
            found.kind.in_(("opt_out", "crm_opt_out")),
            found.day < day,
            found.finished_day < day,
            sa.or_(
                found.status == "accepted",
                sa.and_(found.status == "rejected", found.error_class.in_(nobody)),
            ),
        )
        for chunk in chunks(contacts):
            with self._engine.begin() as connection:
                rows = connection.execute(query.where(found.external_person_id.in_(chunk))).all()
            yield from map(operation_from, rows)


def _sent(row: Any, *, in_real_time: bool) -> Sent:
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    at = values.pop("sent_at")
    values["changes"] = tuple(Change.from_json(change) for change in values["changes"])
    return Sent(Operation(**values), at, in_real_time)
