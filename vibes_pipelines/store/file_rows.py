"""The rows of import files as the ledger numbers them; only what keeps the numbers true is here."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from vibes_pipelines.store.models import batches, operations

_ops = operations.c


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
