"""Person import files: which changes they can carry, and their form.

Clearing rules: the Vibes documentation, Person Import. What every kind of import file has in common
is in `import_writer`, `import_reader` and `import_reports`, whose names stand here too.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from vibes_pipelines.sync_config import SELECT_TYPES, FieldType
from vibes_pipelines.vibes.bodies import api_date
from vibes_pipelines.vibes.import_errors import CannotExpress, ImportFileError, ImportReportError
from vibes_pipelines.vibes.import_reader import ImportFile
from vibes_pipelines.vibes.import_reader import read_file as read_import
from vibes_pipelines.vibes.import_reports import ImportReport, RowError, read_report
from vibes_pipelines.vibes.import_writer import Layout, Table, write_table

__all__ = [
    "CLEARED_EXTERNAL_ID",
    "SUFFIX",
    "CannotExpress",
    "ImportFile",
    "ImportFileError",
    "ImportReport",
    "ImportReportError",
    "RowError",
    "cell",
    "read_import",
    "read_report",
    "write_import",
]

SUFFIX = ".persons"
CLEARED_EXTERNAL_ID = "[null]"

_PLAIN = Layout()


def cell(
    value: str | None,
    field_type: FieldType,
    action: Literal["set", "clear"],
    multi_select_delimiter: str = "|",
) -> str:
    """The cell that carries one change of a custom field; `value` is canonical text.

    Raises:
        CannotExpress: a clear of a string, number, date or postal code (a blank cell keeps those),
            or a value the file would give another meaning.
    """
    if action == "clear":
        if field_type in SELECT_TYPES:
            return ""
        msg = f"an import cannot clear a {field_type} field; send the change through the API"
        raise CannotExpress(msg)
    if value is None or not value.strip() or value == CLEARED_EXTERNAL_ID:
        msg = (
            f"an import cannot set a {field_type} field to this value; it would not be read as one"
        )
        raise CannotExpress(msg)
    if field_type == "multi_select":
        return _joined(value, multi_select_delimiter)
    return api_date(value) if field_type == "date" else value


def _joined(value: str, delimiter: str) -> str:
    """The options of a multi select, which canonical text joins by `|`, joined as the file does."""
    if delimiter != "|" and delimiter in value:
        msg = f"an option key holds {delimiter}, which the file puts between options; use another"
        raise CannotExpress(msg)
    return value.replace("|", delimiter)


def write_import(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], layout: Layout = _PLAIN
) -> int:
    """Writes a file of `columns` and `rows` and returns its count of rows.

    Without a `layout` it is comma separated, with the field names as first row: the form of the
    documentation's own example, without a header section. Equal input gives equal bytes.

    Raises:
        ImportFileError: the columns cannot identify a person, or a row does not fit them.
    """
    try:
        table = Table("persons", tuple(columns), layout)
    except ImportFileError as wrong:
        raise ImportFileError(f"{path.name}: {wrong}") from wrong
    return write_table(path, table, rows)
