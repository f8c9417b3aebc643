"""The engine: a DuckDB of its own for every run, held to its limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb


@dataclass(frozen=True)
class Limits:
    """What the engine may use; beyond `memory_limit` it spills into `temp_dir`."""

    memory_limit: str = "4GB"
    threads: int | None = None
    temp_dir: Path | None = None


@contextmanager
def engine(limits: Limits, workspace: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory, in UTC, that spills into `workspace`."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": limits.memory_limit,
        "temp_directory": str(workspace / "spill"),
        "autoinstall_known_extensions": "false",
        "preserve_insertion_order": "false",
        # What is read ahead of decoding is held in memory, and first touches of memory cost more
        # here than waiting for the disk: without a bound they take a tenth of a run's time.
        "read_ahead_depth": 1,
    }
    if limits.threads is not None:
        settings["threads"] = limits.threads
    connection = duckdb.connect(config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        # Tables of fewer rows than a row group, as most here are, would be read by one thread.
        connection.execute("PRAGMA verify_parallelism")
        yield connection
    finally:
        connection.close()
