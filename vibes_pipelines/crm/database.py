"""Reaching the CRM's database: engine, tables and columns as they are, errors without secrets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    NoSuchModuleError,
    NoSuchTableError,
    StatementError,
)


class CrmError(Exception):
    """The CRM cannot be read or written; the message names the sync.yaml entry and the cure."""


@contextmanager
def crm_engine(crm_url: str) -> Iterator[sa.Engine]:
    """An engine for the CRM, disposed of afterwards; database errors become `CrmError`."""
    engine = _create(crm_url)
    place = engine.url.render_as_string(hide_password=True)
    _refuse_to_make_a_file(engine.url, place)
    try:
        yield engine
    except StatementError as failed:
        # Neither statement, values nor the database's own words: they hold personal data.
        msg = (
            f"CRM {place}: {_error_class(failed)}; check CRM_URL, its rights, and the table and "
            "columns that sync.yaml names; the log of the database says more"
        )
        raise CrmError(msg) from None
    finally:
        engine.dispose()


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
    """The class of the error, with the code of PostgreSQL (SQLSTATE) or SQLite if there is one."""
    name = type(failed).__name__
    if code := getattr(failed.orig, "sqlstate", None):
        return f"{name}, SQLSTATE {code}"
    code = getattr(failed.orig, "sqlite_errorname", None)
    return f"{name}, {code}" if code else name
