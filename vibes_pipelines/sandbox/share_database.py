"""The tables of the share: DuckDB databases that answer Snowflake's SQL, read-only for clients.

fakesnow translates the SQL; everything about it that a share must not do (create what a login
names, keep every result, accept writes) is settled here, on objects of this module only. Nothing
of fakesnow is patched globally.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import snowflake.connector.errors
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse_one
from fakesnow.fakes import FakeSnowflakeConnection
from fakesnow.instance import FakeSnow
from fakesnow.statement_type import statement_type_id
from sqlglot import exp

from vibes_pipelines.sandbox.share_staging import WORK, SessionStages, StagingRefusedError

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

# Accepted without effect: a share has no settings of its own and nothing to commit.
NO_EFFECT = (
    r"\s*alter\s+session\b",
    r"\s*(begin|start\s+transaction|commit|rollback)\b",
)
READ_STATEMENTS = (exp.Query, exp.Describe, exp.Show, exp.Use)


class ShareLoadError(ValueError):
    """A table cannot become part of the share; the message names table and column."""


class QueryError(Exception):
    """A statement failed; `code` and `sql_state` are Snowflake's."""

    def __init__(self, code: int, sql_state: str, message: str) -> None:
        super().__init__(message)
        self.code = f"{code:06d}"
        self.sql_state = sql_state
        self.message = message


class _KeepNothing(dict[str, Any]):
    """Stands in for fakesnow's cache of every result ever computed."""

    def __setitem__(self, key: str, value: object) -> None:
        """Forget at once: results live in the chunk store, which is bounded."""


class _ArrowRows:
    """A DuckDB connection, as far as fakesnow's cursor needs one to read.

    Statements run as relations: the rows reach Arrow without the extra copy (and the warning about
    it) that the connection's own results cost.
    """

    def __init__(self, duck: duckdb.DuckDBPyConnection) -> None:
        self._duck = duck
        self._rows: pa.Table | None = None

    def execute(self, sql: str, params: object = None) -> "_ArrowRows":
        """Run a statement to its end and keep its rows."""
        self._rows = None
        relation = self._duck.sql(sql, params=params) if params else self._duck.sql(sql)
        if relation is not None:
            self._rows = relation.to_arrow_table()
        return self

    def to_arrow_table(self) -> pa.Table:
        """Return the rows of the last statement."""
        return self._rows if self._rows is not None else pa.table({})


class ShareSession:
    """One logged-in client; its statements run one after the other."""

    def __init__(
        self,
        connection: FakeSnowflakeConnection,
        duck: duckdb.DuckDBPyConnection,
        warehouse: str | None,
    ) -> None:
        self._connection = connection
        self._stages = SessionStages(duck, warehouse)
        self._rows = _ArrowRows(duck)
        self._cursor = FakeSnowflakeCursor(
            connection, cast("duckdb.DuckDBPyConnection", self._rows)
        )
        self._lock = threading.Lock()

    @property
    def database(self) -> str | None:
        """The current database, None when the login named none or one that does not exist."""
        return self._connection.database if self._connection.database_set else None

    @property
    def schema(self) -> str | None:
        """The current schema, None when the login named none or one that does not exist."""
        return self._connection.schema if self._connection.schema_set else None

    def query(self, sql: str, bindings: Sequence[Any] = ()) -> tuple[pa.Table, int]:
        """Return the rows of a statement and Snowflake's statement type id.

        Raises:
            QueryError: for wrong SQL, missing objects and anything but reading.
        """
        with self._lock:
            if self._stages.is_about(sql):
                return self._stage(sql), 0
            try:
                type_id = _readable_type(sql)
                self._cursor.execute(sql, binding_params=tuple(bindings) or None, server=True)
            except snowflake.connector.errors.Error as error:
                raise _as_query_error(error) from error
            return self._rows.to_arrow_table(), type_id

    def upload(self, sql: str) -> dict[str, Any] | None:
        """Return what a PUT is answered with, None for any other statement.

        Raises:
            QueryError: for a stage that does not exist.
        """
        with self._lock:
            try:
                return self._stages.upload(sql)
            except StagingRefusedError as refused:
                raise QueryError(refused.code, refused.sql_state, str(refused)) from refused

    def _stage(self, sql: str) -> pa.Table:
        try:
            return self._stages.run(sql, self.database, self.schema)
        except StagingRefusedError as refused:
            raise QueryError(refused.code, refused.sql_state, str(refused)) from refused

    def describe(self, sql: str) -> tuple[pa.Schema, int]:
        """Return the columns a statement would return, without its rows."""
        try:
            expression = parse_one(sql)
        except snowflake.connector.errors.Error as error:
            raise _as_query_error(error) from error
        if not isinstance(expression, exp.Query):
            table, type_id = self.query(sql)
            return table.schema, type_id
        for placeholder in list(expression.find_all(exp.Placeholder)):
            placeholder.replace(exp.Null())
        empty = exp.select("*").from_(expression.subquery("described")).limit(0)
        table, _ = self.query(empty.sql(dialect="snowflake"))
        return table.schema, statement_type_id(expression)

    def close(self) -> None:
        """End the session's connection to the database."""
        with self._lock:
            self._connection.close()
            self._stages.close()


def _readable_type(sql: str) -> int:
    if any(re.match(pattern, sql, re.IGNORECASE) for pattern in NO_EFFECT):
        return 0
    expression = parse_one(sql)
    if isinstance(expression, exp.Condition):  # a lone name or value: not a statement at all
        raise QueryError(1003, "42000", "SQL compilation error: syntax error")
    if not isinstance(expression, READ_STATEMENTS):
        raise QueryError(
            3001, "42501", "SQL access control error: Insufficient privileges: a share is read-only"
        )
    return statement_type_id(expression)


def _as_query_error(error: snowflake.connector.errors.Error) -> QueryError:
    """Give unknown columns and functions Snowflake's own codes, where fakesnow has one for all."""
    message = str(error.raw_msg if hasattr(error, "raw_msg") else error.msg)
    if re.search(r"Function with name .+ does not exist", message):
        return QueryError(2140, "42601", f"Unknown function. {message}")
    if re.search(r"column .+ not found|does not have a column named", message, re.IGNORECASE):
        return QueryError(904, "42000", f"invalid identifier. {message}")
    return QueryError(error.errno or 603, error.sqlstate or "XX000", message)


class ShareDatabase:
    """The databases in one folder. They outlive the process: a later one serves them again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._fakesnow = FakeSnow(db_path=folder, nop_regexes=list(NO_EFFECT))
        self._fakesnow.results_cache = _KeepNothing()
        for file in sorted(folder.glob("*.db")):
            self._connect(self._cursor(), file.stem, None, create=True).close()
        self._connect(self._cursor(), *WORK, create=True).close()

    def connect(
        self, database: str | None, schema: str | None, warehouse: str | None
    ) -> ShareSession:
        """Open a session; names that do not exist leave it without database or schema."""
        duck = self._cursor()
        connection = self._connect(duck, _known(database), _known(schema), create=False)
        return ShareSession(connection, duck, warehouse)

    def load(self, tables: Mapping[str, pa.Table], database: str, schema: str) -> None:
        """Replace whole tables, all of them in one transaction: readers see old or new.

        Raises:
            ShareLoadError: for a name that is not a plain identifier or a column type that the
                share does not have.
        """
        columns = {name: _shared(name, table) for name, table in tables.items()}
        names = {name: _quoted(database, schema, name) for name in tables}
        connection = self._connect(self._cursor(), database, schema, create=True)
        try:
            with self._lock, self._fakesnow.duck_conn.cursor() as cursor:
                _replace(cursor, columns, names)
        finally:
            connection.close()

    def close(self) -> None:
        """Close every database."""
        self._fakesnow.duck_conn.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            return self._fakesnow.duck_conn.cursor()

    def _connect(
        self,
        duck: duckdb.DuckDBPyConnection,
        database: str | None,
        schema: str | None,
        *,
        create: bool,
    ) -> FakeSnowflakeConnection:
        with self._lock:
            return FakeSnowflakeConnection(
                duck,
                self._fakesnow.results_cache,
                database,
                schema,
                create_database=create,
                create_schema=create,
                db_path=self._folder,
                nop_regexes=list(NO_EFFECT),
                paramstyle="qmark",
            )


def _known(name: str | None) -> str | None:
    return name if name and IDENTIFIER.fullmatch(name) else None


def _quoted(*names: str) -> str:
    for name in names:
        if not IDENTIFIER.fullmatch(name):
            raise ShareLoadError(f"{name!r} is not a plain identifier: use letters, digits and _")
    return ".".join(f'"{name.upper()}"' for name in names)


def _replace(
    cursor: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table], names: Mapping[str, str]
) -> None:
    cursor.execute("BEGIN")
    try:
        for name, table in tables.items():
            cursor.register("incoming", table)
            cursor.execute(f"CREATE OR REPLACE TABLE {names[name]} AS FROM incoming")
            cursor.unregister("incoming")
    except duckdb.Error:
        cursor.execute("ROLLBACK")
        raise
    cursor.execute("COMMIT")


def _shared(name: str, table: pa.Table) -> pa.Table:
    fields = [
        pa.field(field.name.upper(), _shared_type(name, field), nullable=True)
        for field in table.schema
    ]
    return table.rename_columns([field.name for field in fields]).cast(pa.schema(fields))


def _shared_type(name: str, field: pa.Field) -> pa.DataType:
    """Choose the share's type: VARCHAR, NUMBER, FLOAT, BOOLEAN, DATE or TIMESTAMP_NTZ (UTC)."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_decimal(kind) or pa.types.is_boolean(kind) or pa.types.is_date32(kind):
        return kind
    raise ShareLoadError(f"table {name}, column {field.name}: type {kind} is not one of the share")
