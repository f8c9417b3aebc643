"""Reads from the ledger what the page of a day tells of its operations, in counts.

Nothing is written, and no value of a person is read; the few rows shown carry masks.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.store.models import batches, operations, realtime_operations

_ops = operations.c
HAS_LEFT = ("sent", "accepted", "rejected", "unknown")
_ON_THEIR_WAY = ("sent", "accepted", "unknown")
_OPT_OUTS = ("opt_out", "crm_opt_out")


@dataclass(frozen=True)
class Standing:
    """Operations of one diff set that stand alike."""

    lane: str
    route: str
    kind: str
    status: str
    outcome: str | None
    subscription_list_id: str | None
    rows: int


@dataclass(frozen=True)
class Pace:
    """How fast one road was: rows answered between the first send and the last answer."""

    lane: str
    route: str
    rows: int
    attempts: int
    first: datetime | None
    last: datetime | None

    @property
    def seconds(self) -> float:
        """From the first send to the last answer."""
        return (self.last - self.first).total_seconds() if self.first and self.last else 0.0


@dataclass(frozen=True)
class Awaited:
    """Operations that left and were not seen yet, by the daily job or in real time."""

    day: str
    lane: str
    route: str
    status: str
    in_real_time: bool
    rows: int


@dataclass(frozen=True)
class Refused:
    """One refused or unanswered operation and where it stands; no value of it."""

    kind: str
    route: str
    status: str
    error_class: str
    external_person_id: str | None
    person_key: str | None
    fields: tuple[str, ...]
    file: str | None
    row_number: int | None


def standings(connection: sa.Connection, diff_set: str) -> list[Standing]:
    """The operations of a diff set, counted by where they stand now."""
    names = ("lane", "route", "kind", "status", "outcome", "subscription_list_id")
    keys = [_ops[name] for name in names]
    query = sa.select(*keys, sa.func.count()).where(_ops.diff_set == diff_set).group_by(*keys)
    found = [
        Standing(row[0], row[1], row[2], row[3], row[4], row[5], int(row[6]))
        for row in connection.execute(query)
    ]
    return sorted(found, key=lambda one: tuple(str(getattr(one, name)) for name in names))


def paces(connection: sa.Connection, diff_set: str) -> list[Pace]:
    """How fast each road of a diff set was."""
    keys = [_ops.lane, _ops.route]
    query = (
        sa.select(
            *keys,
            sa.func.count(),
            sa.func.sum(_ops.attempts),
            sa.func.min(_ops.sent_at),
            sa.func.max(_ops.finished_at),
        )
        .where(_ops.diff_set == diff_set, _ops.sent_at.is_not(None))
        .group_by(*keys)
        .order_by(*keys)
    )
    return [
        Pace(row[0], row[1], int(row[2]), int(row[3]), row[4], row[5])
        for row in connection.execute(query)
    ]


def awaited(connection: sa.Connection, day: str) -> list[Awaited]:
    """What left on `day` or before and had no final verdict when that day was over."""
    found = [
        Awaited(row[0], row[1], row[2], row[3], table is realtime_operations, int(row[4]))
        for table in (operations, realtime_operations)
        for row in connection.execute(_awaited(table, day))
    ]
    return sorted(
        found, key=lambda one: (one.day, one.lane, one.in_real_time, one.status, one.route)
    )


def _awaited(table: sa.Table, day: str) -> sa.Select[Any]:
    ops = table.c
    keys = [ops.day, ops.lane, ops.route, ops.status]
    return (
        sa.select(*keys, sa.func.count())
        .where(
            ops.day <= day,
            ops.status.in_(_ON_THEIR_WAY),
            sa.or_(ops.outcome.is_(None), ops.outcome == "pending", ops.confirmed_day > day),
        )
        .group_by(*keys)
    )


def refused(connection: sa.Connection, diff_set: str, limit: int) -> Iterator[Refused]:
    """The first refused and unanswered operations of a diff set, by error class and id."""
    query = (
        sa.select(
            _ops.kind,
            _ops.route,
            _ops.status,
            _ops.error_class,
            _ops.external_person_id,
            _ops.person_key,
            _ops.changes,
            batches.c.name.label("file"),
            _ops.row_number,
        )
        .join_from(operations, batches, isouter=True)
        .where(_ops.diff_set == diff_set, _ops.status.in_(("rejected", "unknown")))
        .order_by(_ops.error_class, _ops.operation_id)
        .limit(limit)
    )
    for row in connection.execute(query):
        yield Refused(
            kind=row.kind,
            route=row.route,
            status=row.status,
            error_class=row.error_class or "unnamed",
            external_person_id=row.external_person_id,
            person_key=row.person_key,
            fields=tuple(sorted(change["field"] for change in row.changes)),
            file=row.file,
            row_number=row.row_number,
        )


def rejected_rows(connection: sa.Connection, days: tuple[str, str]) -> dict[str, int]:
    """Refused operations of each day from the first to the last of `days`."""
    query = (
        sa.select(_ops.day, sa.func.count())
        .where(_ops.day.between(*days), _ops.status == "rejected")
        .group_by(_ops.day)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def accepted_opt_outs(connection: sa.Connection, days: tuple[str, str]) -> Counter[str]:
    """Opt-outs that either side took, by the day that sent them, from the first to the last."""
    found: Counter[str] = Counter()
    for table in (operations, realtime_operations):
        ops = table.c
        query = (
            sa.select(ops.day, sa.func.count())
            .where(ops.day.between(*days), ops.kind.in_(_OPT_OUTS), ops.status == "accepted")
            .group_by(ops.day)
        )
        found.update({row[0]: int(row[1]) for row in connection.execute(query)})
    return found


def invitations(connection: sa.Connection, day: str) -> dict[str, int]:
    """Invitations that left on a day, by list."""
    query = (
        sa.select(_ops.subscription_list_id, sa.func.count())
        .where(_ops.day == day, _ops.kind == "invite", _ops.status.in_(HAS_LEFT))
        .group_by(_ops.subscription_list_id)
    )
    return {str(row[0]): int(row[1]) for row in connection.execute(query)}
