"""Opens the ledger's database: the engine's settings per dialect, and the migrations to head.

No tables and no queries belong here.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import sqlalchemy as sa

BUSY_TIMEOUT_MS = 30_000
"""How long one process waits for another's write before it gives up."""

MIGRATION_LOCK = 7_245_190_311
"""Any constant: PostgreSQL's advisory lock under which one process at a time migrates."""

_ALEMBIC = threading.Lock()
"""Alembic keeps the running migration in globals of its module: one thread at a time."""

MIGRATIONS = Path(__file__).with_name("migrations")


class DatabaseUnavailable(RuntimeError):  # noqa: N818 - the name says what is wrong
    """The ledger's database cannot be opened, or failed in use; says where to look."""


def utc_now() -> datetime:
    """The wall clock. Stamps records, and decides whether a lease ran out; nothing else."""
    return datetime.now(UTC)


class Database:
    """Opens and closes the ledger's database; what reads and writes its tables derives from this.

    Call `open` first, or use it as a context manager; where one is open already the tables are
    there, and another need only be closed.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = utc_now) -> None:
        with _told():
            self._engine = open_engine(url)
        sa.event.listen(self._engine, "handle_error", _tell)
        self._writer = writer(self._engine)
        self._clock = clock

    def open(self) -> Self:
        """Brings the tables to the newest shape.

        Raises:
            DatabaseUnavailable: no such server, no driver, no rights, or no database at all.
        """
        with _told():
            migrate(self._engine)
        return self

    def close(self) -> None:
        """Gives every connection back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_exception: object) -> None:
        self.close()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, ImportError) as failed:
        # Of other engines the cause may hold the password.
        cause = getattr(failed, "orig", None)
        why = f", {cause}" if isinstance(cause, sqlite3.Error) else ""
        msg = (
            f"the ledger's database cannot be opened ({type(failed).__name__}{why}); check "
            "VIBES_LEDGER_URL, or VIBES_HOME when it is not set, and that its disk has room"
        )
        raise DatabaseUnavailable(msg) from None


def _tell(context: sa.ExceptionContext) -> DatabaseUnavailable | None:
    """Names place and cure where a statement fails: locked for too long, full, or away."""
    failed = context.sqlalchemy_exception
    if context.connection is not None and isinstance(failed, sa.exc.OperationalError):
        # Of SQLite's words none are about rows; a server's may be.
        why = f", {context.original_exception}" if context.dialect.name == "sqlite" else ""
        return DatabaseUnavailable(
            f"the ledger's database failed ({type(failed).__name__}{why}); see that nothing holds"
            " it locked, that its disk has room and that it runs (VIBES_LEDGER_URL, or VIBES_HOME"
            " when it is not set), and run the same again: what was sent is known"
        )
    return None


def open_engine(url: str) -> sa.Engine:
    """An engine whose transactions are real on SQLite too: WAL, foreign keys, explicit BEGIN.

    Its errors show no parameters of a statement: they hold personal data.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, hide_parameters=True)
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def is_there(url: str) -> bool:
    """Whether there is a database already; a server's is taken to be there.

    Raises:
        DatabaseUnavailable: `url` is none.
    """
    with _told():
        parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return True
    return parsed.database == ":memory:" or Path(parsed.database).is_file()


def writer(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write: on SQLite they take the write lock first.

    A transaction that reads and writes later can find its snapshot out of date and fail at once,
    without waiting; one that begins as a writer waits for its turn.
    """
    return engine.execution_options(ledger_writes=True)


def migrate(engine: sa.Engine) -> None:
    """Brings the tables to the newest shape; safe when several processes start at once.

    Raises:
        DatabaseUnavailable: their shape is of another version, which this one does not know.
    """
    from alembic import command  # noqa: PLC0415 - a tenth of a second that only an opening needs
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    # The option is read by a parser to which a percent sign means more.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _ALEMBIC, writer(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)
            connection.execute(sa.select(lock))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as unknown:
            msg = f"the ledger is of another version ({unknown}); run the version that wrote it"
            raise DatabaseUnavailable(msg) from unknown


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not open transactions by itself: `_begin_sqlite` does, around DDL as well.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}").close()
    connection.execute("PRAGMA foreign_keys = ON").close()
    _write_ahead(connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switches to WAL. SQLite does not wait for others here, whatever the busy timeout says."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1_000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("ledger_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
