"""Processing of one person import: every row in order, then the report and the summary.

A file that cannot be read is refused whole; a row that is refused does not stop the others. The
layout of report and summary is an assumption: the documentation does not show one.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vibes_pipelines.sandbox.import_format import (
    FORMAT_ERROR,
    ImportFileError,
    ImportText,
    parse_import,
)
from vibes_pipelines.sandbox.import_rows import RowRefusedError, apply_row
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.switches import Switches

REPORT_HEADER = ("row_number", "error_class", "error_message")
SUMMARY_HEADER = ("rows", "created", "updated", "unchanged", "rejected")

FILE_ROW = 0
"""Row number of an error of the file as a whole; rows of the body count from 1."""

_ReportRow = tuple[int, str, str]


@dataclass(frozen=True)
class ImportOutcome:
    """What the platform says about a processed import, as the text of two CSV files."""

    name: str
    report_csv: str
    summary_csv: str


def process_import(
    platform: Platform, name: str, data: bytes, switches: Switches | None = None
) -> ImportOutcome:
    """Apply a person import and say what became of its rows."""
    try:
        parsed = parse_import(data)
        _check_identified(parsed, switches or Switches())
    except ImportFileError as error:
        platform.audit.imported({"refused_files": 1})
        report = [(FILE_ROW, error.error_class, str(error))]
        return ImportOutcome(name, _csv(REPORT_HEADER, report), _summary(Counter()))
    counts, report = _apply_rows(platform, parsed)
    platform.audit.imported(counts)
    return ImportOutcome(name, _csv(REPORT_HEADER, report), _summary(counts))


def _check_identified(parsed: ImportText, switches: Switches) -> None:
    identifying = {"external_person_id", "mdn"}
    if switches.person_key_only_import == "accepted":
        identifying |= {"person_id", "person_key"}
    if identifying.isdisjoint(parsed.columns):
        message = "Couldn't find an external_person_id, mdn, or vibes_device_id field"
        raise ImportFileError(FORMAT_ERROR, message)


def _apply_rows(platform: Platform, parsed: ImportText) -> tuple[Counter[str], list[_ReportRow]]:
    counts: Counter[str] = Counter()
    report: list[_ReportRow] = []
    for number, cells in enumerate(parsed.rows(), 1):
        row = dict(zip(parsed.columns, cells or [""], strict=True))
        counts["rows"] += 1
        try:
            counts[apply_row(platform, row, parsed.multi_select_delimiter)] += 1
        except RowRefusedError as refusal:
            counts["rejected"] += 1
            report.append((number, refusal.error_class, str(refusal)))
    return counts, report


def _summary(counts: Counter[str]) -> str:
    return _csv(SUMMARY_HEADER, [tuple(counts[name] for name in SUMMARY_HEADER)])


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
