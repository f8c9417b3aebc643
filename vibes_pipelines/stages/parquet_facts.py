"""Parquet facts: what can be told of a file without reading all of it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def row_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def column_types(path: Path) -> dict[str, str]:
    """The columns of a Parquet file and their Arrow types, in their order."""
    return {column.name: str(column.type) for column in pq.read_schema(path)}


def first_rows(path: Path, most: int) -> list[dict[str, Any]]:
    """Up to so many rows from the beginning of a Parquet file."""
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=most), None)
    return [] if batch is None else list(batch.to_pylist())
