"""Questions to the ledger that look over many days: pending, blocked, what to certify.

Each answer is the ledger as of a day: a receipt counts from the day after it became known, a
verdict from the day of its certificate on. So a past day, asked again, gives the same answer
whatever was recorded since. The one exception: asked with a `config_hash`, what the same day sent
under another sync config counts too, with its receipts, so that a changed config does not send it
again, while a rebuild under the same config stays the same. Only reading belongs here.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from vibes_pipelines.store.ledger_rows import (
    CHUNK_ROWS,
    chunks,
    operation_from,
    select_operations,
)
from vibes_pipelines.store.models import diff_sets, operations, realtime_operations
from vibes_pipelines.store.records import (
    FINAL_OUTCOMES,
    INVITE_FIELD,
    PERSON_KINDS,
    Operation,
)

PENDING_SCHEMA = pa.schema(
    [
        ("external_person_id", pa.string()),
        ("field", pa.string()),
        ("value", pa.string()),
        ("accepted_at", pa.timestamp("us")),
    ]
)
BLOCKED_SCHEMA = pa.schema(
    [
        ("external_person_id", pa.string()),
        ("field", pa.string()),
        ("value", pa.string()),
        ("error_class", pa.string()),
        ("before", pa.string()),
        ("was_accepted", pa.bool_()),
    ]
)

_CHANGE = pa.struct([("field", pa.string()), ("before", pa.string()), ("after", pa.string())])
CERTIFY_SCHEMA = pa.schema(
    [
        ("operation_id", pa.string()),
        ("day", pa.string()),
        ("as_of", pa.timestamp("us")),
        ("sequence", pa.int64()),
        ("diff_set_status", pa.string()),
        ("lane", pa.string()),
        ("route", pa.string()),
        ("kind", pa.string()),
        ("external_person_id", pa.string()),
        ("person_key", pa.string()),
        ("mdn", pa.string()),
        ("subscription_list_id", pa.string()),
        ("status", pa.string()),
        ("error_class", pa.string()),
        ("changes", pa.list_(_CHANGE)),
    ]
)
RIVAL_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("external_person_id", pa.string()),
        ("field", pa.string()),
        ("value", pa.string()),
        ("day", pa.string()),
        ("as_of", pa.timestamp("us")),
        ("sequence", pa.int64()),
        ("answered_at", pa.timestamp("us")),
    ]
)

SET_BACK_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("external_person_id", "field", "value")]
)

PERSON_CHANGED = "person_changed"
"""Evidence of a verdict: the old value stands there still, and the platform changed the person."""

_ops = operations.c


def pending(connection: sa.Connection, day: str, config_hash: str | None = None) -> pa.Table:
    """Values sent on days before `day`, not refused and not yet given a final verdict.

    One row per person and field; the latest operation on the field decides. `accepted_at` is the
    logical time of the operation's diff set, in UTC. Adds stand with each field they set, with
    `external_person_id` and, when they have one, with `mdn`; a clear has the value NULL.

    The newest invitation of each person to each list stands here too, as `invite:LIST` with its
    campaign: also an answered one, for what the person makes of it is not ours to wait for, and a
    refused one, which is not to be repeated. How long it stays open is the reconcile's to say.
    """
    view = View(day, config_hash)
    rows = (
        {
            "external_person_id": row.external_person_id,
            "field": field,
            "value": value,
            "accepted_at": _naive(row.as_of),
        }
        for row, field, value in _latest_values(connection, view, view.is_pending)
        if row.is_pending
    )
    return _table(chain(rows, _invitations(connection, view)), PENDING_SCHEMA)


def blocked(connection: sa.Connection, day: str, config_hash: str | None = None) -> pa.Table:
    """Values that the platform refused on days before `day`, by person and field.

    Refusals marked `retry_later` do not block: their values are tried again. An operation is
    refused as a whole, sound values together with an unsound one: once the platform accepts
    anything later for the person, what was refused before is tried again.
    """
    view = View(day, config_hash)
    refused = sa.and_(view.is_refused, sa.not_(_ops.retry_later))
    rows = (
        {
            "external_person_id": row.external_person_id,
            "field": field,
            "value": value,
            "error_class": row.error_class,
            "was_accepted": False,
        }
        for row, field, value in _latest_values(connection, view, refused)
        if row.is_refused and not row.retry_later
    )
    return _table(rows, BLOCKED_SCHEMA)


def to_certify(connection: sa.Connection, day: str) -> pa.Table:
    """Operations of days before `day` that had no final verdict before `day`, by id.

    Operations planned in a diff set that is still open are left out: they may yet be sent.
    """
    query = (
        with_diff_set(
            sa.select(
                _ops.operation_id,
                _ops.day,
                _ops.as_of,
                _ops.lane,
                _ops.route,
                _ops.kind,
                _ops.external_person_id,
                _ops.person_key,
                _ops.mdn,
                _ops.subscription_list_id,
                _ops.status,
                _ops.error_class,
                _ops.changes,
            )
        )
        .where(_is_uncertified(day))
        .order_by(_ops.operation_id)
    )
    return _table((_certify_row(row) for row in stream(connection, query)), CERTIFY_SCHEMA)


def rivals(connection: sa.Connection, day: str) -> pa.Table:
    """Per field, every send before `day` to a person that `to_certify` is about.

    `answered_at` is the instant of the answer, where there was one before `day`: what the platform
    changed later it did not change for us.
    """
    of_realtime = sa.select(realtime_operations.c.external_person_id).where(
        realtime_operations.c.day < day, is_without_verdict(realtime_operations, day)
    )
    people = sa.union(sa.select(_ops.external_person_id).where(_is_uncertified(day)), of_realtime)
    names = ("kind", "day", "as_of", "external_person_id", "changes", "finished_at", "finished_day")
    query = with_diff_set(sa.select(*(_ops[name] for name in names))).where(
        _ops.day < day,
        _ops.status.in_(("sent", "accepted", "unknown")),
        _ops.external_person_id.in_(people),
    )
    rows = (
        {
            "kind": row.kind,
            "external_person_id": row.external_person_id,
            "field": change["field"],
            "value": change["after"],
            "day": row.day,
            "as_of": _naive(row.as_of),
            "sequence": row.sequence,
            "answered_at": _naive(row.finished_at) if (row.finished_day or day) < day else None,
        }
        for row in stream(connection, query)
        for change in row.changes
    )
    return _table(rows, RIVAL_SCHEMA)


def set_back(connection: sa.Connection, day: str) -> pa.Table:
    """Values of operations that a certificate before `day` took for set back at the platform."""
    rows = (
        {
            "external_person_id": row.external_person_id,
            "field": change["field"],
            "value": change["after"],
        }
        for table in (operations, realtime_operations)
        for row in connection.execute(
            sa.select(table.c.external_person_id, table.c.changes).where(
                table.c.outcome == "superseded",
                table.c.evidence == PERSON_CHANGED,
                table.c.confirmed_day < day,
            )
        )
        for change in row.changes
    )
    return _table(rows, SET_BACK_SCHEMA)


def earlier_attempts(
    connection: sa.Connection, kinds: Sequence[str], day: str, config_hash: str | None = None
) -> list[Operation]:
    """Operations of these kinds answered before `day` whose effect was not seen, oldest first."""
    view = View(day, config_hash)
    query = select_operations().where(
        _ops.kind.in_(kinds),
        view.is_earlier,
        _ops.status.in_(("accepted", "rejected")),
        sa.or_(
            _ops.outcome.is_(None),
            _ops.outcome.not_in(("confirmed", "superseded")),
            _ops.confirmed_day > day,
        ),
    )
    ordered = query.order_by(_ops.day, _ops.operation_id)
    return [operation_from(row) for row in connection.execute(ordered)]


class View:
    """The ledger as of a day, for a reconcile under one sync config."""

    def __init__(self, day: str, config_hash: str | None) -> None:
        of_other_configs = sa.select(diff_sets.c.diff_set).where(
            diff_sets.c.day == day, diff_sets.c.config_hash != config_hash
        )
        is_of_other_config = (
            sa.false() if config_hash is None else _ops.diff_set.in_(of_other_configs)
        )
        is_answered = sa.or_(
            _ops.finished_day < day, sa.and_(is_of_other_config, _ops.finished_day == day)
        )
        self.is_earlier = sa.or_(_ops.day < day, is_of_other_config)
        self.is_refused = sa.and_(_ops.status == "rejected", is_answered)
        self.is_accepted = sa.and_(_ops.status == "accepted", is_answered)
        self.is_pending = sa.and_(
            sa.or_(_ops.status != "rejected", sa.not_(is_answered)),
            sa.or_(
                _ops.outcome.is_(None),
                _ops.outcome.in_(("pending", "rejected")),
                _ops.confirmed_day > day,
            ),
        )


def _is_uncertified(day: str) -> sa.ColumnElement[bool]:
    superseded = sa.select(diff_sets.c.diff_set).where(diff_sets.c.status == "superseded")
    return sa.and_(
        _ops.day < day,
        sa.or_(_ops.status != "planned", _ops.diff_set.in_(superseded)),
        is_without_verdict(operations, day),
    )


def is_without_verdict(
    table: sa.Table, day: str, *, pending: bool = False
) -> sa.ColumnElement[bool]:
    """No final verdict was given before `day`; with `pending`: nor on it."""
    confirmed_day = table.c.confirmed_day
    return sa.or_(
        table.c.outcome.is_(None),
        table.c.outcome.not_in(FINAL_OUTCOMES),
        confirmed_day > day if pending else confirmed_day >= day,
    )


def _latest_values(
    connection: sa.Connection, view: View, wanted: sa.ColumnElement[bool]
) -> Iterator[tuple[sa.Row[Any], str, str | None]]:
    """The latest send per person and field, of every person with an operation that is wanted."""
    sent = sa.and_(view.is_earlier, _ops.kind.in_(PERSON_KINDS), has_left())
    people = sa.select(_ops.external_person_id).where(sent, wanted)
    query = (
        with_diff_set(
            sa.select(
                _ops.external_person_id,
                _ops.kind,
                _ops.mdn,
                _ops.as_of,
                _ops.error_class,
                _ops.retry_later,
                _ops.changes,
                view.is_refused.label("is_refused"),
                view.is_pending.label("is_pending"),
                view.is_accepted.label("is_accepted"),
            )
        )
        .where(sent, _ops.external_person_id.in_(people))
        .order_by(_ops.external_person_id, _ops.day, diff_sets.c.sequence, _ops.operation_id)
    )
    for _, history in groupby(stream(connection, query), key=lambda row: row.external_person_id):
        latest: dict[str, tuple[sa.Row[Any], str | None]] = {}
        for row in history:
            if row.is_accepted:
                latest = {name: sent for name, sent in latest.items() if not sent[0].is_refused}
            latest |= {name: (row, value) for name, value in sent_values(row)}
        for name, (row, value) in sorted(latest.items(), key=lambda item: item[0]):
            yield row, name, value


def _invitations(connection: sa.Connection, view: View) -> Iterator[dict[str, Any]]:
    """The newest invitation per person and list that left and was not turned away for the day."""
    query = with_diff_set(
        sa.select(
            _ops.external_person_id, _ops.subscription_list_id, _ops.changes, _ops.as_of, _ops.day
        )
    ).where(
        view.is_earlier,
        _ops.kind == "invite",
        has_left(),
        sa.not_(sa.and_(view.is_refused, _ops.retry_later)),
    )
    ordered = query.order_by(
        _ops.external_person_id, _ops.subscription_list_id, _ops.day, diff_sets.c.sequence
    )
    newest: dict[str, Any] | None = None
    for row in stream(connection, ordered):
        field, campaign = next(
            (change["field"], change["after"])
            for change in row.changes
            if change["field"].startswith(INVITE_FIELD)
        )
        invitation = {
            "external_person_id": row.external_person_id,
            "field": field,
            "value": campaign,
            "accepted_at": _naive(row.as_of),
        }
        if newest is not None and _key_of(newest) != _key_of(invitation):
            yield newest
        newest = invitation
    if newest is not None:
        yield newest


def _key_of(row: dict[str, Any]) -> tuple[str | None, str]:
    return row["external_person_id"], row["field"]


def has_left() -> sa.ColumnElement[bool]:
    """True for what left, or may have: neither planned still nor withdrawn before."""
    return _ops.status.not_in(("planned", "superseded"))


def sent_values(row: sa.Row[Any]) -> Iterator[tuple[str, str | None]]:
    """Each field that an operation on a person sets, an add's identifiers too, and its value."""
    if row.kind == "add":
        yield "external_person_id", row.external_person_id
        if row.mdn is not None:
            yield "mdn", row.mdn
    for change in row.changes:
        yield change["field"], change["after"]


def with_diff_set(query: sa.Select[Any]) -> sa.Select[Any]:
    """The query on operations with the place and the status of their diff sets."""
    return query.add_columns(
        diff_sets.c.sequence, diff_sets.c.status.label("diff_set_status")
    ).join_from(operations, diff_sets)


def _certify_row(row: sa.Row[Any]) -> dict[str, Any]:
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    return values | {"as_of": _naive(row.as_of)}


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


def stream(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    """The rows of a query, of which few are in memory at a time."""
    yield from connection.execute(query.execution_options(yield_per=CHUNK_ROWS))


def _table(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    batches = [pa.RecordBatch.from_pylist(chunk, schema=schema) for chunk in chunks(rows, 10_000)]
    return pa.Table.from_batches(batches, schema=schema)
