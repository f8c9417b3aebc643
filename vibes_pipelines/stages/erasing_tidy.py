"""Making a database give up what was blanked in it: the pages of old rows go, too."""

from collections.abc import Collection

import sqlalchemy as sa

from vibes_pipelines.stages.erasing_subject import ErasureError

REWRITTEN_BYTES = 256 << 20
"""PostgreSQL keeps a table locked while it is rewritten; one of this size takes seconds."""

LOCK_WAIT_S = 10
_LOCKED = "55P03"
"""SQLSTATE lock_not_available."""


def tidy_up(
    engine: sa.Engine,
    tables: Collection[sa.Table],
    most_bytes: int = REWRITTEN_BYTES,
    lock_wait_s: int = LOCK_WAIT_S,
) -> tuple[str, ...]:
    """Rewrites a SQLite database, or these tables of PostgreSQL; returns those too large for it.

    The receiver of callbacks waits while its table is rewritten. A larger table gets a `VACUUM`
    that nobody waits for: what is left in its pages is overwritten by new rows only.

    Raises:
        ErasureError: another process keeps the database from being tidied up.
    """
    if engine.dialect.name == "sqlite":
        _tidy_up_sqlite(engine)
        return ()
    if engine.dialect.name == "postgresql":
        return _tidy_up_postgresql(engine, tables, most_bytes, lock_wait_s)
    return ()


def _tidy_up_sqlite(engine: sa.Engine) -> None:
    try:
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"):
                driver.execute(statement).fetchall()  # type: ignore[union-attr]
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
    except sa.exc.OperationalError as busy:
        raise _busy() from busy


def _tidy_up_postgresql(
    engine: sa.Engine, tables: Collection[sa.Table], most_bytes: int, lock_wait_s: int
) -> tuple[str, ...]:
    large = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        quote = engine.dialect.identifier_preparer.format_table
        wait = sa.func.set_config("lock_timeout", f"{lock_wait_s}s", sa.false())
        connection.execute(sa.select(wait))
        for table in sorted(tables, key=lambda one: one.name):
            size = sa.select(sa.func.pg_total_relation_size(sa.cast(quote(table), sa.Text)))
            is_large = connection.execute(size).scalar_one() > most_bytes
            how = "VACUUM" if is_large else "VACUUM FULL"
            try:
                connection.exec_driver_sql(f"{how} {quote(table)}")
            except sa.exc.OperationalError as failed:
                if getattr(failed.orig, "sqlstate", None) != _LOCKED:
                    raise
                raise _busy() from failed
            if is_large:
                large.append(table.name)
        connection.exec_driver_sql("RESET lock_timeout")
    return tuple(large)


def _busy() -> ErasureError:
    return ErasureError("the ledger is busy; run the same erasure again")
