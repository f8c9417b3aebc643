"""Reads from the ledger what was recorded of one person, and of the diff sets of some days.

Operations are found by their indexed identifiers, so that the size of the ledger does not matter.
Nothing is written.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.report.explain_facts import (
    CallbackFact,
    ChangeFact,
    OperationFact,
    Verdict,
)
from vibes_pipelines.report.explain_texts import instant_text, means
from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.ledger_rows import diff_set_from
from vibes_pipelines.store.models import UtcDateTime, batches, diff_sets, operations
from vibes_pipelines.store.records import DiffSet
from vibes_pipelines.vibes.error_classes import lookup

_IDENTIFIERS = ("external_person_id", "person_key")
_CALLBACKS = sa.table(
    "callbacks",
    sa.column("id"),
    sa.column("received_at", UtcDateTime),
    sa.column("event_type"),
    sa.column("event_at", UtcDateTime),
    sa.column("subscription_list_id"),
    sa.column("external_person_id"),
    sa.column("person_key"),
    sa.column("mdn"),
    sa.column("status"),
    sa.column("reason"),
)
_CRM_KINDS = frozenset({"crm_update", "crm_opt_out"})


@contextmanager
def reading(url: str) -> Iterator[sa.Connection]:
    """One connection to the ledger, for reading."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def operations_query(column: str, values: Collection[str]) -> sa.Select[Any]:
    """Operations whose `column`, external_person_id or person_key, is one of these values."""
    return (
        sa.select(operations, batches.c.name.label("batch_name"))
        .join_from(operations, batches, isouter=True)
        .where(operations.c[column].in_(sorted(values)))
    )


def operations_of(
    connection: sa.Connection, external_person_id: str | None, person_keys: Collection[str]
) -> list[OperationFact]:
    """Every operation on the person, in the order of days and ids, with its last verdict."""
    wanted = ((external_person_id,) if external_person_id else (), person_keys)
    found: dict[str, OperationFact] = {}
    for column, values in zip(_IDENTIFIERS, wanted, strict=True):
        if values:
            for row in connection.execute(operations_query(column, values)):
                found[row.operation_id] = _operation(row)
    return sorted(found.values(), key=lambda one: (one.day, one.lane, one.operation_id))


def identifiers_of(
    connection: sa.Connection, column: str, value: str
) -> list[tuple[str | None, str | None]]:
    """The pairs (external_person_id, person_key) of operations that this identifier names."""
    query = (
        sa.select(operations.c.external_person_id, operations.c.person_key)
        .where(operations.c[column] == value)
        .distinct()
    )
    return [(row.external_person_id, row.person_key) for row in connection.execute(query)]


def diff_sets_of(connection: sa.Connection, days: Collection[str]) -> list[DiffSet]:
    """The registered diff sets of these days, in the order in which they were registered."""
    query = sa.select(diff_sets).where(diff_sets.c.day.in_(sorted(days)))
    ordered = query.order_by(diff_sets.c.sequence)
    return [diff_set_from(row) for row in connection.execute(ordered)]


def registered_days(connection: sa.Connection) -> list[str]:
    """The days that have a diff set in the ledger, oldest first."""
    query = sa.select(diff_sets.c.day).distinct().order_by(diff_sets.c.day)
    return [row.day for row in connection.execute(query)]


def callbacks_of(
    connection: sa.Connection,
    external_person_id: str | None,
    person_keys: Collection[str],
    mdns: Collection[str],
) -> list[CallbackFact]:
    """The callbacks about the person, oldest first; none where the ledger keeps no inbox."""
    if not sa.inspect(connection).has_table(_CALLBACKS.name):
        return []
    found: dict[int, CallbackFact] = {}
    wanted = {
        "external_person_id": [external_person_id] if external_person_id else [],
        "person_key": sorted(person_keys),
        "mdn": sorted(mdns),
    }
    for column, values in wanted.items():
        query = sa.select(_CALLBACKS).where(_CALLBACKS.c[column].in_(values))
        for row in connection.execute(query) if values else ():
            found[row.id] = _callback(row)
    return [found[number] for number in sorted(found)]


def _callback(row: sa.Row[Any]) -> CallbackFact:
    return CallbackFact(
        received_at=instant_text(row.received_at),
        event_type=row.event_type,
        event_at=instant_text(row.event_at),
        subscription_list_id=row.subscription_list_id,
        status=row.status,
        reason=row.reason,
    )


def _operation(row: sa.Row[Any]) -> OperationFact:
    meaning = lookup(row.error_class) if row.error_class else None
    return OperationFact(
        operation_id=row.operation_id,
        diff_set=row.diff_set,
        day=row.day,
        kind=row.kind,
        lane=row.lane,
        route=row.route,
        route_reason=row.route_reason,
        subscription_list_id=row.subscription_list_id,
        changes=tuple(_change(row.kind, change) for change in row.changes),
        status=row.status,
        attempts=row.attempts,
        sent_at=instant_text(row.sent_at),
        batch=row.batch_name,
        row_number=row.row_number,
        finished_at=instant_text(row.finished_at),
        finished_day=row.finished_day,
        error_class=row.error_class,
        message=row.message,
        retry_later=row.retry_later,
        category=meaning.category if meaning else None,
        advice=meaning.advice if meaning else None,
        verdicts=(Verdict(row.confirmed_day, row.outcome, row.evidence),) if row.outcome else (),
    )


def _change(kind: str, change: dict[str, Any]) -> ChangeFact:
    return ChangeFact(
        side="crm" if kind in _CRM_KINDS else "platform",
        field=change["field"],
        action=change["action"],
        before=change["before"],
        after=change["after"],
        reason=change["reason"],
        means=means(change["reason"]),
    )
