"""The platform's answer to an import file: a report on refused rows, and a summary.

Both are an assumption: the documentation is silent on how results are delivered. One form for
every kind of file.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vibes_pipelines.vibes.import_errors import ImportReportError

_SUMMARY_COLUMNS = ("rows", "created", "updated", "unchanged", "rejected")
_REPORT_COLUMNS = ("row_number", "error_class", "error_message")
_MOST_DIGITS = 18
_SHOWN = 40
"""How much of a cell that is no number an error repeats."""


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


def read_report(report_text: str, summary_text: str) -> ImportReport:
    """Reads the platform's report and summary of one file.

    Raises:
        ImportReportError: no CSV, missing columns, a malformed number, or counts that do not add
            up.
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


def _read_csv(what: str, text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            msg = f"{what}: no column {', '.join(missing)}; expected {','.join(columns)}"
            raise ImportReportError(msg)
        return [{name: row[name] or "" for name in columns} for row in reader]
    except csv.Error as broken:
        msg = f"{what}: no CSV at line {reader.line_num} ({broken}); is a quote left open?"
        raise ImportReportError(msg) from broken


def _whole(what: str, column: str, text: str) -> int:
    if not re.fullmatch(rf"\d{{1,{_MOST_DIGITS}}}", text):
        msg = f"{what}: {column} is {text[:_SHOWN]!r}, expected a whole number"
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
