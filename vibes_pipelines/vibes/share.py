"""The Snowflake data share: its tables of persons and subscriptions, landed as they are.

Object and column names are not public; `feeds` of sync.yaml maps them, and what it leaves out
follows an assumption: VIBES_SHARE.PUBLIC.PERSONS, .SUBSCRIPTIONS, columns in upper case.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.store.snapshots import DATA, EmptySource, Snapshot, SnapshotStore, Source
from vibes_pipelines.sync_config import Feed, SyncConfig
from vibes_pipelines.vibes.share_errors import (
    ShareError,
    ShareRefreshed,
    ShareUnavailable,
    is_explained,
    refusal,
    share_errors,
)
from vibes_pipelines.vibes.share_staging import AtHand, sql_types, stage_file

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection
    from snowflake.connector.cursor import SnowflakeCursor

__all__ = ["ShareError", "ShareRefreshed", "ShareUnavailable", "land_share_feed"]

Connect = Callable[[], AbstractContextManager["SnowflakeConnection"]]

PERSONS = "share/persons"
SUBSCRIPTIONS = "share/subscriptions"
REFRESHES = "share/refreshes"

_DEFAULT_OBJECTS: Mapping[str, str] = {
    PERSONS: "VIBES_SHARE.PUBLIC.PERSONS",
    SUBSCRIPTIONS: "VIBES_SHARE.PUBLIC.SUBSCRIPTIONS",
    REFRESHES: "VIBES_SHARE.PUBLIC.REFRESHES",
}
_IDENTIFIERS = ("person_key", "external_person_id", "mdn")
_SUBSCRIPTION_COLUMNS = (
    "person_key",
    "subscription_list_id",
    "opt_in_date",
    "opt_out_date",
    "opt_out_reason",
)
_PLAIN_NAME = r"[A-Za-z_][A-Za-z0-9_$]*"
_NAME = re.compile(rf'{_PLAIN_NAME}|"(?:[^"]|"")+"')
_OBJECT = re.compile(rf"({_NAME.pattern})\.({_NAME.pattern})\.({_NAME.pattern})")

# The connector's type codes (its constants FIELD_TYPES).
_TYPES: Mapping[int, pa.DataType] = {
    1: pa.float64(),
    3: pa.date32(),
    6: pa.timestamp("us", "UTC"),
    7: pa.timestamp("us", "UTC"),
    8: pa.timestamp("us"),
    13: pa.bool_(),
}
_NESTED: Mapping[int, str] = {5: "VARIANT", 9: "OBJECT", 10: "ARRAY", 17: "MAP"}
_FIXED = 0
_INT64_DIGITS = 18


@dataclass(frozen=True)
class _Table:
    """One feed's object and the columns read from it, logical name to column."""

    feed: str
    object: str
    columns: Mapping[str, str]

    @property
    def parts(self) -> tuple[str, str, str]:
        """Database, schema and table, each quoted.

        Raises:
            ShareError: the object of sync.yaml is not of three parts.
        """
        match = _OBJECT.fullmatch(self.object)
        if not match:
            msg = (
                f"sync.yaml: feeds.{self.feed}.object: {self.object!r} is not a table; expected "
                "DATABASE.SCHEMA.TABLE"
            )
            raise ShareError(msg)
        return quoted(match[1]), quoted(match[2]), quoted(match[3])

    @property
    def sql_name(self) -> str:
        """The object as it stands in SQL."""
        return ".".join(self.parts)


def land_share_feed(
    store: SnapshotStore,
    day: str,
    feed: str,
    connect: Connect,
    config: SyncConfig,
    at_hand: AtHand | None = None,
) -> tuple[Snapshot, bool]:
    """Lands `share/persons` or `share/subscriptions`; connects only when it is not landed yet.

    Values land typed as Snowflake holds them, under logical column names, batch by batch. `as_of`
    is the newest instant of `share/refreshes` when sync.yaml maps it, else the newest
    `updated_at` of the persons. What is `at_hand` is staged and compared in Snowflake, and only
    the other values are read; the rows that land are the same.

    Raises:
        EmptySource: the share has no person at all.
        ShareUnavailable, ShareRefreshed: transient.
        ShareError: login, object or column refused; names the sync config key and the cure.
    """
    table = _table(feed, config)

    def write(folder: Path) -> Source:
        with share_errors("logging in or reading"), connect() as connection:
            return _Reading(connection, config, at_hand).land(table, folder)

    return store.land(feed, day, write)


@dataclass(frozen=True)
class _Reading:
    """One connection's reading of one feed."""

    connection: "SnowflakeConnection"
    config: SyncConfig
    at_hand: AtHand | None = None

    def land(self, table: _Table, folder: Path) -> Source:
        self._prepare()
        as_of = self._as_of()
        rows = self._copy(table, folder / DATA)
        if rows == 0 and table.feed == PERSONS:
            msg = (
                f"share: {table.object} holds no row, so the share is not set up or was emptied; "
                f"check feeds.{table.feed}.object in sync.yaml, or ask Vibes"
            )
            raise EmptySource(msg)
        if self._as_of() != as_of:
            msg = "share: it was refreshed while it was read; nothing was landed, read it again"
            raise ShareRefreshed(msg)
        return Source(table.object, as_of)

    def _prepare(self) -> None:
        if self.connection.network_timeout is None:
            msg = (
                "share: the connection has no network_timeout, and would repeat failed requests "
                "for ever; give one to connect"
            )
            raise ShareError(msg)
        # Otherwise NUMBER columns with decimals arrive as floating point.
        self.connection.arrow_number_to_decimal_setter = True

    def _copy(self, table: _Table, path: Path) -> int:
        """Writes the feed and returns its rows."""
        columns = ", ".join(quoted(column) for column in table.columns.values())
        select = f"SELECT {columns} FROM {table.sql_name}"  # noqa: S608 - identifiers are quoted
        with self.connection.cursor() as cursor:
            if self.at_hand is not None:
                with self._refused_for(table):
                    described = dict(zip(table.columns, cursor.describe(select), strict=True))
                compared = self.at_hand.comparable(self._plain_types(table, described))
                if compared:
                    return self._compare(self.at_hand, table, described, compared, path)
            self._execute(cursor, table, select)
            return _write_batches(cursor, _schema(table, cursor.description), path)

    def _compare(
        self,
        at_hand: AtHand,
        table: _Table,
        described: Mapping[str, Any],
        compared: Mapping[str, str],
        path: Path,
    ) -> int:
        """Writes the feed, of which only what is not at hand is read, and returns its rows."""
        staged, came_back = path.with_name("staged.parquet"), path.with_name("came_back.parquet")
        at_hand.stage(compared, staged)
        staged_table = stage_file(self.connection, staged)
        columns = {name: quoted(column) for name, column in table.columns.items()}
        row = pa.field(at_hand.row, pa.int64())
        schema = _schema(table, list(described.values())).insert(0, row)
        with self.connection.cursor() as cursor:
            select = at_hand.select(table.sql_name, staged_table, columns, compared)
            self._execute(cursor, table, select)
            rows = _write_batches(cursor, schema, came_back)
        at_hand.complete(came_back, staged, compared, path)
        return rows

    def _plain_types(self, table: _Table, described: Mapping[str, Any]) -> dict[str, str]:
        """The types of the columns whose values are equal only when they are the same."""
        collated = self._collated_columns(table)
        return sql_types({n: d for n, d in described.items() if table.columns[n] not in collated})

    def _as_of(self) -> datetime:
        """The instant the share shows, in UTC."""
        table, column = _instant_column(self.config)
        with self.connection.cursor() as cursor:
            self._execute(
                cursor,
                table,
                f"SELECT MAX({quoted(table.columns[column])}) FROM {table.sql_name}",  # noqa: S608 - identifiers are quoted
            )
            newest = cursor.fetchall()[0][0]
        if newest is None:
            raise EmptySource(_no_instant(table, column))
        if not isinstance(newest, datetime):
            raise ShareError(_no_timestamp(table, column))
        return newest.replace(tzinfo=UTC) if newest.tzinfo is None else newest.astimezone(UTC)

    def _execute(self, cursor: "SnowflakeCursor", table: _Table, statement: str) -> None:
        with self._refused_for(table):
            cursor.execute(statement)

    @contextmanager
    def _refused_for(self, table: _Table) -> Iterator[None]:
        """Explains why a statement on this table is refused."""
        from snowflake.connector.errors import ProgrammingError  # noqa: PLC0415 - seconds to import

        try:
            yield
        except ProgrammingError as refused:
            explained = (
                refusal(refused, f"reading {table.object}")
                if is_explained(refused)
                else self._explain(table)
            )
            raise explained from None  # the cause may hold data

    def _explain(self, table: _Table) -> ShareError:
        """Why a statement on this table was refused: the object or columns that are not there."""
        existing = self._existing_columns(table)
        key = f"feeds.{table.feed}"
        if not existing:
            return ShareError(
                f"share: {table.object} does not exist or SNOWFLAKE_ROLE may not read it; correct "
                f"{key}.object in sync.yaml or have the share granted to the role"
            )
        missing = [
            f"{column} ({key}.columns.{logical})"
            for logical, column in table.columns.items()
            if _unquoted(column) not in existing
        ]
        if missing:
            return ShareError(
                f"share: {table.object} has no column {', '.join(missing)}; map it in sync.yaml. "
                f"The object has: {', '.join(existing)}"
            )
        return ShareError(f"share: {table.object} may not be read; check SNOWFLAKE_ROLE's rights")

    def _existing_columns(self, table: _Table) -> list[str]:
        from snowflake.connector.errors import ProgrammingError  # noqa: PLC0415 - seconds to import

        try:
            return [name for name, _ in self._described_columns(table)]
        except ProgrammingError:
            return []

    def _collated_columns(self, table: _Table) -> set[str]:
        """The columns, as mapped, whose texts Snowflake compares by the rules of a language."""
        with share_errors(f"describing {table.object}"):
            collated = {name for name, collation in self._described_columns(table) if collation}
        return {column for column in table.columns.values() if _unquoted(column) in collated}

    def _described_columns(self, table: _Table) -> list[tuple[str, str | None]]:
        """Name and collation of every column that the role may see."""
        database, schema, name = table.parts
        statement = (
            f"SELECT COLUMN_NAME, COLLATION_NAME FROM {database}.INFORMATION_SCHEMA.COLUMNS "  # noqa: S608 - quoted
            "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"
        )
        with self.connection.cursor() as cursor:
            cursor.execute(statement, (_unquoted(schema), _unquoted(name)))
            return [(row[0], row[1]) for row in cursor.fetchall()]


def check_feed(connection: "SnowflakeConnection", config: SyncConfig, feed: str) -> None:
    """Asks for no row of a feed's object, in every column that is read.

    Raises:
        ShareError: the object or a column is missing, or may not be read; names both.
    """
    table = _table(feed, config)
    columns = ", ".join(quoted(column) for column in table.columns.values())
    statement = f"SELECT {columns} FROM {table.sql_name} LIMIT 0"  # noqa: S608 - quoted
    with share_errors(f"reading {table.object}"), connection.cursor() as cursor:
        _Reading(connection, config)._execute(cursor, table, statement)  # noqa: SLF001 - ours


def shown_instant(connection: "SnowflakeConnection", config: SyncConfig) -> datetime:
    """The instant that the share shows now, in UTC.

    Raises:
        EmptySource: nothing tells it.
        ShareError: what tells it cannot be read.
    """
    with share_errors("reading the time of the last refresh"):
        return _Reading(connection, config)._as_of()  # noqa: SLF001 - ours


def object_of(config: SyncConfig, feed: str) -> str:
    """The object of a feed, by `feeds` of sync.yaml or the assumed name."""
    return _table(feed, config).object


def column_of(config: SyncConfig, feed: str, logical: str) -> str:
    """The column of its object that a feed's logical column is read from."""
    return _table(feed, config).columns[logical]


def _table(feed: str, config: SyncConfig) -> _Table:
    mapped = config.feeds.get(feed, Feed())
    logical = {
        PERSONS: (*_IDENTIFIERS, *(field.to for field in config.fields)),
        SUBSCRIPTIONS: _SUBSCRIPTION_COLUMNS,
        REFRESHES: ("as_of",),
    }[feed]
    columns = {name: name.upper() for name in logical} | dict(mapped.columns)
    return _Table(feed, mapped.object or _DEFAULT_OBJECTS[feed], columns)


def _instant_column(config: SyncConfig) -> tuple[_Table, str]:
    """The table and logical column whose newest value is the instant the share shows."""
    if REFRESHES in config.feeds:
        return _table(REFRESHES, config), "as_of"
    persons = _table(PERSONS, config)
    columns = {"updated_at": "UPDATED_AT"} | dict(persons.columns)
    return _Table(PERSONS, persons.object, columns), "updated_at"


def _no_instant(table: _Table, column: str) -> str:
    return (
        f"share: {table.object}.{table.columns[column]} holds no instant, so the age of the share "
        f"is unknown; check feeds.{table.feed} in sync.yaml, or ask Vibes"
    )


def _no_timestamp(table: _Table, column: str) -> str:
    return (
        f"share: {table.object}.{table.columns[column]} is no TIMESTAMP, so the age of the share "
        f"is unknown; map feeds.{table.feed}.columns.{column} in sync.yaml to a column that is one"
    )


def _write_batches(cursor: "SnowflakeCursor", schema: pa.Schema, path: Path) -> int:
    """Writes a result batch by batch and returns its rows."""
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in cursor.fetch_arrow_batches(force_microsecond_precision=True):
            columns = map(_cast, batch.columns, schema)
            writer.write_table(pa.table(list(columns), schema=schema))
            rows += batch.num_rows
    return rows


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowException:
        msg = (
            f"share: {field.name} is mapped to a column of {column.type}, which cannot be read as "
            f"{field.type}; map it in feeds of sync.yaml to a view that casts it to VARCHAR"
        )
        raise ShareError(msg) from None  # the cause may hold a value


def _schema(table: _Table, described: Sequence[Any]) -> pa.Schema:
    """One schema for all batches: each arrives with the narrowest types of its own values.

    Raises:
        ShareError: a column holds JSON, in which no value of a person looks like the contact's.
    """
    for name, column in zip(table.columns, described, strict=True):
        if column.type_code in _NESTED:
            msg = (
                f"share: {table.object}.{table.columns[name]} is of type "
                f"{_NESTED[column.type_code]}; map feeds.{table.feed} in sync.yaml to a view that "
                "has it as VARCHAR: a plain text or option key, or option keys joined by |"
            )
            raise ShareError(msg)
    return pa.schema(
        [(name, _arrow_type(column)) for name, column in zip(table.columns, described, strict=True)]
    )


def _arrow_type(column: Any) -> pa.DataType:
    if column.type_code == _FIXED:
        if column.scale == 0 and column.precision <= _INT64_DIGITS:
            return pa.int64()
        return pa.decimal128(column.precision, column.scale)
    return _TYPES.get(column.type_code, pa.string())


def quoted(name: str) -> str:
    """A Snowflake identifier in quotes; a plain name means its upper case form, as in SQL."""
    if not _NAME.fullmatch(name):
        msg = f"sync.yaml: {name!r} is not a column or object name; put odd names in double quotes"
        raise ShareError(msg)
    return name if name.startswith('"') else f'"{name.upper()}"'


def _unquoted(name: str) -> str:
    return quoted(name)[1:-1].replace('""', '"')
