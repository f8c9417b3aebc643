"""Processing of one import of any kind: every row in order, then the report and the summary.

A file that cannot be read is refused whole; a row that is refused does not stop the others. The
layout of report and summary is an assumption: the documentation does not show one.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.audit import Audit
from vibes_pipelines.sandbox.import_format import (
    FORMAT_ERROR,
    ImportFileError,
    ImportText,
    parse_import,
)
from vibes_pipelines.sandbox.import_kinds import KINDS
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
        return _refused(platform, name, error)

    def apply(row: Mapping[str, str]) -> str:
        return apply_row(platform, row, parsed.multi_select_delimiter)

    counts, report = _apply_rows(platform.audit, name, parsed, apply)
    platform.audit.imported(counts)
    return ImportOutcome(name, _csv(REPORT_HEADER, report), _summary(counts))


def process_kind(account: Account, name: str, data: bytes) -> ImportOutcome:
    """Apply an import of another kind than persons; its extension is one of `KINDS`."""
    platform, (stem, _, extension) = account.platform, name.rpartition(".")
    kind = KINDS[extension]
    try:
        parsed = kind.parse(data)
        kind.check(account, stem, parsed)
    except ImportFileError as error:
        return _refused(platform, name, error)

    def apply(row: Mapping[str, str]) -> str:
        with platform.lock:
            return kind.apply(account, stem, parsed, row)

    counts, report = _apply_rows(platform.audit, name, parsed, apply)
    platform.audit.imported({f"{extension}_{what}": count for what, count in counts.items()})
    return ImportOutcome(name, _csv(REPORT_HEADER, report), _summary(counts))


def _refused(platform: Platform, name: str, error: ImportFileError) -> ImportOutcome:
    """Nothing of the file is applied."""
    platform.audit.imported({"refused_files": 1})
    platform.audit.import_rows(name, [(FILE_ROW, error.error_class)])
    report = [(FILE_ROW, error.error_class, str(error))]
    return ImportOutcome(name, _csv(REPORT_HEADER, report), _summary(Counter()))


def _check_identified(parsed: ImportText, switches: Switches) -> None:
    identifying = {"external_person_id", "mdn"}
    if switches.person_key_only_import == "accepted":
        identifying |= {"person_id", "person_key"}
    if identifying.isdisjoint(parsed.columns):
        message = "Couldn't find an external_person_id, mdn, or vibes_device_id field"
        raise ImportFileError(FORMAT_ERROR, message)


def _apply_rows(
    audit: Audit, name: str, parsed: ImportText, apply: Callable[[Mapping[str, str]], str]
) -> tuple[Counter[str], list[_ReportRow]]:
    counts: Counter[str] = Counter()
    report: list[_ReportRow] = []
    outcomes: list[tuple[int, str]] = []
    for number, cells in enumerate(parsed.rows(), 1):
        row = dict(zip(parsed.columns, cells or [""], strict=True))
        counts["rows"] += 1
        try:
            outcome = apply(row)
            counts[outcome] += 1
        except RowRefusedError as refusal:
            counts["rejected"] += 1
            outcome = refusal.error_class
            report.append((number, outcome, str(refusal)))
        outcomes.append((number, outcome))
    audit.import_rows(name, outcomes)
    return counts, report


def _summary(counts: Counter[str]) -> str:
    return _csv(SUMMARY_HEADER, [tuple(counts[name] for name in SUMMARY_HEADER)])


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
