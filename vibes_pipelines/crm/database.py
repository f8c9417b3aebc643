"""Reaching the CRM's database: engine, tables and columns as they are, errors without secrets."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    NoSuchModuleError,
    NoSuchTableError,
    OperationalError,
    ProgrammingError,
    StatementError,
)

_MYSQL = "MySQL "
"""How the codes of MySQL begin here, which are numbers."""

_BY_A_TRIGGER = frozenset({"45000", "P0001", "MySQL 1644"})
"""Codes of what a trigger raises, of MySQL and of PostgreSQL."""

_LOCKED = frozenset({"55P03", "MySQL 1205"})
"""Codes of: somebody held a lock for longer than we wait."""

_OF_THE_TRANSACTION = frozenset({"MySQL 1213", "MySQL 1290", "MySQL 1305", "MySQL 1792"})
"""Codes of a deadlock, which takes what was written before and its savepoint, and of read-only."""

_OF_ONE_ROW = _BY_A_TRIGGER | _LOCKED | {""}
"""Codes of operational errors about the row at hand; MySQL has many more."""

_REFUSALS = (StatementError, OverflowError, UnicodeError)
"""What the database refuses, and what a driver cannot even send, e.g. half a surrogate pair."""

LOCK_WAIT_S = 5.0
"""How long a transaction that writes waits for another session's lock; PostgreSQL waits for ever.
"""

_NEXT_LOCK_WAIT_S = 0.2
"""The same once that was waited in vain, and it is looked which rows are locked."""

_NO_LOCK_WAIT_S = 0.001
"""The same once as long was waited again: most rows are locked, or the table; 0 is without end."""

Row = TypeVar("Row")
Answer = TypeVar("Answer")


class CrmError(Exception):
    """The CRM cannot be read or written; the message names the sync.yaml entry and the cure."""


@contextmanager
def crm_engine(crm_url: str) -> Iterator[sa.Engine]:
    """An engine for the CRM, disposed of afterwards; database errors become `CrmError`."""
    engine = _create(crm_url)
    place = engine.url.render_as_string(hide_password=True)
    _refuse_to_make_a_file(engine.url, place)
    if engine.dialect.name == "postgresql":
        sa.event.listen(engine, "connect", _write_plainly)
    try:
        yield engine
    except StatementError as failed:
        # Neither statement, values nor the database's own words: they hold personal data.
        if unreadable := unreadable_value(failed):
            raise unreadable from None
        msg = (
            f"CRM {place}: {_error_class(failed)}; check CRM_URL, its rights, and the table and "
            "columns that sync.yaml names; the log of the database says more"
        )
        raise CrmError(msg) from None
    finally:
        engine.dispose()


def unreadable_value(failed: StatementError, dates: Sequence[str] = ()) -> CrmError | None:
    """The error for a value that the database gives and Python cannot hold; None for any other.

    It names the column where the driver does, else those of `dates` that it can be.
    """
    undecoded = _UNDECODED.match(str(failed.orig))
    if undecoded:
        return CrmError(
            f"CRM: column {undecoded[1]} holds text that is not UTF-8; write that text again in "
            "UTF-8"
        )
    if not isinstance(failed, DataError) or getattr(failed.orig, "sqlstate", "") is not None:
        return None
    place = f"of the columns {', '.join(dates)}, one" if dates else "a column that is read"
    return CrmError(
        f"CRM: {place} holds a date or time that Python cannot hold (infinity, before the year 1 "
        "or after 9999); correct it, or cast that column to text in contacts.query (events.query)"
    )


# The words of Python's own driver of SQLite, before the text itself.
_UNDECODED = re.compile(r"Could not decode to UTF-8 column '(.*?)' with text '")


def sql_text(query: str) -> sa.TextClause:
    """A query of sync.yaml as it is: a colon in it begins no parameter."""
    return sa.text(_PARAMETER.sub(r"\\\g<0>", query.strip().rstrip(";")))


# What SQLAlchemy takes for a parameter.
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w+(?![:\w]))")


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes, in which savepoints can be made."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Its driver begins no transaction before a savepoint, whose end would then commit.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        _wait_for_locks(connection, LOCK_WAIT_S)
        yield connection


def each_or_its_refusal(
    connection: sa.Connection,
    rows: Sequence[Row],
    write: Callable[[Row], Answer],
    written: Answer,
) -> list[Answer | Exception]:
    """The answer of each row inside a transaction that writes, or why the database refuses it.

    All together, which is fast; where that is refused, each behind a savepoint, so that one row
    holds back no other. `written` is the answer that proves that rows can be written.

    Raises:
        StatementError: about more than one row, e.g. no right to write.
    """
    try:
        with connection.begin_nested():
            answers: list[Answer | Exception] = [write(row) for row in rows]
            _check_at_once(connection)
    except _REFUSALS as failed:
        if not _is_of_one_row(failed):
            raise
        return _one_by_one(connection, rows, write, written)
    return answers


def _one_by_one(
    connection: sa.Connection,
    rows: Sequence[Row],
    write: Callable[[Row], Answer],
    written: Answer,
) -> list[Answer | Exception]:
    _check_at_once(connection)
    _wait_for_locks(connection, _NEXT_LOCK_WAIT_S)
    answers: list[Answer | Exception] = []
    refusals: list[Exception] = []
    left_s = LOCK_WAIT_S
    for row in rows:
        try:
            with connection.begin_nested():
                answers.append(write(row))
        except _REFUSALS as failed:
            if not _is_of_one_row(failed):
                raise
            refusals.append(failed)
            answers.append(failed)
            if is_locked(failed):
                left_s -= _NEXT_LOCK_WAIT_S
                _wait_for_locks(connection, _NEXT_LOCK_WAIT_S if left_s > 0 else _NO_LOCK_WAIT_S)
    if refusals and written not in answers and all(map(_may_be_of_all_rows, refusals)):
        raise refusals[0]  # e.g. no right to write, of which no row is the cause
    return answers


def is_locked(failed: Exception) -> bool:
    """Whether somebody else's lock is all that stands against a row."""
    return isinstance(failed, DBAPIError) and _code(failed) in _LOCKED


def _check_at_once(connection: sa.Connection) -> None:
    """Has deferred constraints checked now, and no longer only at the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


def _is_of_one_row(failed: Exception) -> bool:
    """Whether an error may be about the row at hand alone, so that others can still be written."""
    if not isinstance(failed, DBAPIError):
        return True
    code = _code(failed)
    is_read_only = code.startswith("25")
    if failed.connection_invalidated or is_read_only or code in _OF_THE_TRANSACTION:
        return False
    if not isinstance(failed, OperationalError) or code.startswith(_MYSQL):
        return True
    # SQLite has another class for its triggers: this one is of locks, disks and tables.
    return code in _OF_ONE_ROW and not hasattr(failed.orig, "sqlite_errorname")


def _may_be_of_all_rows(failed: Exception) -> bool:
    """Whether an error that is of one row may be of all of them: a table, a column, a right."""
    if not isinstance(failed, OperationalError | ProgrammingError):
        return False
    return _code(failed) not in _BY_A_TRIGGER | _LOCKED


def _code(failed: StatementError) -> str:
    """SQLSTATE, as psycopg and psycopg2 name it, or MySQL's own number; empty for no code."""
    for name in ("sqlstate", "pgcode"):
        if code := getattr(failed.orig, name, None):
            return str(code)
    number = failed.orig.args[0] if failed.orig is not None and failed.orig.args else None
    return f"{_MYSQL}{number}" if isinstance(number, int) else ""


def _wait_for_locks(connection: sa.Connection, seconds: float) -> None:
    """Until the end of the transaction nobody's lock is waited for any longer than this."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(seconds * 1_000)}")


def reflect_table(connection: sa.Connection, name: str, entry: str = "contacts.table") -> sa.Table:
    """The table as the database describes it; `name` may be `schema.table`.

    `entry` of sync.yaml names it, or an option of the command line does.

    Raises:
        CrmError: there is no such table or view.
    """
    schema, _, table = name.rpartition(".")
    try:
        return sa.Table(
            table, sa.MetaData(), schema=schema or None, autoload_with=connection, resolve_fks=False
        )
    except NoSuchTableError as missing:
        existing = ", ".join(sorted(sa.inspect(connection).get_table_names(schema or None)))
        place = entry if entry.startswith("--") else f"{entry} in sync.yaml"
        msg = (
            f"CRM: no table {name}; correct {place}. "
            f"The database has: {existing or 'no table that this user may see'}"
        )
        raise CrmError(msg) from missing


def as_held(connection: sa.Connection, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The column with its values as the driver gives them where types promise nothing."""
    if connection.dialect.name != "sqlite":
        return column
    return sa.literal_column(connection.dialect.identifier_preparer.quote(column.name))


def missing_column(entry: str, column: str, place: str, existing: list[str]) -> CrmError:
    """The error for a column of sync.yaml that the CRM does not have."""
    return CrmError(
        f"sync.yaml: {entry}: {place} has no column {column!r}; correct the name. "
        f"It has: {', '.join(existing)}"
    )


def _write_plainly(dbapi_connection: Any, _record: Any) -> None:
    """Has times written as the driver reads them, whatever the database is set to."""
    info = getattr(dbapi_connection, "info", None)
    if info is None:  # a driver that reads times in a way of its own
        return
    for setting, wanted in (("DateStyle", "ISO"), ("IntervalStyle", "postgres")):
        told = info.parameter_status(setting) or wanted
        if not told.startswith(wanted) or told == "postgres_verbose":
            with dbapi_connection.cursor() as cursor:
                cursor.execute(f"SET {setting} TO {wanted}")
            dbapi_connection.commit()


def _create(crm_url: str) -> sa.Engine:
    try:
        return sa.create_engine(crm_url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError):
        msg = (
            "CRM_URL is not a SQLAlchemy URL of an installed driver; "
            "example: postgresql+psycopg://reader@crm.internal/crm"
        )
        raise CrmError(msg) from None  # the cause may hold the password


def _refuse_to_make_a_file(url: sa.URL, place: str) -> None:
    """SQLite would make an empty database of a name that is spelled wrongly."""
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).exists():
        raise CrmError(f"CRM {place}: no such file; correct CRM_URL")


def _error_class(failed: StatementError) -> str:
    """The class of the error, with the code of the database if there is one."""
    name = type(failed).__name__
    if code := _code(failed):
        return f"{name}, {code}" if code.startswith(_MYSQL) else f"{name}, SQLSTATE {code}"
    of_sqlite = getattr(failed.orig, "sqlite_errorname", None)
    return f"{name}, {of_sqlite}" if of_sqlite else name
