"""The CRM's events: the rows of the table or query that `events` of sync.yaml names."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa

from vibes_pipelines.crm.cells import instant_value
from vibes_pipelines.crm.database import CrmError, crm_engine, missing_column, reflect_table
from vibes_pipelines.sync_config.outreach import Events

PAGE_ROWS = 1_000

EventRow = Mapping[str, Any]
"""One row: the columns that sync.yaml names, with the values of the database."""


def read_events(
    crm_url: str, events: Events, since: datetime | None
) -> Iterator[Sequence[EventRow]]:
    """Pages of rows; with `since` those of that time or later, as `occurred_at` tells it.

    Raises:
        CrmError: no connection, no such table, or a column is missing.
    """
    with crm_engine(crm_url) as engine, engine.connect() as connection:
        source = _source(connection, events)
        existing = {column.name: column for column in source.c}
        for name in events.columns:
            if name not in existing:
                place = "the query" if events.query else events.table
                raise missing_column("events", name, place, sorted(existing))
        query = sa.select(*(existing[name] for name in events.columns))
        if since is not None and events.occurred_at is not None:
            occurred_at = cast("sa.Column[Any]", existing[events.occurred_at])
            query = query.where(occurred_at >= instant_value(occurred_at, since))
        options = {"stream_results": True, "yield_per": PAGE_ROWS}
        for page in connection.execution_options(**options).execute(query).mappings().partitions():
            yield [dict(row) for row in page]


def _source(connection: sa.Connection, events: Events) -> sa.FromClause:
    if events.query is None:
        schema, _, table = events.table.rpartition(".")
        if not sa.inspect(connection).has_table(table, schema or None):
            msg = f"CRM: no table {events.table}; correct events.table in sync.yaml"
            raise CrmError(msg)
        return reflect_table(connection, events.table)
    text = sa.text(events.query.strip().rstrip(";"))
    nothing = sa.select(sa.text("*")).select_from(text.columns().subquery("event"))
    names = connection.execute(nothing.where(sa.false())).keys()
    return text.columns(*(sa.column(name) for name in names)).subquery("event")
