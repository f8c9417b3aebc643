"""Delivering: the newest diff set of the ledger goes out, lane by lane, over its routes.

Each function is one delivery asset. A dry run reports the plan and writes nothing to the ledger.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vibes_pipelines.delivery import release
from vibes_pipelines.delivery.file_import import (
    Folders,
    collect_reports,
    deliver_files,
    lane_of,
)
from vibes_pipelines.delivery.plan import Plan, plan, preview
from vibes_pipelines.delivery.release import Verdict, may_deliver
from vibes_pipelines.delivery.routes import Estimates
from vibes_pipelines.delivery.write_back import write_back as write_back_operations
from vibes_pipelines.stages.api import person_api, vibes_api
from vibes_pipelines.stages.api_rate import calls_of_deliveries, delivery_rate_per_s
from vibes_pipelines.stages.crm_side import crm_writer
from vibes_pipelines.stages.erase_lock import not_while_erasing
from vibes_pipelines.stages.landing import sftp_account
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.stages.progress import Progress, Step
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import DiffSet, Lane
from vibes_pipelines.vibes.error_classes import lookup
from vibes_pipelines.vibes.rate_limit import RateLimiter

if TYPE_CHECKING:
    from vibes_pipelines.delivery.api_push import PushResult

LANES: tuple[Lane, ...] = ("opt_outs", "persons", "invites")
_INVITES = "invites/api"
_CRM_LANES: tuple[Lane, ...] = ("opt_outs", "crm")

_DEFERRED_ROADS = {
    "opt_out": "opt_outs/api",
    "crm_opt_out": "opt_outs/crm",
    "crm_update": "crm/crm",
}

# A small account is imported within seconds; a large one is asked for again by its sensor.
REPORT_WAIT_S = 120.0
REPORT_POLL_S = 0.5


class NotReleasedError(RuntimeError):
    """A guard, a missing approval, a newer diff set or another mapping keeps this one back."""


class NoAnswerError(RuntimeError):
    """Some operations got no answer. They stay open, and a repush sends exactly these again."""


@dataclass(frozen=True)
class Options:
    """How a delivery runs; `force_reason` delivers a day that is not the newest.

    `tell` is given one line for every few hundred operations.
    """

    dry_run: bool = True
    force_reason: str | None = None
    tell: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Delivered:
    """What a delivery did, in counts of operations; a dry run says what it would do.

    `estimated_s` is what the planner thinks that this much takes, `actual_s` what it took: of a
    push by API, and of an import until its last report was there. 0: nothing was to be sent.
    """

    dry_run: bool
    counts: Mapping[str, int]
    why: str
    error_classes: Mapping[str, int] = field(default_factory=dict)
    estimated_s: float = 0.0
    actual_s: float = 0.0
    progress: tuple[Step, ...] = ()

    @property
    def rejections(self) -> list[tuple[str, int, str]]:
        """Error class, rows, and what an operator should do."""
        return [(name, rows, lookup(name).advice) for name, rows in self.error_classes.items()]

    @property
    def sentence(self) -> str:
        """One line for the log."""
        counts = ", ".join(f"{name} {rows}" for name, rows in self.counts.items())
        return f"{'dry run: ' if self.dry_run else ''}{counts or 'nothing to do'} ({self.why})"


@not_while_erasing
def deliver_opt_outs(project: Project, day: str, options: Options) -> Delivered:
    """Unsubscribes at the platform whoever opted out in the CRM; before anything else leaves."""
    planned = _planned(project, day, "opt_outs", options)
    roads = ("opt_outs/api", "opt_outs/file")
    if options.dry_run:
        return _would(planned, *roads)
    by_api = _by_api(project, planned, "opt_outs", options)
    if not _goes_by(planned, "opt_outs/file"):
        return _answered(by_api)
    by_file = _by_file(project, planned, "opt_outs")
    return _answered(_both(by_api, by_file, _why(planned, *roads)))


@not_while_erasing
def push_persons(project: Project, day: str, options: Options) -> Delivered:
    """Pushes the person changes that go by API, within the platform's rate limit."""
    planned = _planned(project, day, "persons", options)
    if options.dry_run:
        return _would(planned, "persons/api")
    return _answered(_by_api(project, planned, "persons", options))


@not_while_erasing
def deliver_invites(project: Project, day: str, options: Options) -> Delivered:
    """Asks persons who opted in in the CRM by the acquisition campaign of their list.

    Held invitations stop nothing else: they are counted as `held` until somebody approves.
    """
    diff_set = read_summary(project, day).diff_set
    held = _verdict(project, diff_set, "invites", options.force_reason)
    if options.dry_run or held.status == "held":
        would = _would(_planned(project, day, "invites", replace(options, dry_run=True)), _INVITES)
        if options.dry_run or not would.counts:
            return replace(would, dry_run=options.dry_run)
        counts = {"held": sum(would.counts.values())}
        return Delivered(dry_run=False, counts=counts, why=_reason(held))
    planned = _planned(project, day, "invites", options)
    return _answered(_by_api(project, planned, "invites", options))


@not_while_erasing
def write_back(project: Project, day: str, options: Options) -> Delivered:
    """Writes the platform's opt-outs, and the fields it is the authority for, to the CRM."""
    roads = [f"{lane}/crm" for lane in _CRM_LANES]
    planned = _planned(project, day, "opt_outs", options)
    if options.dry_run:
        return _would(planned, *roads)
    results = []
    for lane in _CRM_LANES:
        if not _goes_by(planned, f"{lane}/crm"):
            continue
        _require_release(project, planned.diff_set, lane, options)
        crm = crm_writer(project)
        open_operations = project.ledger.open_operations(planned.diff_set, lane, "crm")
        results.append(write_back_operations(open_operations, crm, project.ledger, dry_run=False))
    release.accept_if_delivered(project.ledger, planned.diff_set)
    counts = {
        name: sum(getattr(result, name) for result in results)
        for name in ("planned", "accepted", "rejected", "repeated")
    }
    classes = sum((Counter(result.error_classes) for result in results), Counter[str]())
    return Delivered(dry_run=False, counts=counts, why=_why(planned, *roads), error_classes=classes)


@not_while_erasing
def import_persons(project: Project, day: str, options: Options) -> Delivered:
    """Uploads the person changes that go by import file, and reads the platform's reports."""
    planned = _planned(project, day, "persons", options)
    if options.dry_run:
        return _would(planned, "persons/file")
    return _by_file(project, planned, "persons")


def held_lanes(project: Project, day: str) -> dict[Lane, str]:
    """Why each lane of the day's diff set waits for an approval; empty when none does."""
    diff_set = read_summary(project, day).diff_set
    verdicts = {lane: _verdict(project, diff_set, lane) for lane in LANES}
    return {lane: _reason(v) for lane, v in verdicts.items() if v.status == "held"}


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


def awaited_reports(project: Project) -> DiffSet | None:
    """The newest diff set when import files await their report and it may go out itself."""
    newest = project.ledger.newest_diff_set()
    if newest is None or not project.ledger.batches(status="sent"):
        return None
    return newest if _verdict(project, newest.diff_set, "persons").allowed else None


def _by_api(project: Project, planned: Plan, lane: Lane, options: Options) -> Delivered:
    why = _why(planned, f"{lane}/api")
    if not _goes_by(planned, f"{lane}/api"):
        return Delivered(dry_run=False, counts={}, why=why)
    progress = Progress(options.tell)
    inbox = Inbox(project.settings.ledger_url)
    with closing(inbox), calls_of_deliveries(project) as calls:
        watch = LastLook(project, inbox)
        result = asyncio.run(_push(project, planned.diff_set, lane, watch, progress, calls))
    release.accept_if_delivered(project.ledger, planned.diff_set)
    names = ("planned", "accepted", "rejected", "unknown", "repeated", "withdrawn")
    return Delivered(
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


def _by_file(project: Project, planned: Plan, lane: Lane) -> Delivered:
    """Uploads the files of one lane and reads the reports; those that are late are read later."""
    started = time.monotonic()
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        uploaded = deliver_files(
            [batch for batch in planned.batches if lane_of(batch) == lane],
            sftp_account(project).session,
            _folders(project),
            project.ledger,
            {mapped.to: mapped.type for mapped in project.config.fields},
            project.work_folder(planned.day),
            watch=LastLook(project, inbox),
            dry_run=False,
        )
    withdrawn = {"withdrawn": uploaded.withdrawn} if uploaded.withdrawn else {}
    # The report of an opt-out file that was late is read here too, by the sensor of reports.
    counts, classes = _collect(project, planned.day, None if lane == "persons" else lane)
    release.accept_if_delivered(project.ledger, planned.diff_set)
    return Delivered(
        dry_run=False,
        counts={"files": uploaded.files, "rows": uploaded.rows, **withdrawn, **counts},
        why=_why(planned, f"{lane}/file"),
        error_classes=classes,
        estimated_s=estimates_of(project).file_s(uploaded.rows, uploaded.files),
        actual_s=time.monotonic() - started if uploaded.files else 0.0,
    )


def _both(by_api: Delivered, by_file: Delivered, why: str) -> Delivered:
    """One lane over both roads, one after the other."""
    return Delivered(
        dry_run=False,
        counts=dict(sum(map(Counter, (by_api.counts, by_file.counts)), Counter[str]())),
        why=why,
        error_classes=dict(
            sum(map(Counter, (by_api.error_classes, by_file.error_classes)), Counter[str]())
        ),
        estimated_s=by_api.estimated_s + by_file.estimated_s,
        actual_s=by_api.actual_s + by_file.actual_s,
        progress=by_api.progress,
    )


def _answered(delivered: Delivered) -> Delivered:
    """Raises NoAnswerError when some got no answer."""
    unknown = delivered.counts.get("unknown", 0)
    if unknown:
        planned, classes = delivered.counts["planned"], ", ".join(delivered.error_classes)
        msg = f"{unknown} of {planned} got no answer ({classes}); run the job repush"
        raise NoAnswerError(msg)
    return delivered


def _collect(project: Project, day: str, lane: Lane | None) -> tuple[dict[str, int], Counter[str]]:
    """Reads reports until none is awaited or the wait is over; every look is one session."""
    counts: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    deadline = time.monotonic() + REPORT_WAIT_S
    while True:
        session = sftp_account(project).session
        found = collect_reports(project.ledger, session, _folders(project), day, lane)
        counts.update(reports=found.files, accepted=found.accepted, rejected=found.rejected)
        counts.update(lost=found.lost)
        classes.update(found.error_classes)
        if not found.waiting or time.monotonic() >= deadline:
            return {**counts, "awaiting_report": found.waiting}, classes
        time.sleep(REPORT_POLL_S)


def _planned(project: Project, day: str, lane: Lane, options: Options) -> Plan:
    """The plan of the day's diff set; intents are written only when `lane` may go out."""
    diff_set = read_summary(project, day).diff_set
    if not options.dry_run:
        _require_release(project, diff_set, lane, options)
    build = preview if options.dry_run else plan
    return build(
        diff_set,
        project.diff_set_folder(day),
        project.config,
        project.ledger,
        estimates_of(project),
    )


def estimates_of(project: Project) -> Estimates:
    """What each road costs on this account, as its settings tell."""
    gap_s = project.settings.sftp.gap_s
    rate = delivery_rate_per_s(project)
    return Estimates(rate_per_s=rate, gap_s=gap_s, pickup_s=max(gap_s, REPORT_POLL_S))


def _folders(project: Project) -> Folders:
    return Folders(project.settings.sftp.import_dir, project.settings.sftp.report_dir)


def _require_release(project: Project, diff_set: str, lane: Lane, options: Options) -> None:
    verdict = _verdict(project, diff_set, lane, options.force_reason)
    if not verdict.allowed:
        raise NotReleasedError(f"{lane}: {verdict.status}: {_reason(verdict)}")


def _verdict(project: Project, diff_set: str, lane: Lane, force: str | None = None) -> Verdict:
    mapping = project.config.mapping_hash
    return may_deliver(project.ledger, diff_set, lane, mapping_hash=mapping, force_reason=force)


def _reason(verdict: Verdict) -> str:
    cure = f"; {verdict.cure}" if verdict.cure else ""
    return "; ".join(verdict.reasons) + cure


def _would(planned: Plan, *roads: str) -> Delivered:
    counts = {
        name: rows
        for name, rows in planned.operations.items()
        if name.startswith(tuple(f"{road}/" for road in roads))
    }
    return Delivered(dry_run=True, counts=counts, why=_why(planned, *roads))


def _goes_by(planned: Plan, road: str) -> bool:
    return any(name.startswith(f"{road}/") for name in planned.operations)


def _why(planned: Plan, *roads: str) -> str:
    return "; ".join(_sentences(planned, roads)) or "nothing goes this way today"


def _sentences(planned: Plan, roads: Collection[str]) -> Iterable[str]:
    for reason, rows in planned.reasons.items():
        road, _, why = reason.partition(": ")
        if road in roads:
            yield f"{rows}: {why}"
    for reason, rows in planned.deferred.items():
        if _DEFERRED_ROADS[reason.partition(": ")[0]] in roads:
            yield f"{rows} deferred: {reason}"
