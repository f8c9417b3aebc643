"""The Snowflake data share: its tables of persons and subscriptions, landed as they are.

Object and column names are not public; `feeds` of sync.yaml maps them, and what it leaves out
follows an assumption: VIBES_SHARE.PUBLIC.PERSONS, .SUBSCRIPTIONS, columns in upper case.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
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
    share_errors,
)

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
        return _quoted(match[1]), _quoted(match[2]), _quoted(match[3])

    @property
    def sql_name(self) -> str:
        """The object as it stands in SQL."""
        return ".".join(self.parts)


def land_share_feed(
    store: SnapshotStore, day: str, feed: str, connect: Connect, config: SyncConfig
) -> tuple[Snapshot, bool]:
    """Lands `share/persons` or `share/subscriptions`; connects only when it is not landed yet.

    Values land typed as Snowflake holds them, under logical column names, batch by batch. `as_of`
    is the newest instant of `share/refreshes` when sync.yaml maps it, else the newest
    `updated_at` of the persons.

    Raises:
        EmptySource: the share has no person at all.
        ShareUnavailable, ShareRefreshed: transient.
        ShareError: login, object or column refused; names the sync config key and the cure.
    """
    table = _table(feed, config)

    def write(folder: Path) -> Source:
        with share_errors("logging in or reading"), connect() as connection:
            return _Reading(connection, config).land(table, folder)

    return store.land(feed, day, write)


@dataclass(frozen=True)
class _Reading:
    """One connection's reading of one feed."""

    connection: "SnowflakeConnection"
    config: SyncConfig

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
        """Writes the feed batch by batch and returns its rows."""
        columns = ", ".join(_quoted(column) for column in table.columns.values())
        rows = 0
        with self.connection.cursor() as cursor:
            self._execute(cursor, table, f"SELECT {columns} FROM {table.sql_name}")  # noqa: S608 - identifiers are quoted
            schema = _schema(table, cursor)
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for batch in cursor.fetch_arrow_batches(force_microsecond_precision=True):
                    writer.write_table(batch.rename_columns(schema.names).cast(schema))
                    rows += batch.num_rows
        return rows

    def _as_of(self) -> datetime:
        """The instant the share shows, in UTC."""
        table, column = _instant_column(self.config)
        with self.connection.cursor() as cursor:
            self._execute(
                cursor,
                table,
                f"SELECT MAX({_quoted(table.columns[column])}) FROM {table.sql_name}",  # noqa: S608 - identifiers are quoted
            )
            newest: datetime | None = cursor.fetchall()[0][0]
        if newest is None:
            raise EmptySource(_no_instant(table, column))
        return newest.replace(tzinfo=UTC) if newest.tzinfo is None else newest.astimezone(UTC)

    def _execute(self, cursor: "SnowflakeCursor", table: _Table, statement: str) -> None:
        from snowflake.connector.errors import ProgrammingError  # noqa: PLC0415 - seconds to import

        try:
            cursor.execute(statement)
        except ProgrammingError:
            explained = self._explain(table)
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

        database, schema, name = table.parts
        statement = (
            f"SELECT COLUMN_NAME FROM {database}.INFORMATION_SCHEMA.COLUMNS "  # noqa: S608 - quoted
            "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"
        )
        with self.connection.cursor() as cursor:
            try:
                cursor.execute(statement, (_unquoted(schema), _unquoted(name)))
            except ProgrammingError:
                return []
            return [row[0] for row in cursor.fetchall()]


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


def _schema(table: _Table, cursor: "SnowflakeCursor") -> pa.Schema:
    """One schema for all batches: each arrives with the narrowest types of its own values."""
    described: list[Any] = cursor.description
    return pa.schema(
        [(name, _arrow_type(column)) for name, column in zip(table.columns, described, strict=True)]
    )


def _arrow_type(column: Any) -> pa.DataType:
    if column.type_code == _FIXED:
        if column.scale == 0 and column.precision <= _INT64_DIGITS:
            return pa.int64()
        return pa.decimal128(column.precision, column.scale)
    return _TYPES.get(column.type_code, pa.string())


def _quoted(name: str) -> str:
    """A Snowflake identifier in quotes; a plain name means its upper case form, as in SQL."""
    if not _NAME.fullmatch(name):
        msg = f"sync.yaml: {name!r} is not a column or object name; put odd names in double quotes"
        raise ShareError(msg)
    return name if name.startswith('"') else f'"{name.upper()}"'


def _unquoted(name: str) -> str:
    return _quoted(name)[1:-1].replace('""', '"')
