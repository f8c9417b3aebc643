"""Staging beside the share: a local Parquet file becomes a temporary table of this session.

`PUT` to a temporary stage, `COPY INTO` a temporary table, and a check that what arrived is what
was sent. Which rows are staged, and what they are compared with, is told by the caller.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vibes_pipelines.vibes.share_errors import ShareError, refusal

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

NAME = "VIBES_PIPELINES_AT_HAND"
"""The start of the names of the temporary table and its stage."""

# How the texts of dates are written that the comparison reads, whatever the account's defaults are.
_SESSION = (
    "ALTER SESSION SET DATE_INPUT_FORMAT = 'YYYY-MM-DD'",
    "ALTER SESSION SET TIMESTAMP_INPUT_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF6'",
)
# By default a Parquet text of \N would become NULL.
_FORMAT = "TYPE = PARQUET NULL_IF = () TRIM_SPACE = FALSE"


class AtHand(Protocol):
    """Values that are here already, so that rows of the share which have them need not bring them.

    Types are SQL types by logical column. `row` names the column that tells which staged row a
    row of the share equals.
    """

    row: ClassVar[str]

    def comparable(self, types: Mapping[str, str]) -> dict[str, str]:
        """The columns to compare; none at all when nothing can be compared."""

    def stage(self, compared: Mapping[str, str], path: Path) -> None:
        """Writes the file to stage: texts, and whole numbers that name its rows."""

    def select(
        self, persons: str, staged: str, columns: Mapping[str, str], compared: Mapping[str, str]
    ) -> str:
        """The SELECT of a row's name, or NULL, and all columns in their order."""

    def complete(
        self, came_back: Path, staged: Path, compared: Mapping[str, str], out: Path
    ) -> int:
        """Writes the rows with all their values; returns how many were at hand."""


@dataclass(frozen=True)
class _Staged:
    """What the staged file holds: rows, and of each text column the filled cells and characters."""

    rows: int
    cells: tuple[tuple[int, int], ...]


def stage_file(connection: "SnowflakeConnection", file: Path) -> str:
    """Makes a temporary table of a Parquet file of texts and whole numbers; returns its name.

    It stands in the current schema of the session and is gone when the session ends.

    Raises:
        ShareError: a right, the schema or the warehouse is missing, or the rows arrived changed.
        ShareUnavailable: the statement was cancelled or timed out.
    """
    schema = pq.read_schema(file)
    suffix = secrets.token_hex(8).upper()
    table, stage = f"{NAME}_{suffix}", f"{NAME}_STAGE_{suffix}"
    names = ", ".join(schema.names)
    columns = ", ".join(f"{field.name} {_sql_type(field)}" for field in schema)
    cells = ", ".join(f"$1:{field.name}::{_sql_type(field)}" for field in schema)
    for statement in _SESSION:
        _run(connection, "setting the formats of dates", statement)
    _run(
        connection,
        "creating a temporary table",
        f"CREATE TEMPORARY TABLE {table} ({columns})",
    )
    _run(connection, "creating a temporary stage", f"CREATE TEMPORARY STAGE {stage}")
    _run(
        connection,
        "uploading the contacts",
        f"PUT {_file_url(file)} @{stage} AUTO_COMPRESS = FALSE",
    )
    _run(
        connection,
        "loading the staged contacts",
        f"COPY INTO {table} ({names}) FROM (SELECT {cells} FROM @{stage})"  # noqa: S608 - own names
        f" FILE_FORMAT = ({_FORMAT}) ON_ERROR = ABORT_STATEMENT",
    )
    if _arrived(connection, table, schema) != _sent(file, schema):
        msg = (
            "share: the staged contacts arrived in Snowflake changed, so nothing can be compared"
            " with them; set engine: duckdb in sync.yaml and report the version of the connector"
        )
        raise ShareError(msg)
    return table


def sql_types(columns: Mapping[str, Any]) -> dict[str, str]:
    """The SQL types of described columns, as both dialects write them; others are left out.

    By the connector's type codes. Floating point, zoned instants and semi-structured values have
    texts that two engines may read differently.
    """
    found = {}
    for name, column in columns.items():
        if column.type_code == _FIXED:
            found[name] = f"DECIMAL({column.precision},{column.scale})"
        elif column.type_code in _TYPES:
            found[name] = _TYPES[column.type_code]
    return found


_FIXED = 0
_TYPES: Mapping[int, str] = {2: "VARCHAR", 3: "DATE", 8: "DATETIME", 13: "BOOLEAN"}


def _sql_type(field: pa.Field) -> str:
    return "VARCHAR" if pa.types.is_string(field.type) else "NUMBER(38,0)"


def _file_url(file: Path) -> str:
    path = str(file).replace("\\", "\\\\").replace("'", "\\'")
    return f"'file://{path}'"


def _run(connection: "SnowflakeConnection", what: str, statement: str) -> list[Any]:
    from snowflake.connector.errors import ProgrammingError  # noqa: PLC0415 - seconds to import

    with connection.cursor() as cursor:
        try:
            cursor.execute(statement)
            return list(cursor.fetchall())
        except ProgrammingError as refused:
            raise refusal(refused, what) from None  # the cause may hold data


def _arrived(connection: "SnowflakeConnection", table: str, schema: pa.Schema) -> _Staged:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    counts = "".join(f", COUNT({name}), COALESCE(SUM(LENGTH({name})), 0)" for name in texts)
    statement = f"SELECT COUNT(*){counts} FROM {table}"  # noqa: S608 - names of this module
    [row] = _run(connection, "counting the staged contacts", statement)
    rows, *rest = (int(number) for number in row)
    return _Staged(rows, tuple(zip(rest[::2], rest[1::2], strict=True)))


def _sent(file: Path, schema: pa.Schema) -> _Staged:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    cells = dict.fromkeys(texts, (0, 0))
    rows = 0
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(columns=texts):
            rows += batch.num_rows
            for name in texts:
                column = batch.column(name)
                characters = pc.sum(pc.utf8_length(column)).as_py() or 0
                filled, length = cells[name]
                cells[name] = (filled + len(column) - column.null_count, length + characters)
    return _Staged(rows, tuple(cells.values()))
