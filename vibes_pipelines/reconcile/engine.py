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
    }
    if limits.threads is not None:
        settings["threads"] = limits.threads
    connection = duckdb.connect(config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()
