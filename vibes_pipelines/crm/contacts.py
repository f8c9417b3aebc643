"""Landing the CRM's contacts: the mapped columns of its table or query, as one snapshot.

Values are landed as the CRM holds them, duplicates kept, columns under the CRM's own names; what
they mean belongs to the reconcile.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.exc import StatementError

from vibes_pipelines.crm.arrow_columns import TEXTS, arrow_column, arrow_type
from vibes_pipelines.crm.cells import ValueDoesNotFit, column_value
from vibes_pipelines.crm.database import (
    CrmError,
    crm_engine,
    missing_column,
    reflect_table,
    sql_text,
    unreadable_value,
)
from vibes_pipelines.crm.mapped_columns import mapped_columns
from vibes_pipelines.store.snapshots import DATA, EmptySource, Snapshot, SnapshotStore, Source
from vibes_pipelines.sync_config import SyncConfig

__all__ = ["CrmError", "copy_contacts", "land_contacts"]

FEED = "crm/contacts"
PARTITION_ROWS = 50_000

# The types of text[] and varchar[], by which PostgreSQL describes the columns of a query.
_TEXT_ARRAYS = (1009, 1015)


def land_contacts(
    store: SnapshotStore, day: str, crm_url: str, config: SyncConfig, as_of: datetime
) -> tuple[Snapshot, bool]:
    """Lands the contacts of `day`; connects only when they are not landed yet.

    Rows stream in partitions, so that memory does not grow with them, and come from one statement
    in one read-only transaction where the database knows such a thing.

    Raises:
        CrmError: no connection, no such table, or a mapped column is missing.
        EmptySource: there is no contact at all.
    """

    def write(folder: Path) -> Source:
        with crm_engine(crm_url) as engine, _consistent(engine) as connection:
            rows = _copy(connection, config, folder / DATA)
        if rows == 0:
            msg = (
                f"CRM: {place_of(config)} holds no contact; check CRM_URL and contacts.table or "
                "contacts.query in sync.yaml. Nothing was landed"
            )
            raise EmptySource(msg)
        return Source(place_of(config), as_of)

    return store.land(FEED, day, write)


def copy_contacts(
    connection: sa.Connection, config: SyncConfig, path: Path, keys: Collection[str]
) -> int:
    """Writes the contacts with these keys as a landed day would have them; returns their count.

    Raises:
        CrmError: no such table, or a mapped column is missing.
    """
    return _copy(connection, config, path, keys)


def _consistent(engine: sa.Engine) -> sa.Connection:
    """A connection that reads one state of the database."""
    connection = engine.connect().execution_options(stream_results=True)
    if engine.dialect.name == "postgresql":
        connection = connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    return connection


def _copy(
    connection: sa.Connection,
    config: SyncConfig,
    path: Path,
    keys: Collection[str] | None = None,
) -> int:
    """Writes the mapped columns partition by partition; returns the count of rows."""
    statement, schema = _statement(connection, config)
    if keys is not None:
        statement = statement.where(_is_among(connection, config, keys))
    rows = 0
    with (
        _naming_dates(schema),
        connection.execute(statement) as result,
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        for partition in result.partitions(PARTITION_ROWS):
            columns = zip(*partition, strict=True)
            arrays = [_array(values, field) for values, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            rows += len(partition)
    return rows


@contextmanager
def _naming_dates(schema: pa.Schema) -> Iterator[None]:
    """Names the columns that may hold what the driver cannot read."""
    try:
        yield
    except StatementError as failed:
        dates = [field.name for field in schema if pa.types.is_temporal(field.type)]
        raise unreadable_value(failed, dates) or failed from None


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return arrow_column(values, field.type)
    except (pa.ArrowException, OverflowError):
        msg = (
            f"CRM: column {field.name} holds a value that does not fit its type ({field.type}); "
            "correct the value, or cast the column to text in contacts.query of sync.yaml"
        )
        raise CrmError(msg) from None  # the cause holds the value


def _statement(connection: sa.Connection, config: SyncConfig) -> tuple[sa.Select[Any], pa.Schema]:
    """Selects the mapped columns, in the order of sync.yaml, and the schema they land with."""
    wanted = mapped_columns(config)
    existing = _existing_columns(connection, config)
    for column, entry in wanted.items():
        if column not in existing:
            raise missing_column(entry, column, place_of(config), list(existing))
    _refuse_alike(wanted)
    # Values as the driver gives them: a declared type of SQLite promises nothing about a value.
    selected: list[sa.Label[Any]] = [_as_held(column).label(column) for column in wanted]
    sets = {field.from_ for field in config.fields if field.type == "multi_select"}
    # Where the same column is wanted as a text as well, only its JSON serves both.
    sets -= {field.from_ for field in config.fields if field.type != "multi_select"}
    sets -= {one.column for one in config.contacts.conditions}
    schema = pa.schema([(column, _landed(existing[column], column in sets)) for column in wanted])
    return sa.select(*selected).select_from(relation_of(config)), schema


def _as_held(column: str) -> sa.ColumnElement[Any]:
    """A column of whatever type, by its very name."""
    return sa.column(sa.quoted_name(column, quote=True))


def _refuse_alike(wanted: Mapping[str, str]) -> None:
    """The reconcile finds columns in any case, so that one of the two would be read for both."""
    seen: dict[str, str] = {}
    for column, entry in wanted.items():
        other = seen.setdefault(column.lower(), column)
        if other != column:
            msg = (
                f"sync.yaml: {entry}: column {column!r} differs from {other!r} ({wanted[other]}) "
                "in upper and lower case only; give one another name with AS in contacts.query"
            )
            raise CrmError(msg)


def _landed(found: pa.DataType, is_set: bool) -> pa.DataType:  # noqa: FBT001 - one use
    """Only a set is a list; elsewhere its JSON stands for it."""
    return pa.string() if found == TEXTS and not is_set else found


def _is_among(
    connection: sa.Connection, config: SyncConfig, keys: Collection[str]
) -> sa.ColumnElement[bool]:
    """The contact's key is one of these; compared as the column's own type, to use its index."""
    dialect = connection.dialect
    key = _as_held(config.contacts.key)
    if config.contacts.query is not None:
        return sa.cast(key, sa.Text).in_(keys)
    declared = reflect_table(connection, config.contacts.table).columns[config.contacts.key]
    if dialect.name == "sqlite":
        # Which may take `007` for 7, so that the text decides.
        found = key.in_([*keys, *(_typed(declared, keys, dialect.name))])
        return sa.and_(found, sa.cast(key, sa.Text).in_(keys))
    return key.in_(_typed(declared, keys, dialect.name))


def _typed(declared: sa.Column[Any], keys: Collection[str], dialect: str) -> list[Any]:
    """The keys that the column can hold, as it holds them."""
    typed = []
    for key in keys:
        with suppress(ValueDoesNotFit):
            typed.append(column_value(declared, key, dialect))
    return typed


def _existing_columns(connection: sa.Connection, config: SyncConfig) -> Mapping[str, pa.DataType]:
    """Every column of the source and the Arrow type its values land with."""
    if config.contacts.query is None and connection.dialect.name != "sqlite":
        table = reflect_table(connection, config.contacts.table)
        return {column.name: arrow_type(column.type) for column in table.columns}
    if config.contacts.query is None:
        return dict.fromkeys(column_names(connection, config), pa.string())
    with _no_rows_of_query(connection, config) as result:
        described = result.cursor.description if result.cursor is not None else ()
        arrays = _TEXT_ARRAYS if connection.dialect.name == "postgresql" else ()
        types = [TEXTS if column[1] in arrays else pa.string() for column in described]
        return dict(zip(result.keys(), types, strict=True))


def column_names(connection: sa.Connection, config: SyncConfig) -> list[str]:
    """The columns of the table or query that contacts are read from, in their order."""
    if config.contacts.query is None:
        table = reflect_table(connection, config.contacts.table)
        return [column.name for column in table.columns]
    with _no_rows_of_query(connection, config) as result:
        return list(result.keys())


def _no_rows_of_query(connection: sa.Connection, config: SyncConfig) -> sa.CursorResult[Any]:
    everything = sa.select(sa.text("*")).select_from(relation_of(config)).where(sa.false())
    return connection.execute(everything)


def relation_of(config: SyncConfig) -> sa.FromClause:
    """The table or query that contacts are read from, to select from."""
    query = config.contacts.query
    if query is not None:
        return sql_text(query).columns().subquery("contacts")
    schema, _, table = config.contacts.table.rpartition(".")
    return sa.table(table, schema=schema or None)


def place_of(config: SyncConfig) -> str:
    """What sync.yaml calls where contacts are read from."""
    return "contacts.query" if config.contacts.query is not None else config.contacts.table
