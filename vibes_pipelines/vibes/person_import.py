"""Person import files and the platform's answer to them.

Format and clearing rules: the Vibes documentation, Person Import and File-Based Data Imports. The
report files are an assumption: the documentation is silent on how results are delivered.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vibes_pipelines.sync_config import SELECT_TYPES, FieldType
from vibes_pipelines.vibes.bodies import api_date

SUFFIX = ".persons"
IDENTIFYING_COLUMNS = frozenset({"external_person_id", "mdn", "vibes_device_id"})
CLEARED_EXTERNAL_ID = "[null]"

_MUST_QUOTE = re.compile(r'[",\r\n]|^\s|\s$')
_HEADER_LINE = re.compile(r"([A-Za-z][A-Za-z-]*):[ \t]*(.*)")
_SUMMARY_COLUMNS = ("rows", "created", "updated", "unchanged", "rejected")
_REPORT_COLUMNS = ("row_number", "error_class", "error_message")


class CannotExpress(ValueError):  # noqa: N818 - the name says what is wrong
    """An import file has no safe form for this change; send it through the API."""


class ImportFileError(ValueError):
    """An import file is not one the platform would accept; the message names file and row."""


class ImportReportError(ValueError):
    """A report or summary of the platform does not have the expected form."""


@dataclass(frozen=True)
class ImportFile:
    """One import file. A blank cell changes nothing, but clears a select."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class RowError:
    """Why the platform refused one row."""

    error_class: str
    message: str


@dataclass(frozen=True)
class ImportReport:
    """What the platform did with one file.

    `errors` is keyed by body row, from 1; key 0 is an error of the whole file, which then changed
    nothing.
    """

    rows: int
    created: int
    updated: int
    unchanged: int
    rejected: int
    errors: dict[int, RowError] = field(default_factory=dict)

    @property
    def file_error(self) -> RowError | None:
        """The error of the whole file, if there is one."""
        return self.errors.get(0)


def cell(value: str | None, field_type: FieldType, action: Literal["set", "clear"]) -> str:
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
    return api_date(value) if field_type == "date" else value


def write_import(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Writes a file of `columns` and `rows` and returns its count of rows.

    The file is UTF-8, comma separated, with LF line ends and the field names as first row: the
    form of the documentation's own example, without a header section. Equal input gives equal
    bytes.

    Raises:
        ImportFileError: the columns cannot identify a person, or a row does not fit them.
    """
    _check_columns(path, columns)
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(_line(columns))
        for count, row in enumerate(rows, start=1):
            _check_row(path, columns, row, count)
            file.write(_line(row))
    return count


def read_import(path: Path) -> ImportFile:
    """Reads a file as the platform documents it, with or without a header section.

    Raises:
        ImportFileError: not UTF-8, no identifying column, or a row of another width.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as undecodable:
        msg = f"{path.name}: not UTF-8 at byte {undecodable.start}; write it in UTF-8"
        raise ImportFileError(msg) from undecodable
    headers, body = _split_sections(text)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=headers.get("delimiter", ","))
    records = iter([record for record in reader if record])
    columns = tuple(_field_names(headers, records))
    _check_columns(path, columns)
    rows = [tuple(record) for record in records]
    for number, row in enumerate(rows, start=1):
        _check_row(path, columns, row, number)
    return ImportFile(path.name, columns, rows)


def read_report(report_text: str, summary_text: str) -> ImportReport:
    """Reads the platform's report and summary of one file.

    Raises:
        ImportReportError: missing columns, a malformed number, or counts that do not add up.
    """
    errors: dict[int, RowError] = {}
    for row in _read_csv("report", report_text, _REPORT_COLUMNS):
        number = _whole("report", "row_number", row["row_number"])
        errors.setdefault(number, RowError(row["error_class"], row["error_message"]))
    summaries = _read_csv("summary", summary_text, _SUMMARY_COLUMNS)
    if len(summaries) != 1:
        msg = f"summary: {len(summaries)} rows, expected exactly one"
        raise ImportReportError(msg)
    counts = {name: _whole("summary", name, summaries[0][name]) for name in _SUMMARY_COLUMNS}
    report = ImportReport(**counts, errors=errors)
    _check_sums(report)
    return report


def _line(cells: Iterable[str]) -> str:
    return ",".join(_quoted(cell) if _MUST_QUOTE.search(cell) else cell for cell in cells) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if len(set(columns)) != len(columns):
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        msg = f"{path.name}: columns stand twice: {', '.join(repeated)}"
        raise ImportFileError(msg)
    if not IDENTIFYING_COLUMNS & set(columns):
        msg = f"{path.name}: no identifying column; one of {', '.join(sorted(IDENTIFYING_COLUMNS))}"
        raise ImportFileError(msg)


def _check_row(path: Path, columns: Sequence[str], row: Sequence[str], number: int) -> None:
    if len(row) != len(columns):
        msg = f"{path.name}: row {number} has {len(row)} cells, expected {len(columns)}"
        raise ImportFileError(msg)


def _split_sections(text: str) -> tuple[dict[str, str], str]:
    """The header section, names in lower case, and the body. Without a section: all is body."""
    headers: dict[str, str] = {}
    rest = text
    while rest:
        line, _, following = rest.partition("\n")
        line = line.removesuffix("\r")
        if not line:
            return headers, following
        match = _HEADER_LINE.fullmatch(line)
        if not match:
            return {}, text
        headers[match[1].lower()] = match[2]
        rest = following
    return {}, text


def _field_names(headers: dict[str, str], records: Iterator[list[str]]) -> list[str]:
    if "fields" in headers:
        return [name.strip() for name in headers["fields"].split(",")]
    return next(records, [])


def _read_csv(what: str, text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in columns if name not in (reader.fieldnames or [])]
    if missing:
        msg = f"{what}: no column {', '.join(missing)}; expected {','.join(columns)}"
        raise ImportReportError(msg)
    return [{name: row[name] or "" for name in columns} for row in reader]


def _whole(what: str, column: str, text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        msg = f"{what}: {column} is {text!r}, expected a whole number"
        raise ImportReportError(msg)
    return int(text)


def _check_sums(report: ImportReport) -> None:
    if report.file_error:
        return
    applied = report.created + report.updated + report.unchanged
    if applied + report.rejected != report.rows or len(report.errors) != report.rejected:
        msg = (
            f"report and summary do not add up: {report.rows} rows, {applied} applied, "
            f"{report.rejected} rejected, {len(report.errors)} rows with an error; ask Vibes which "
            "rows were applied before anything is sent again"
        )
        raise ImportReportError(msg)
