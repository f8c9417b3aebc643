"""Reading the platform's reports on import files: when, how long, and who does it.

Every look is one session, the account's gap after the one before. What a report means is in
`delivery.file_import`.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vibes_pipelines.delivery import release
from vibes_pipelines.delivery.file_import import (
    Folders,
    ReportMismatch,
    ReportsResult,
    collect_reports,
    lane_of,
)
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.landing import sftp_account
from vibes_pipelines.stages.planning import REPORT_POLL_S, verdict_of
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import Lane


@dataclass(frozen=True)
class ReadReports:
    """What the reports told, in counts of operations; `words` are for the operator.

    `refused` names the reports that could not be counted; None when all could.
    """

    counts: Mapping[str, int]
    error_classes: Counter[str] = field(default_factory=Counter)
    refused: ReportMismatch | None = None
    words: str = ""

    @property
    def sentence(self) -> str:
        """One line for the log."""
        counts = ", ".join(f"{name} {rows}" for name, rows in self.counts.items())
        return "; ".join(filter(None, (counts, self.words)))


def read_reports(project: Project, day: str, lane: Lane | None, wait_s: float) -> ReadReports:
    """Looks until no report is awaited or the wait is over; of one lane, or of all.

    A report that cannot be counted is not waited for: it is told, and read again by the next.
    """
    counts: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    deadline = time.monotonic() + wait_s
    while True:
        found, refused = _look(project, day, lane)
        counts.update(reports=found.files, accepted=found.accepted, rejected=found.rejected)
        counts.update(lost=found.lost)
        classes.update(found.error_classes)
        if not found.waiting or time.monotonic() >= deadline:
            shown = {**counts, "awaiting_report": found.waiting}
            return ReadReports(shown, classes, refused, _words(found))
        time.sleep(REPORT_POLL_S)


@not_while_erasing
def read_late_reports(project: Project, day: str) -> ReadReports:
    """One look for the reports that files of any day and lane await; nothing is planned or sent.

    Raises:
        ReportMismatch: some reports could not be counted; all others are.
    """
    read = read_reports(project, day, lane=None, wait_s=0)
    if newest := project.ledger.newest_diff_set():
        release.accept_if_delivered(project.ledger, newest.diff_set)
    if read.refused is not None:
        raise read.refused
    return read


def awaited_day(project: Project) -> str | None:
    """The newest day of which an import file awaits its report; None when no file does."""
    ledger = project.ledger
    found = (ledger.diff_set(name) for name in {b.diff_set for b in ledger.batches(status="sent")})
    return max((diff_set.day for diff_set in found if diff_set), default=None)


def awaits_report(project: Project, lane: Lane) -> bool:
    """True while a file of this lane, of any day, has no report."""
    return any(lane_of(batch) == lane for batch in project.ledger.batches(status="sent"))


def may_read(project: Project, diff_set: str, lane: Lane) -> bool:
    """Whether the delivery of this lane, which reads its reports, may run."""
    return verdict_of(project, diff_set, lane).allowed


def folders_of(project: Project) -> Folders:
    """Where the account takes imports and leaves reports."""
    return Folders(project.settings.sftp.import_dir, project.settings.sftp.report_dir)


def _look(
    project: Project, day: str, lane: Lane | None
) -> tuple[ReportsResult, ReportMismatch | None]:
    session = sftp_account(project).session
    try:
        return collect_reports(project.ledger, session, folders_of(project), day, lane), None
    except ReportMismatch as refused:
        return refused.others, refused


def _words(found: ReportsResult) -> str:
    if not found.half:
        return ""
    return (
        f"only the summary is there of the report on {', '.join(found.half)}: ask Vibes for the "
        "report, or wait until certificates have told of all rows, which closes the file"
    )
