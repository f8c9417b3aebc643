"""Turns ledger rows into records and back, and writes them in chunks. No decisions belong here."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vibes_pipelines.store import models
from vibes_pipelines.store.records import (
    AcceptedSnapshot,
    Batch,
    Change,
    DiffSet,
    Operation,
)

T = TypeVar("T")

CHUNK_ROWS = 1_000
"""Rows per statement: enough to make the statement's own cost small, and memory stays flat."""

_OPERATION_COLUMNS = tuple(
    column for column in models.operations.c if column.name in Operation.__dataclass_fields__
)


def chunks(items: Iterable[T], size: int = CHUNK_ROWS) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def insert_if_absent(
    connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Inserts the rows whose primary or unique key is not there yet; leaves the others alone."""
    build = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = build(table).on_conflict_do_nothing()
    for chunk in chunks(rows):
        connection.execute(statement, chunk)


def select_operations() -> sa.Select[Any]:
    """Every column of an operation that its record has."""
    return sa.select(*_OPERATION_COLUMNS)


def operation_from(row: sa.Row[Any]) -> Operation:
    """One row of `select_operations` as a record."""
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    values["changes"] = tuple(Change.from_json(change) for change in values["changes"])
    return Operation(**values)


def operation_row(operation: Operation) -> dict[str, Any]:
    """The record as a row of the operations table."""
    row = {column.name: getattr(operation, column.name) for column in _OPERATION_COLUMNS}
    row["changes"] = [change.as_json() for change in operation.changes]
    return row


def batch_from(row: sa.Row[Any]) -> Batch:
    """One row of the batches table as a record."""
    return Batch(
        batch_id=row.batch_id,
        diff_set=row.diff_set,
        name=row.name,
        rows=row.rows,
        status=row.status,
        report=row.report,
    )


def batch_row(batch: Batch, now: datetime) -> dict[str, Any]:
    """The record as a row of the batches table, made now."""
    return {
        "batch_id": batch.batch_id,
        "diff_set": batch.diff_set,
        "name": batch.name,
        "rows": batch.rows,
        "status": batch.status,
        "created_at": now,
    }


def diff_set_from(row: sa.Row[Any]) -> DiffSet:
    """One row of the diff sets table as a record."""
    return DiffSet(
        diff_set=row.diff_set,
        sequence=row.sequence,
        day=row.day,
        as_of=row.as_of,
        mapping_hash=row.mapping_hash,
        config_hash=row.config_hash,
        status=row.status,
        summary=row.summary,
        snapshots={feed: AcceptedSnapshot(**s) for feed, s in row.snapshots.items()},
        approved_reason=row.approved_reason,
        approved_at=row.approved_at,
    )


def diff_set_row(record: DiffSet) -> dict[str, Any]:
    """The record as a row of the diff sets table."""
    snapshots = {
        feed: {"rows": snapshot.rows, "content_hash": snapshot.content_hash}
        for feed, snapshot in record.snapshots.items()
    }
    return {
        "diff_set": record.diff_set,
        "sequence": record.sequence,
        "day": record.day,
        "as_of": record.as_of,
        "mapping_hash": record.mapping_hash,
        "config_hash": record.config_hash,
        "status": record.status,
        "summary": dict(record.summary),
        "snapshots": snapshots,
    }
