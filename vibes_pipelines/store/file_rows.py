"""The rows of import files as the ledger numbers them: read as columns, and kept in order.

What a file makes of its rows belongs to `delivery`.
"""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.store.models import batches, operations

_ops = operations.c

FILE_ROWS = pa.schema(
    [
        (name, pa.string())
        for name in ("operation_id", "kind", "external_person_id", "mdn", "changes")
    ]
)
"""The columns of `file_rows`; `changes` is JSON, a list of `Change.as_json`."""

_ROWS_AT_ONCE = 10_000


def file_rows(connection: sa.Connection, batch_id: str) -> pa.Table:
    """The operations of one import file in the order of its rows, as `FILE_ROWS`."""
    columns = [_ops[name] for name in FILE_ROWS.names[:-1]]
    # As text: a parser of columns reads it many times faster than a record at a time is decoded.
    query = sa.select(*columns, sa.cast(_ops.changes, sa.Text)).where(_ops.batch_id == batch_id)
    found = connection.execute(query.order_by(_ops.row_number))
    return pa.Table.from_batches(_record_batches(found), FILE_ROWS)


def _record_batches(found: sa.Result[Any]) -> Iterator[pa.RecordBatch]:
    for rows in found.partitions(_ROWS_AT_ONCE):
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=FILE_ROWS)


def leave_files(connection: sa.Connection, operation_ids: Collection[str], now: datetime) -> None:
    """Takes operations out of the files that they were planned for.

    The rows after them move up, since a report counts rows; a file without rows is done.
    """
    leaving = _ops.operation_id.in_(operation_ids)
    query = sa.select(_ops.batch_id).where(leaving, _ops.batch_id.is_not(None)).distinct()
    left = connection.execute(query.order_by(_ops.batch_id)).scalars().all()
    connection.execute(sa.update(operations).where(leaving).values(batch_id=None, row_number=None))
    for batch_id in left:
        _number_anew(connection, batch_id, now)


def _number_anew(connection: sa.Connection, batch_id: str, now: datetime) -> None:
    place = sa.func.row_number().over(order_by=_ops.row_number).label("place")
    kept = sa.select(_ops.operation_id, place).where(_ops.batch_id == batch_id).subquery()
    connection.execute(
        sa.update(operations)
        .where(_ops.operation_id == kept.c.operation_id)
        .values(row_number=kept.c.place)
    )
    rows = sa.select(sa.func.count()).select_from(kept)
    count = connection.execute(rows).scalar_one()
    done = {} if count else {"status": "done", "report": {"withdrawn": True}, "done_at": now}
    connection.execute(
        sa.update(batches).where(batches.c.batch_id == batch_id).values(rows=count, **done)
    )
