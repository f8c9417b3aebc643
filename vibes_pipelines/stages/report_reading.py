"""Reading the platform's reports on import files: when, how long, and which delivery does it.

Every look is one session, the account's gap after the one before. What a report means is in
`delivery.file_import`.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vibes_pipelines.delivery.file_import import (
    Folders,
    ReportMismatch,
    ReportsResult,
    collect_reports,
    lane_of,
)
from vibes_pipelines.stages.landing import sftp_account
from vibes_pipelines.stages.planning import REPORT_POLL_S, verdict_of
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.records import DiffSet, Lane


@dataclass(frozen=True)
class ReadReports:
    """What the reports told, in counts of operations; `words` are for the operator.

    `refused` names the reports that could not be counted; None when all could.
    """

    counts: Mapping[str, int]
    error_classes: Counter[str] = field(default_factory=Counter)
    refused: ReportMismatch | None = None
    words: str = ""


@dataclass(frozen=True)
class AwaitedReports:
    """The diff set to deliver once more, and by which of `planning.DELIVERIES`."""

    diff_set: DiffSet
    delivery: str


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


def awaited_reports(project: Project) -> AwaitedReports | None:
    """Which delivery reads the reports that import files await; None when none may.

    The import of persons reads all of them. While its lane is held, opt-outs are not: they read
    their own.
    """
    newest = project.ledger.newest_diff_set()
    sent = {lane_of(batch) for batch in project.ledger.batches(status="sent")}
    if newest is None or not sent:
        return None
    if may_read(project, newest.diff_set, "persons"):
        return AwaitedReports(newest, "person_import")
    if "opt_outs" in sent and may_read(project, newest.diff_set, "opt_outs"):
        return AwaitedReports(newest, "opt_outs")
    return None


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
