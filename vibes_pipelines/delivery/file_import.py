"""Delivers import files and collects the platform's reports on them.

A file is written, replayed and compared with the plan, recorded as sent, and only then uploaded. A
file that was recorded as sent is looked for on the server before it is uploaded again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import duckdb

from vibes_pipelines.delivery.batch_files import BatchFiles
from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.delivery.ports import ConsentWatch, FileSession, OpenFileSession
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.leases import Lease
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import FINAL_OUTCOMES, Batch, Lane, Operation, Receipt
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_errors import ImportReportError
from vibes_pipelines.vibes.import_kinds import kind_of, report_name, summary_name
from vibes_pipelines.vibes.import_reports import ImportReport, RowError, read_report
from vibes_pipelines.vibes.sftp_errors import RemoteFileMissing, TransferRefused

LEASE = timedelta(minutes=30)
"""Longer than the upload of one file may take; renewed before each file."""

LOST = "ReportMissing"
"""The error class of the rows of a file of which no whole report came."""

NOT_SUBSCRIBED = "SubscriptionErrors::NotSubscribed"
"""What a row of an `.opt_outs` file asks for is so already; the API calls the same accepted."""


@dataclass(frozen=True)
class Folders:
    """The folders on the file server: where imports go, where reports on them appear."""

    imports: str
    reports: str


@dataclass(frozen=True)
class FilesResult:
    """Files and rows uploaded, and files found on the server already. Dry: what would be.

    `withdrawn` are rows that were taken out of their file before it left.
    """

    files: int = 0
    rows: int = 0
    already_there: int = 0
    withdrawn: int = 0


@dataclass(frozen=True)
class ReportsResult:
    """Reports collected; rows by what became of them; files still without a report, files lost.

    `half` are the names of those whose report is gone though its summary, which comes after it, is
    there.
    """

    files: int = 0
    accepted: int = 0
    rejected: int = 0
    waiting: int = 0
    lost: int = 0
    error_classes: Mapping[str, int] = field(default_factory=dict)
    half: tuple[str, ...] = ()


class ReportMismatch(ImportReportError):  # noqa: N818 - the name says what is wrong
    """Reports that do not fit their files or cannot be read; their rows have no receipt.

    `others` is what was collected of all other files.
    """

    def __init__(self, refused: Mapping[str, str], others: ReportsResult) -> None:
        whys = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
        super().__init__(
            f"{whys} (all other reports are read; ask Vibes for the right report and summary of "
            "each file named here, which the next look reads in their place. Until then its rows "
            "stay sent, and the file is closed once certificates have told of all of them)"
        )
        self.others = others


def deliver_files(
    batches: Sequence[Batch],
    open_session: OpenFileSession,
    folders: Folders,
    ledger: Ledger,
    types: Mapping[str, FieldType],
    workdir: Path,
    *,
    watch: ConsentWatch | None = None,
    dry_run: bool = True,
) -> FilesResult:
    """Uploads the batches of one lane that are not done, in one session; none if nothing is left.

    The files are written to `workdir` in a dry run too, and checked. What `watch` withdraws right
    before is taken out of its file; a file that is on the server stays as it is.

    Raises:
        ReplayMismatch: a file would not do what was planned; nothing at all was uploaded.
        LaneBusy: another process uploads files of this lane; nothing was uploaded.
        LeaseLost: one upload took so long that another process took the lane over.
    """
    waiting = [batch for batch in batches if batch.status != "done"]
    workdir.mkdir(parents=True, exist_ok=True)
    if not waiting:
        return FilesResult()
    with duckdb.connect() as engine:
        files = BatchFiles(ledger, types, workdir, engine)
        if dry_run:
            rows = sum(map(files.write, waiting))
            return FilesResult(files=len(waiting), rows=rows)
        return _deliver(waiting, files, watch, open_session, folders)


def _deliver(
    waiting: Sequence[Batch],
    files: BatchFiles,
    watch: ConsentWatch | None,
    open_session: OpenFileSession,
    folders: Folders,
) -> FilesResult:
    ledger = files.ledger
    lease = ledger.take_lease(lease_name(lane_of(waiting[0]), "file"), LEASE)
    try:
        # Read again: another process may have sent them until the lease was ours.
        fresh = files.read_again(waiting)
        ready = [files.write_last(batch, watch) for batch in fresh if batch.status == "planned"]
        cut = [batch for batch in fresh if batch.status == "sent"]
        if not cut and not any(batch.rows for batch in ready):
            return FilesResult(withdrawn=files.withdrawn)
        with open_session() as session:
            lost = [batch for batch in cut if not _is_on_server(batch, session, folders)]
            ready += [files.write_last(batch, watch) for batch in lost]
            leaving = sorted((batch for batch in ready if batch.rows), key=lambda one: one.name)
            _upload(leaving, session, folders, ledger, files.workdir, lease)
    finally:
        ledger.give_lease_back(lease)
    return FilesResult(
        files=len(leaving),
        rows=sum(batch.rows for batch in leaving),
        already_there=len(cut) - len(lost),
        withdrawn=files.withdrawn,
    )


def lane_of(batch: Batch) -> Lane:
    """The lane that a file belongs to."""
    return "opt_outs" if kind_of(batch.name) == "opt_outs" else "persons"


def collect_reports(
    ledger: Ledger,
    open_session: OpenFileSession,
    folders: Folders,
    day: str,
    lane: Lane | None = None,
) -> ReportsResult:
    """Turns the reports that are there into receipts, for every file sent on any day.

    With `lane` only for the files of that lane.

    A file without a whole report stays sent. One of an earlier day is closed as lost when it is not
    on the server in any form, for the upload was cut, or its report was removed; and when half a
    report is there, or one that is refused, once certificates have told of every row what became of
    it. Rows without such a verdict are unknown then. `day` is the logical day of the delivery that
    looks; the receipts become known on the newest day, for that of one in between is told already.
    Opens no session when no file waits.

    Raises:
        ReportMismatch: a report counts other rows than its file has, or cannot be read. All others
            are collected by then.
    """
    sent = [b for b in ledger.batches(status="sent") if lane in {None, lane_of(b)}]
    if not sent:
        return ReportsResult()
    newest = ledger.newest_diff_set()
    known_on = max(day, newest.day) if newest else day
    done = lost = 0
    refused: dict[str, str] = {}
    half: list[str] = []
    statuses: Counter[str] = Counter()
    error_classes: Counter[str] = Counter()
    with open_session() as session:
        # Reports are looked for last: a file picked up between the two leaves its report behind.
        old = {batch.batch_id for batch in sent if _is_of_earlier_day(batch, ledger, day)}
        imports = _names(session, folders.imports) if old else set()
        reports = _names(session, folders.reports)
        for batch in sent:
            report = None
            try:
                report = _report(batch, session, folders, reports)
            except (ImportReportError, TransferRefused) as unfit:
                refused[batch.name] = str(unfit)
            if report is not None:
                receipts = _receipts(ledger.batch_operations(batch.batch_id), report)
                ledger.finish_batch(batch.batch_id, _as_document(report), receipts, known_on)
                done += 1
            elif batch.batch_id in old and batch.name not in imports:
                unseen = _without_verdict(ledger.batch_operations(batch.batch_id))
                if unseen and _has_trace(batch, imports, reports):
                    half += _half(batch, reports)
                    continue
                receipts = _unknown(unseen)
                ledger.finish_batch(batch.batch_id, {"lost": True}, receipts, known_on)
                refused.pop(batch.name, None)
                lost += 1
            else:
                half += _half(batch, reports)
                continue
            statuses.update(taken.status for taken in receipts)
            error_classes.update(taken.error_class for taken in receipts if taken.error_class)
    collected = ReportsResult(
        files=done,
        accepted=statuses["accepted"],
        rejected=statuses["rejected"],
        waiting=len(sent) - done - lost - len(refused),
        lost=lost,
        error_classes=dict(sorted(error_classes.items())),
        half=tuple(half),
    )
    if refused:
        raise ReportMismatch(refused, collected)
    return collected


def _is_of_earlier_day(batch: Batch, ledger: Ledger, day: str) -> bool:
    record = ledger.diff_set(batch.diff_set)
    return record is not None and record.day < day


def _names(session: FileSession, directory: str) -> set[str]:
    return {file.name for file in session.list(directory)}


def _has_trace(batch: Batch, imports: set[str], reports: set[str]) -> bool:
    """True when the file waits for the platform, or the platform has answered to it."""
    answers = {report_name(batch.name), summary_name(batch.name)}
    return batch.name in imports or bool(answers & reports)


def _upload(
    batches: Sequence[Batch],
    session: FileSession,
    folders: Folders,
    ledger: Ledger,
    workdir: Path,
    lease: Lease,
) -> None:
    for batch in batches:
        ledger.renew_lease(lease)
        ledger.mark_batch_sent(batch.batch_id)
        session.upload(workdir / batch.name, folders.imports, batch.name)


def _is_on_server(batch: Batch, session: FileSession, folders: Folders) -> bool:
    # Reports are looked for last: a file picked up between the two looks leaves its report behind.
    imports = _names(session, folders.imports)
    return _has_trace(batch, imports, _names(session, folders.reports))


def _half(batch: Batch, reports: set[str]) -> list[str]:
    """The file's name, when its report is gone and the summary is there."""
    is_half = summary_name(batch.name) in reports and report_name(batch.name) not in reports
    return [batch.name] if is_half else []


def _report(
    batch: Batch, session: FileSession, folders: Folders, reports: set[str]
) -> ImportReport | None:
    """The report on a file; None while it is not whole.

    Raises:
        ImportReportError: it cannot be read, or is about another number of rows.
        TransferRefused: the server does not give it, or not as text.
    """
    names = report_name(batch.name), summary_name(batch.name)
    if not reports.issuperset(names):
        return None
    try:
        report = read_report(*(session.read_text(f"{folders.reports}/{name}") for name in names))
    except RemoteFileMissing:  # taken away since the folder was listed
        return None
    numbers = [number for number in report.errors if number > batch.rows]
    if numbers or (report.rows != batch.rows and report.file_error is None):
        raise ImportReportError(
            f"the report is about {max([report.rows, *numbers])} rows, "
            f"the file has {batch.rows}; ask Vibes which file was imported under this name"
        )
    return report


def _receipts(operations: Sequence[Operation], report: ImportReport) -> list[Receipt]:
    """A receipt per row; a file refused as a whole says nothing against its rows: again later."""
    if report.file_error is not None:
        refused = report.file_error
        return [
            receipt(
                operation.operation_id,
                "rejected",
                refused.error_class,
                refused.message,
                retry_later=True,
            )
            for operation in operations
        ]
    return [_receipt(op, report.errors.get(op.row_number or 0)) for op in operations]


def _receipt(operation: Operation, error: RowError | None) -> Receipt:
    is_so_already = (
        error is not None and operation.kind == "opt_out" and error.error_class == NOT_SUBSCRIBED
    )
    if error is None or is_so_already:
        return receipt(operation.operation_id, "accepted")
    return receipt(operation.operation_id, "rejected", error.error_class, error.message)


def _without_verdict(operations: Sequence[Operation]) -> list[Operation]:
    return [operation for operation in operations if operation.outcome not in FINAL_OUTCOMES]


def _unknown(operations: Sequence[Operation]) -> list[Receipt]:
    return [receipt(operation.operation_id, "unknown", LOST) for operation in operations]


def _as_document(report: ImportReport) -> dict[str, int]:
    document = asdict(report)
    del document["errors"]
    return document
