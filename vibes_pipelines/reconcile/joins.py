"""Holding the engine to the joins as they are written, where it would choose by a close guess."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb


@contextmanager
def joins_as_written(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Within it, every join hashes its right side and streams its left side past.

    For wide rows on the left: sides of about equal size are otherwise swapped by chance, and
    hashing the wide one takes several times the time and memory.
    """
    connection.execute("SET disabled_optimizers = 'build_side_probe_side,join_order'")
    try:
        yield
    finally:
        connection.execute("RESET disabled_optimizers")
