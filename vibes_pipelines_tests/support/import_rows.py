"""Person files, and what is planned for them: tests say row by row what a file holds."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from vibes_pipelines.store.file_rows import FILE_ROWS
from vibes_pipelines.store.records import Operation
from vibes_pipelines.vibes.import_cells import table_of
from vibes_pipelines.vibes.import_writer import Layout
from vibes_pipelines.vibes.person_import import write_import


def write_persons(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    layout: Layout | None = None,
) -> None:
    """Writes a person file as deliveries do, from rows."""
    with duckdb.connect() as engine:
        write_import(path, table_of(columns, rows), engine, layout or Layout())


def file_rows_of(operations: Iterable[Operation]) -> pa.Table:
    """The rows of a file as `Ledger.file_rows` gives them for these operations."""
    rows = [
        {
            **{name: getattr(operation, name) for name in FILE_ROWS.names},
            "changes": json.dumps([change.as_json() for change in operation.changes]),
        }
        for operation in operations
    ]
    return pa.Table.from_pylist(rows, FILE_ROWS)
