"""Staging beside the share: temporary tables and stages of one session, and how they are filled.

A strict subset of Snowflake's `CREATE TEMPORARY TABLE`, `CREATE TEMPORARY STAGE`, `PUT` and
`COPY INTO`; whatever else begins with these words is refused. Only the work schema may be written
to: a share is read-only. Files of a stage lie in a folder to which the connector uploads itself,
as it does to an account on a local file system.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.data_files import parquet

WORK = ("PIPELINES_WORK", "PUBLIC")
"""Database and schema in which the share's user may create temporary tables and stages."""

_NAME = r"([A-Za-z_][A-Za-z0-9_$]*)"
_BEGINNING = re.compile(r"\s*(create\s+temporary|put|copy\s+into)\b", re.IGNORECASE)
_TABLE = re.compile(rf"CREATE TEMPORARY TABLE {_NAME} \((.+)\)")
_STAGE = re.compile(rf"CREATE TEMPORARY STAGE {_NAME}")
_PUT = re.compile(rf"PUT 'file://((?:[^'\\]|\\.)+)' @{_NAME} AUTO_COMPRESS = FALSE")
_COPY = re.compile(
    rf"COPY INTO {_NAME} \(([^()]+)\) FROM \(SELECT (.+) FROM @{_NAME}\)"  # noqa: S608 - a pattern
    r" FILE_FORMAT = \(TYPE = PARQUET( NULL_IF = \(\))?(?: TRIM_SPACE = FALSE)?\)"
    r" ON_ERROR = ABORT_STATEMENT"
)
_COLUMN = re.compile(rf"{_NAME} (VARCHAR|NUMBER\(38,0\))")
_CELL = re.compile(rf"\$1:{_NAME}::(VARCHAR|NUMBER\(38,0\))")
_DUCK_TYPES = {"VARCHAR": "VARCHAR", "NUMBER(38,0)": "BIGINT"}
# What a text of a Parquet file turns into NULL unless the file format says NULL_IF = ().
_DEFAULT_NULL = "\\N"


class StagingRefusedError(Exception):
    """A statement is refused; `code` and `sql_state` are Snowflake's."""

    def __init__(self, code: int, sql_state: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.sql_state = sql_state


class SessionStages:
    """The temporary tables and stages of one session; both are gone when it closes."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, warehouse: str | None) -> None:
        self._duck = duck
        self._warehouse = warehouse
        self._tables: dict[str, list[str]] = {}
        self._stages: dict[str, Path] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="share-stages-")

    def is_about(self, sql: str) -> bool:
        """Whether a statement creates, uploads or loads, and so is answered here or refused."""
        return bool(_BEGINNING.match(sql))

    def upload(self, sql: str) -> dict[str, Any] | None:
        """What a `PUT` is answered with, from which the connector uploads; None for others.

        Raises:
            StagingRefusedError: there is no such stage.
        """
        found = _PUT.fullmatch(sql.strip())
        if not found:
            return None
        source = re.sub(r"\\(.)", r"\1", found[1])
        return {
            "command": "UPLOAD",
            "src_locations": [source],
            "parallel": 1,
            "autoCompress": False,
            "sourceCompression": "none",
            "overwrite": False,
            "stageInfo": {
                "locationType": "LOCAL_FS",
                "location": str(self._stage(found[2])),
                "creds": {},
            },
        }

    def run(self, sql: str, database: str | None, schema: str | None) -> pa.Table:
        """Creates or loads, in the session's current schema.

        Raises:
            StagingRefusedError: the statement is not of the subset, or may not be done there.
        """
        text = sql.strip()
        if found := _TABLE.fullmatch(text):
            _check_place("CREATE TABLE", database, schema)
            return self._create_table(found[1].upper(), found[2])
        if found := _STAGE.fullmatch(text):
            _check_place("CREATE STAGE", database, schema)
            return self._create_stage(found[1].upper())
        if found := _COPY.fullmatch(text):
            return self._load(found)
        raise StagingRefusedError(
            3001, "42501", "SQL access control error: Insufficient privileges for this statement"
        )

    def close(self) -> None:
        """Removes the files of the stages; the tables go with the connection."""
        self._folder.cleanup()

    def _create_table(self, name: str, definition: str) -> pa.Table:
        columns = [_matched(_COLUMN, part) for part in definition.split(", ")]
        if name in self._tables:
            raise StagingRefusedError(2002, "42710", f"Object '{name}' already exists.")
        self._tables[name] = [column.upper() for column, _ in columns]
        defined = ", ".join(f'"{column.upper()}" {_DUCK_TYPES[kind]}' for column, kind in columns)
        self._duck.execute(f'CREATE TEMP TABLE "{name}" ({defined})')
        return pa.table({"status": [f"Table {name} successfully created."]})

    def _create_stage(self, name: str) -> pa.Table:
        if name in self._stages:
            raise StagingRefusedError(2002, "42710", f"Object '{name}' already exists.")
        self._stages[name] = Path(self._folder.name) / name
        self._stages[name].mkdir()
        return pa.table({"status": [f"Stage area {name} successfully created."]})

    def _stage(self, name: str) -> Path:
        folder = self._stages.get(name.upper())
        if folder is None:
            raise StagingRefusedError(
                2003, "02000", f"Stage '{name.upper()}' does not exist or not authorized."
            )
        return folder

    def _load(self, copy: re.Match[str]) -> pa.Table:
        if self._warehouse is None:
            raise StagingRefusedError(
                606, "57P03", "No active warehouse selected in the current session."
            )
        table = copy[1].upper()
        if table not in self._tables:
            raise StagingRefusedError(
                2003, "42S02", f"Table '{table}' does not exist or not authorized."
            )
        into = [name.strip().upper() for name in copy[2].split(",")]
        cells = [_matched(_CELL, part) for part in copy[3].split(", ")]
        unknown = [name for name in into if name not in self._tables[table]]
        if unknown:
            raise StagingRefusedError(904, "42000", f"invalid identifier '{unknown[0]}'")
        if len(into) != len(cells):
            raise StagingRefusedError(2020, "21S01", "Insert value list does not match column list")
        loaded = [
            (file, self._load_file(table, into, cells, file, nulls=copy[5] is None))
            for file in sorted(self._stage(copy[4]).iterdir())
        ]
        return pa.table(
            {
                "file": [file.name for file, _ in loaded],
                "status": ["LOADED"] * len(loaded),
                "rows_parsed": [rows for _, rows in loaded],
                "rows_loaded": [rows for _, rows in loaded],
            }
        )

    def _load_file(
        self,
        table: str,
        into: Sequence[str],
        cells: Sequence[tuple[str, str]],
        file: Path,
        *,
        nulls: bool,
    ) -> int:
        """A path that the file does not have, or has in another case, is NULL, as at Snowflake."""
        try:
            schema = pq.read_schema(file)
        except pa.ArrowInvalid as broken:
            raise StagingRefusedError(100152, "22000", "The file is no Parquet file.") from broken
        values = []
        for name, kind in cells:
            value = f'CAST("{name}" AS {_DUCK_TYPES[kind]})' if name in schema.names else "NULL"
            is_text = kind == "VARCHAR" and nulls
            values.append(f"nullif({value}, '{_DEFAULT_NULL}')" if is_text else value)
        columns = ", ".join(f'"{name}"' for name in into)
        self._duck.execute(
            f'INSERT INTO "{table}" ({columns})'  # noqa: S608 - names of the strict grammar
            f" SELECT {', '.join(values)} FROM {parquet(file)}"
        )
        return int(pq.read_metadata(file).num_rows)


def _matched(pattern: re.Pattern[str], text: str) -> tuple[str, str]:
    found = pattern.fullmatch(text)
    if not found:
        raise StagingRefusedError(1003, "42000", f"SQL compilation error: syntax error at {text!r}")
    return found[1], found[2]


def _check_place(what: str, database: str | None, schema: str | None) -> None:
    if database is None:
        raise StagingRefusedError(
            90105,
            "22000",
            f"Cannot perform {what}. This session does not have a current database.",
        )
    if schema is None:
        raise StagingRefusedError(
            90106, "22000", f"Cannot perform {what}. This session does not have a current schema."
        )
    if (database, schema) != WORK:
        raise StagingRefusedError(
            3001,
            "42501",
            f"SQL access control error: Insufficient privileges to operate on schema '{schema}'",
        )
