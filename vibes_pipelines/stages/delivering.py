"""Delivering: the newest diff set of the ledger goes out, lane by lane, over its routes.

Each function is what one delivery sends; `planning` says what that is. Each of them looks by itself
whether its lane is released, and plans what is not planned yet, so that it can be called alone. A
dry run reports the plan and writes nothing to the ledger.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from vibes_pipelines.delivery import release
from vibes_pipelines.delivery.file_import import ReportMismatch, deliver_files, lane_of
from vibes_pipelines.delivery.plan import Plan
from vibes_pipelines.delivery.write_back import write_back as write_back_operations
from vibes_pipelines.stages.api import person_api, vibes_api
from vibes_pipelines.stages.api_rate import calls_of_deliveries
from vibes_pipelines.stages.crm_side import crm_writer
from vibes_pipelines.stages.delivered import (
    BothRoadsFailedError,
    Delivered,
    NoAnswerError,
    answered,
    both,
)
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.landing import sftp_account
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.stages.planning import (
    DELIVERIES,
    NotReleasedError,
    Options,
    counts_of,
    estimates_of,
    planned_lane,
    reason_of,
    require_release,
    verdict_of,
    why_of,
)
from vibes_pipelines.stages.progress import Progress
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.stages.report_reading import (
    awaited_day,
    awaits_report,
    folders_of,
    may_read,
    read_late_reports,
    read_reports,
)
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import DiffSet, Lane
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines.vibes.sftp_errors import SftpError

if TYPE_CHECKING:
    from vibes_pipelines.delivery.api_push import PushResult

__all__ = [
    "LANES",
    "SENDS",
    "BothRoadsFailedError",
    "Delivered",
    "NoAnswerError",
    "NotReleasedError",
    "Options",
    "approve",
    "awaited_day",
    "deliver_invites",
    "deliver_opt_outs",
    "estimates_of",
    "held_lanes",
    "import_persons",
    "push_persons",
    "read_late_reports",
    "released_diff_set",
    "write_back",
]

LANES: tuple[Lane, ...] = ("opt_outs", "persons", "invites")
_CRM_LANES: tuple[Lane, ...] = ("opt_outs", "crm")

# A small account is imported within seconds; a large one is asked for again by its sensor.
REPORT_WAIT_S = 120.0


@not_while_erasing
def deliver_opt_outs(project: Project, day: str, options: Options) -> Delivered:
    """Unsubscribes at the platform whoever opted out in the CRM; before anything else leaves."""
    planned = planned_lane(project, day, "opt_outs", options)
    roads = DELIVERIES["opt_outs"].roads
    if options.dry_run:
        return _would(planned, roads)
    try:
        by_api = answered(_by_api(project, planned, "opt_outs", options))
    except Exception as failed:
        # What the API refuses holds up no opt-out that goes by file.
        _opt_outs_by_file_too(project, planned, failed)
        raise
    by_file = _opt_outs_by_file(project, planned)
    if not by_file.counts:
        return replace(by_api, why=_why(planned, roads, by_file.why))
    return both(by_api, by_file, _why(planned, roads, by_file.why))


@not_while_erasing
def push_persons(project: Project, day: str, options: Options) -> Delivered:
    """Pushes the person changes that go by API, within the platform's rate limit."""
    planned = planned_lane(project, day, "persons", options)
    if options.dry_run:
        return _would(planned, DELIVERIES["api_push"].roads)
    return answered(_by_api(project, planned, "persons", options))


@not_while_erasing
def deliver_invites(project: Project, day: str, options: Options) -> Delivered:
    """Asks persons who opted in in the CRM by the acquisition campaign of their list.

    Held invitations stop nothing else: they are counted as `held` until somebody approves.
    """
    diff_set = read_summary(project, day).diff_set
    held = verdict_of(project, diff_set, "invites", options.force_reason)
    if options.dry_run or held.status == "held":
        looked = planned_lane(project, day, "invites", replace(options, dry_run=True))
        would = _would(looked, DELIVERIES["invites"].roads)
        if options.dry_run or not would.counts:
            return replace(would, dry_run=options.dry_run)
        counts = {"held": sum(would.counts.values())}
        return Delivered(diff_set, dry_run=False, counts=counts, why=reason_of(held))
    planned = planned_lane(project, day, "invites", options)
    return answered(_by_api(project, planned, "invites", options))


@not_while_erasing
def write_back(project: Project, day: str, options: Options) -> Delivered:
    """Writes the platform's opt-outs, and the fields it is the authority for, to the CRM."""
    roads = DELIVERIES["crm_write_back"].roads
    planned = planned_lane(project, day, "opt_outs", options)
    if options.dry_run:
        return _would(planned, roads)
    results = []
    for lane in _CRM_LANES:
        if not _goes_by(planned, f"{lane}/crm"):
            continue
        require_release(project, planned.diff_set, lane, options)
        crm = crm_writer(project)
        open_operations = project.ledger.open_operations(planned.diff_set, lane, "crm")
        results.append(write_back_operations(open_operations, crm, project.ledger, dry_run=False))
    release.accept_if_delivered(project.ledger, planned.diff_set)
    counts = {
        name: sum(getattr(result, name) for result in results)
        for name in ("planned", "accepted", "rejected", "repeated")
    }
    return Delivered(
        planned.diff_set,
        dry_run=False,
        counts=counts,
        why=why_of(planned, roads),
        error_classes=sum((Counter(result.error_classes) for result in results), Counter[str]()),
    )


@not_while_erasing
def import_persons(project: Project, day: str, options: Options) -> Delivered:
    """Uploads the person changes that go by import file, and reads the platform's reports."""
    planned = planned_lane(project, day, "persons", options)
    if options.dry_run:
        return _would(planned, DELIVERIES["person_import"].roads)
    by_file = _by_file(project, planned, "persons")
    return replace(by_file, why=_why(planned, DELIVERIES["person_import"].roads, by_file.why))


SENDS: dict[str, Callable[[Project, str, Options], Delivered]] = {
    "opt_outs": deliver_opt_outs,
    "crm_write_back": write_back,
    "person_import": import_persons,
    "api_push": push_persons,
    "invites": deliver_invites,
}
"""What sends each of `planning.DELIVERIES`."""


def held_lanes(project: Project, day: str) -> dict[Lane, str]:
    """Why each lane of the day's diff set waits for an approval; empty when none does."""
    diff_set = read_summary(project, day).diff_set
    verdicts = {lane: verdict_of(project, diff_set, lane) for lane in LANES}
    return {lane: reason_of(v) for lane, v in verdicts.items() if v.status == "held"}


def approve(project: Project, diff_set: str, reason: str) -> str:
    """Releases the newest diff set; `diff_set` may be the first six or more characters of its hash.

    Raises:
        ApprovalError: no reason, or not the newest diff set.
    """
    newest = project.ledger.newest_diff_set()
    if newest and len(diff_set) >= 6 and newest.diff_set.startswith(diff_set):
        diff_set = newest.diff_set
    return release.approve(project.ledger, diff_set, reason).diff_set


def released_diff_set(project: Project) -> DiffSet | None:
    """The newest diff set, when a person approved it and it has not gone out."""
    newest = project.ledger.newest_diff_set()
    if newest and newest.approved_reason and newest.status == "open":
        return newest
    return None


def _by_api(project: Project, planned: Plan, lane: Lane, options: Options) -> Delivered:
    why = why_of(planned, [f"{lane}/api"])
    if not _goes_by(planned, f"{lane}/api"):
        return Delivered(planned.diff_set, dry_run=False, counts={}, why=why)
    progress = Progress(options.tell)
    inbox = Inbox(project.settings.ledger_url)
    with closing(inbox), calls_of_deliveries(project) as calls:
        watch = LastLook(project, inbox)
        result = run_until_interrupted(
            _push(project, planned.diff_set, lane, watch, progress, calls)
        )
    release.accept_if_delivered(project.ledger, planned.diff_set)
    names = ("planned", "accepted", "rejected", "unknown", "repeated", "withdrawn")
    return Delivered(
        planned.diff_set,
        dry_run=False,
        counts={name: getattr(result, name) for name in names},
        why=why,
        error_classes=result.error_classes,
        estimated_s=estimates_of(project).api_s(result.planned),
        actual_s=progress.seconds,
        progress=progress.steps,
    )


async def _push(
    project: Project,
    diff_set: str,
    lane: Lane,
    watch: LastLook,
    progress: Progress,
    calls: RateLimiter,
) -> "PushResult":
    # The HTTP client is slow to import; a process that asks nobody does without it.
    from vibes_pipelines.delivery.api_push import push  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(person_api(project, calls))
        campaigns = None
        if lane == "invites":
            campaigns = (await stack.enter_async_context(vibes_api(project, calls))).campaigns
        return await push(
            project.ledger.open_operations(diff_set, lane, "api"),
            api,
            project.ledger,
            {mapped.to: mapped.type for mapped in project.config.fields},
            campaigns=campaigns,
            consent=watch,
            dry_run=False,
            on_progress=progress.answered,
        )


def _opt_outs_by_file_too(project: Project, planned: Plan, failed: Exception) -> None:
    """The other road, after the API failed.

    Raises:
        BothRoadsFailedError: it failed as well.
    """
    try:
        _opt_outs_by_file(project, planned)
    except Exception as too:  # noqa: BLE001 - whatever it is, it is told beside the other
        raise BothRoadsFailedError(f"opt-outs by API: {failed}; by file: {too}") from failed


def _opt_outs_by_file(project: Project, planned: Plan) -> Delivered:
    """Uploads the files of opt-outs, and reads the reports on those of any day.

    Its `why` is what to know of the reports.
    """
    if _goes_by(planned, "opt_outs/file"):
        return _by_file(project, planned, "opt_outs")
    nothing = Delivered(planned.diff_set, dry_run=False, counts={}, why="")
    if not awaits_report(project, "opt_outs"):
        return nothing
    try:
        read = read_reports(project, planned.day, "opt_outs", wait_s=0)
        if read.refused is not None:
            raise read.refused
    except (ReportMismatch, SftpError) as unread:
        if not may_read(project, planned.diff_set, "persons"):
            raise
        # What comes after opt-outs is not held up; the import of persons looks for the same, and
        # fails by it.
        return replace(nothing, why=f"left to the import of persons: {unread}")
    return replace(nothing, counts=read.counts, error_classes=read.error_classes, why=read.words)


def _by_file(project: Project, planned: Plan, lane: Lane) -> Delivered:
    """Uploads the files of one lane and reads the reports; those that are late are read later.

    Its `why` is what to know of the reports.

    Raises:
        ReportMismatch: some reports could not be counted; all others are.
    """
    started = time.monotonic()
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        uploaded = deliver_files(
            [batch for batch in planned.batches if lane_of(batch) == lane],
            sftp_account(project).session,
            folders_of(project),
            project.ledger,
            {mapped.to: mapped.type for mapped in project.config.fields},
            project.work_folder(planned.day),
            watch=LastLook(project, inbox),
            dry_run=False,
        )
    withdrawn = {"withdrawn": uploaded.withdrawn} if uploaded.withdrawn else {}
    # The report of an opt-out file that was late is read here too.
    read = read_reports(project, planned.day, None if lane == "persons" else lane, REPORT_WAIT_S)
    release.accept_if_delivered(project.ledger, planned.diff_set)
    if read.refused is not None:
        raise read.refused
    return Delivered(
        planned.diff_set,
        dry_run=False,
        counts={"files": uploaded.files, "rows": uploaded.rows, **withdrawn, **read.counts},
        why=read.words,
        error_classes=read.error_classes,
        estimated_s=estimates_of(project).file_s(uploaded.rows, uploaded.files),
        actual_s=time.monotonic() - started if uploaded.files else 0.0,
    )


def _would(planned: Plan, roads: Collection[str]) -> Delivered:
    counts = counts_of(planned.operations, roads)
    return Delivered(planned.diff_set, dry_run=True, counts=counts, why=why_of(planned, roads))


def _why(planned: Plan, roads: Collection[str], words: str) -> str:
    return "; ".join(filter(None, (why_of(planned, roads), words)))


def _goes_by(planned: Plan, road: str) -> bool:
    return bool(counts_of(planned.operations, [road]))
