"""The CRM's events: the rows of the table or query that `events` of sync.yaml names."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa

from vibes_pipelines.crm.cells import instant_of, instant_value
from vibes_pipelines.crm.database import (
    CrmError,
    as_held,
    crm_engine,
    missing_column,
    reflect_table,
    sql_text,
)
from vibes_pipelines.sync_config.outreach import Events

PAGE_ROWS = 1_000

EventRow = Mapping[str, Any]
"""One row: the columns that sync.yaml names, with the values of the database."""


def read_events(
    crm_url: str, events: Events, since: datetime | None
) -> Iterator[Sequence[EventRow]]:
    """Pages of rows; with `since` those of that time or later, as `occurred_at` tells it.

    A row whose time cannot be read is among them, one without a time is not.

    Raises:
        CrmError: no connection, no such table, or a column is missing.
    """
    with crm_engine(crm_url) as engine, engine.connect() as connection:
        _take_any_time(connection)
        query = _query(connection, events, since)
        at = events.occurred_at
        options = {"stream_results": True, "yield_per": PAGE_ROWS}
        for page in connection.execution_options(**options).execute(query).mappings().partitions():
            rows = [dict(row) for row in page]
            if since is not None and at is not None:
                rows = [row for row in rows if _is_since(row[at], since)]
            yield rows


def _take_any_time(connection: sa.Connection) -> None:
    """Has psycopg give a time that Python cannot hold, e.g. `infinity`, as the text that it is.

    Its row is then judged alone; an error would end the reading of all rows.
    """
    adapters = getattr(connection.connection.dbapi_connection, "adapters", None)
    if adapters is None:  # another driver
        return
    unreadable = connection.dialect.loaded_dbapi.Error
    for name in ("date", "time", "timetz", "timestamp", "timestamptz"):
        oid = adapters.types[name].oid
        adapters.register_loader(oid, _or_text(adapters.get_loader(oid, 0), unreadable))


def _or_text(loader: type[Any], unreadable: type[Exception]) -> type[Any]:
    """The loader of psycopg, with the text where it finds none of its values."""

    class OrText:
        format = loader.format

        def __init__(self, oid: int, connection: Any = None) -> None:
            self._loader = loader(oid, connection)

        def load(self, data: Any) -> Any:
            try:
                return self._loader.load(data)
            except unreadable:
                return bytes(data).decode()

    return OrText


def _query(connection: sa.Connection, events: Events, since: datetime | None) -> sa.Select[Any]:
    source = _source(connection, events)
    existing = {column.name: column for column in source.c}
    for name in events.columns:
        if name not in existing:
            place = "the query" if events.query else events.table
            raise missing_column("events", name, place, sorted(existing))
    selected: dict[str, sa.ColumnElement[Any]] = {name: existing[name] for name in events.columns}
    at = events.occurred_at
    if at is not None:
        held = as_held(connection, cast("sa.Column[Any]", existing[at]))
        selected[at] = held.label(at)
    query = sa.select(*selected.values()).select_from(source)
    if since is None or at is None:
        return query
    return query.where(_may_be_since(connection, existing[at], since))


def _may_be_since(
    connection: sa.Connection, column: sa.ColumnElement[Any], since: datetime
) -> sa.ColumnElement[bool]:
    """Leaves the old rows in the database; which of the others are old is told by their instant.

    A time without a type is compared by its day alone, with a day of grace for its zone, since
    texts may be written in many ways.
    """
    begin = since.astimezone(UTC) - timedelta(days=1)
    if connection.dialect.name != "sqlite" and isinstance(column.type, (sa.DateTime, sa.Date)):
        return sa.and_(column >= instant_value(column, begin))
    text = sa.cast(column, sa.Text)
    return sa.or_(text >= f"{begin:%Y-%m-%d}", text.not_like("____-__-__%"))


def _is_since(value: Any, since: datetime) -> bool:
    instant = instant_of(value)
    return instant is None or instant >= since


def _source(connection: sa.Connection, events: Events) -> sa.FromClause:
    if events.query is None:
        schema, _, table = events.table.rpartition(".")
        if not sa.inspect(connection).has_table(table, schema or None):
            msg = f"CRM: no table {events.table}; correct events.table in sync.yaml"
            raise CrmError(msg)
        return reflect_table(connection, events.table)
    text = sql_text(events.query)
    nothing = sa.select(sa.text("*")).select_from(text.columns().subquery("event"))
    names = connection.execute(nothing.where(sa.false())).keys()
    return text.columns(*(sa.column(name) for name in names)).subquery("event")
