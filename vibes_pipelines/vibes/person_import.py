"""Person import files: which changes they can carry, and their form.

Clearing rules: the Vibes documentation, Person Import. What every kind of import file has in common
is in `import_writer`, `import_reader` and `import_reports`, whose names stand here too.
"""

from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from vibes_pipelines.sync_config import SELECT_TYPES, FieldType
from vibes_pipelines.vibes.bodies import api_date
from vibes_pipelines.vibes.import_cells import NUL
from vibes_pipelines.vibes.import_errors import CannotExpress, ImportFileError, ImportReportError
from vibes_pipelines.vibes.import_reader import ImportFile
from vibes_pipelines.vibes.import_reader import read_file as read_import
from vibes_pipelines.vibes.import_reports import ImportReport, RowError, read_report
from vibes_pipelines.vibes.import_writer import Layout, Table, write_columns

__all__ = [
    "CLEARED_EXTERNAL_ID",
    "SUFFIX",
    "CannotExpress",
    "ImportFile",
    "ImportFileError",
    "ImportReport",
    "ImportReportError",
    "RowError",
    "cells",
    "check_expressible",
    "read_import",
    "read_report",
    "write_import",
]

SUFFIX = ".persons"
CLEARED_EXTERNAL_ID = "[null]"

_PLAIN = Layout()


def check_expressible(
    value: str | None, field_type: FieldType, action: Literal["set", "clear"]
) -> None:
    """Checks that a cell can carry one change of a custom field; `value` is canonical text.

    Raises:
        CannotExpress: a clear of a string, number, date or postal code (a blank cell keeps those),
            a value the file would give another meaning, or one with a NUL, which no text file has.
    """
    if action == "clear":
        if field_type in SELECT_TYPES:
            return
        msg = f"an import cannot clear a {field_type} field; send the change through the API"
        raise CannotExpress(msg)
    if value is None or not value.strip() or value == CLEARED_EXTERNAL_ID or NUL in value:
        msg = (
            f"an import cannot set a {field_type} field to this value; it would not be read as one"
        )
        raise CannotExpress(msg)


def cells(
    values: pa.ChunkedArray, field_type: FieldType, multi_select_delimiter: str = "|"
) -> pa.ChunkedArray:
    """The cells of one custom field, of values that passed `check_expressible`; NULL clears.

    Raises:
        CannotExpress: a clear of a field that no file can clear, or an option key that holds the
            delimiter.
    """
    if values.null_count:
        check_expressible(None, field_type, "clear")
    if field_type == "date":
        return _api_dates(values)
    told = _joined(values, multi_select_delimiter) if field_type == "multi_select" else values
    return pc.fill_null(told, "") if told.null_count else told


def write_import(
    path: Path, told: pa.Table, engine: duckdb.DuckDBPyConnection, layout: Layout = _PLAIN
) -> None:
    """Writes a file of cells in columns, whose names are those of the file.

    Without a `layout` it is comma separated, with the field names as first row: the form of the
    documentation's own example, without a header section. Equal input gives equal bytes.

    Raises:
        ImportFileError: the columns cannot identify a person, or a cell is NULL.
        ImportFileUnwritable: the file cannot be written there.
    """
    try:
        table = Table("persons", tuple(told.column_names), layout)
    except ImportFileError as wrong:
        raise ImportFileError(f"{path.name}: {wrong}") from wrong
    write_columns(path, table, told, engine)


def _api_dates(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """As `api_date`, which each day is asked once."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    days = pa.array([api_date(day) for day in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([days.take(encoded.indices)], pa.string())


def _joined(values: pa.ChunkedArray, delimiter: str) -> pa.ChunkedArray:
    """The options of multi selects, which canonical text joins by `|`, joined as the file does."""
    if delimiter == "|":
        return values
    if pc.any(pc.match_substring(values, delimiter)).as_py():
        msg = f"an option key holds {delimiter}, which the file puts between options; use another"
        raise CannotExpress(msg)
    return pc.replace_substring(values, "|", delimiter)
