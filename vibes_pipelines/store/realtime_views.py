"""What was sent between two daily runs, as the daily run asks for it: pending, and to certify.

The shapes are those of `ledger_views`. These operations belong to no diff set: they count as of the
instant at which they were decided on, their days are those of the wall clock, and among sends of
one field the later instant is the later send. What was so at an instant is told by the instants in
a row, not by its status, which may have changed since. Only reading belongs here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.store.ledger_views import (
    CERTIFY_SCHEMA,
    PENDING_SCHEMA,
    RIVAL_SCHEMA,
    is_without_verdict,
    sent_values,
)
from vibes_pipelines.store.models import operations, realtime_operations
from vibes_pipelines.store.records import PERSON_KINDS, Status

_ops = realtime_operations.c

HAS_LEFT: tuple[Status, ...] = ("sent", "accepted", "unknown")
"""Statuses under which the platform has the values, or may have them."""

_CERTIFIED: tuple[Status, ...] = (*HAS_LEFT, "rejected")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def pending(connection: sa.Connection, day: str, as_of: datetime) -> pa.Table:
    """Values of persons sent before the instant `as_of`, without a final verdict before `day`.

    One row per person and field, the newest send. A refusal that came before then leaves nothing
    pending, nor does a withdrawal.
    """
    query = (
        sa.select(*(_ops[name] for name in ("kind", "external_person_id", "mdn", "changes")))
        .add_columns(_ops.as_of)
        .where(
            _ops.kind.in_(PERSON_KINDS),
            had_left(as_of),
            is_without_verdict(realtime_operations, day, pending=True),
        )
        .order_by(_ops.as_of, _ops.operation_id)
    )
    newest = {
        (row.external_person_id, field): {
            "external_person_id": row.external_person_id,
            "field": field,
            "value": value,
            "accepted_at": _naive(row.as_of),
        }
        for row in connection.execute(query)
        for field, value in sent_values(row)
    }
    return pa.Table.from_pylist([newest[key] for key in sorted(newest)], PENDING_SCHEMA)


def with_newer(daily: pa.Table, prompt: pa.Table) -> pa.Table:
    """Both tables of pending values, of each person and field the newer row."""
    if not prompt.num_rows:
        return daily
    newest = {_key(row): row for row in prompt.to_pylist()}
    kept = []
    for row in daily.to_pylist():
        other = newest.get(_key(row))
        if other is None or other["accepted_at"] < row["accepted_at"]:
            newest.pop(_key(row), None)
            kept.append(row)
    return pa.Table.from_pylist([*kept, *newest.values()], PENDING_SCHEMA)


def to_certify(connection: sa.Connection, day: str) -> pa.Table:
    """What was sent on days before `day` and had no final verdict before it."""
    names = [field.name for field in CERTIFY_SCHEMA if field.name in _ops]
    query = sa.select(*(_ops[name] for name in names)).where(_is_uncertified(day))
    rows = (
        dict(zip(names, row, strict=True))
        | {"as_of": _naive(row.as_of), "sequence": _sequence(row.as_of), "diff_set_status": None}
        for row in connection.execute(query.order_by(_ops.operation_id))
    )
    return pa.Table.from_pylist(list(rows), CERTIFY_SCHEMA)


def certified_ids(connection: sa.Connection, day: str) -> set[str]:
    """The ids of `to_certify`."""
    query = sa.select(_ops.operation_id).where(_is_uncertified(day))
    return set(connection.execute(query).scalars())


def rivals(connection: sa.Connection, day: str, as_of: datetime) -> pa.Table:
    """Per field, every send before `day`; of persons that somebody is to certify anything of.

    Those later ones too that had left at the instant `as_of`, which the snapshots of `day` show.
    """
    names = ("kind", "external_person_id", "changes", "day", "as_of", "finished_at", "mdn")
    people = sa.union(
        sa.select(_ops.external_person_id).where(_is_uncertified(day)),
        sa.select(operations.c.external_person_id).where(
            operations.c.day < day, is_without_verdict(operations, day)
        ),
    )
    query = sa.select(*(_ops[name] for name in names)).where(
        sa.or_(
            sa.and_(_ops.day < day, _ops.status.in_(HAS_LEFT)),
            sa.and_(_ops.day >= day, had_left(as_of)),
        ),
        _ops.external_person_id.in_(people),
    )
    rows = [
        {
            "kind": row.kind,
            "external_person_id": row.external_person_id,
            "field": field,
            "value": value,
            "day": row.day,
            "as_of": _naive(row.as_of),
            "sequence": _sequence(row.as_of),
            "answered_at": _answered_at(row, day, as_of),
        }
        for row in connection.execute(query)
        for field, value in _changes(row)
    ]
    return pa.Table.from_pylist(rows, RIVAL_SCHEMA)


def had_left(at: sa.ColumnElement[Any] | datetime) -> sa.ColumnElement[bool]:
    """The platform had the values at this instant, or may have had them, whatever came later."""
    has_ended = sa.and_(_ops.status.in_(("rejected", "superseded")), _ops.finished_at < at)
    return sa.and_(_ops.as_of < at, _ops.sent_at < at, sa.not_(has_ended))


def _is_uncertified(day: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        _ops.day < day,
        _ops.status.in_(_CERTIFIED),
        is_without_verdict(realtime_operations, day),
    )


def _answered_at(row: sa.Row[Any], day: str, as_of: datetime) -> datetime | None:
    """When it was answered; one of `day` or later may have been answered after `as_of` only."""
    if row.finished_at is None or (row.day >= day and row.finished_at >= as_of):
        return None
    return _naive(row.finished_at)


def _changes(row: sa.Row[Any]) -> Iterator[tuple[str, str | None]]:
    for change in row.changes:
        yield change["field"], change["after"]


def _key(row: dict[str, Any]) -> tuple[str | None, str]:
    return row["external_person_id"], row["field"]


def _sequence(instant: datetime) -> int:
    """Later than every diff set of the same instant: those are numbered from 1."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)
