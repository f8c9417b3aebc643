"""Values that were sent on several days and never took effect: not to be sent as they are again.

One rule for the platform and for the CRM, told as of a day like `ledger_views`: the same value was
sent in place of the same other one, on `MAX_DAYS` days, was accepted each time, and a certificate
left each send unexplained. A write-back counts too when it was refused. It ends as soon as either
side has another value, and after a month in any case. Opt-outs are no values, and never end. Only
reading belongs here.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.store.ledger_views import (
    BLOCKED_SCHEMA,
    View,
    has_left,
    sent_values,
    stream,
    with_diff_set,
)
from vibes_pipelines.store.models import diff_sets, operations
from vibes_pipelines.store.records import PERSON_KINDS, Kind

MAX_DAYS = 3
"""On how many days the same value is sent without effect before a person must look at it."""

LASTS = timedelta(days=30)
"""How long a send counts: nothing tells when both sides agreed in between and differ once more."""

KEPT_DIFFERENTLY = "KeptDifferently"
"""Error class of a value that the platform accepts, and does not hold."""

_ops = operations.c


class Ineffective(NamedTuple):
    """A value that a person or contact was to have in place of another one, and never had."""

    external_person_id: str | None
    field: str
    before: str | None
    after: str | None


def without_effect(
    connection: sa.Connection, kinds: Sequence[Kind], day: str, config_hash: str | None = None
) -> Iterator[Ineffective]:
    """Values of these kinds of operations, which are all of one side, by person and field.

    What was seen once begins anew, and so does what another send of the field came between: people
    who change a value back and forth are not held up.
    """
    view = View(day, config_hash)
    has_verdict = _ops.confirmed_day <= day
    in_vain = sa.or_(
        sa.and_(view.is_accepted, _ops.outcome == "unexplained", has_verdict),
        sa.and_(view.is_refused, sa.not_(_ops.retry_later), _ops.kind == "crm_update"),
    )
    since = (date.fromisoformat(day) - LASTS).isoformat()
    sent = sa.and_(view.is_earlier, _ops.day >= since, _ops.kind.in_(kinds), has_left())
    people = (
        sa.select(_ops.external_person_id)
        .where(sent, in_vain)
        .group_by(_ops.external_person_id)
        .having(sa.func.count(_ops.day.distinct()) >= MAX_DAYS)
    )
    names = ("external_person_id", "kind", "mdn", "day", "changes")
    query = (
        with_diff_set(
            sa.select(
                *(_ops[name] for name in names),
                in_vain.label("is_in_vain"),
                sa.and_(_ops.outcome == "confirmed", has_verdict).label("is_seen"),
            )
        )
        .where(sent, _ops.external_person_id.in_(people))
        .order_by(_ops.external_person_id, _ops.day, diff_sets.c.sequence, _ops.operation_id)
    )
    for person, history in groupby(stream(connection, query), lambda row: row.external_person_id):
        for (field, before, after), days in _days_in_vain(history).items():
            if len(days) >= MAX_DAYS:
                yield Ineffective(person, field, before, after)


def blocked(connection: sa.Connection, day: str, config_hash: str | None = None) -> pa.Table:
    """Those of persons, in the shape of `ledger_views.blocked`."""
    rows = [
        {
            "external_person_id": one.external_person_id,
            "field": one.field,
            "value": one.after,
            "error_class": KEPT_DIFFERENTLY,
            "before": one.before,
            "was_accepted": True,
        }
        for one in without_effect(connection, PERSON_KINDS, day, config_hash)
    ]
    return pa.Table.from_pylist(rows, BLOCKED_SCHEMA)


def _days_in_vain(
    history: Iterator[sa.Row[Any]],
) -> dict[tuple[str, str | None, str | None], set[str]]:
    """The days of the newest change of each field."""
    newest: dict[str, tuple[str | None, str | None]] = {}
    days: dict[str, set[str]] = {}
    for row in history:
        held = {change["field"]: change["before"] for change in row.changes}
        for field, after in sent_values(row):
            change = (held.get(field), after)
            is_without_values = change[0] == change[1]  # they were removed when they had grown old
            if row.is_seen or (newest.get(field) != change and not is_without_values):
                newest[field], days[field] = change, set()
            if row.is_in_vain and not is_without_values:
                days[field].add(row.day)
    return {(field, *change): days[field] for field, change in sorted(newest.items())}
