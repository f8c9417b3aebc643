"""Delivering to APSIS One: the newest diff set of its ledger, lane by lane, opt-outs first.

What was sent of a person in real time since the diff set was made goes first: an operation that it
takes the place of is withdrawn, an opt-out never is. Nobody is opted in whose consent is in the CRM
no more. Opt-outs made there go back to the CRM, where the label is removed; opt-ins never do.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vibes_pipelines.delivery import release
from vibes_pipelines.delivery.plan import Plan, plan
from vibes_pipelines.delivery.write_back import write_back
from vibes_pipelines.stages.apsis_compared import compared_reads
from vibes_pipelines.stages.apsis_landing import newest_reads
from vibes_pipelines.stages.apsis_last_look import LastLook, NewerWatch
from vibes_pipelines.stages.apsis_sync import ApsisSync
from vibes_pipelines.stages.crm_side import crm_writer
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.store.consent_looks import ConsentLooks, Look
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Lane, Operation, Route

if TYPE_CHECKING:
    from vibes_pipelines.apsis.profiles import DeletionPermission
    from vibes_pipelines.delivery.api_push import PushResult

ROADS: tuple[tuple[Lane, Route], ...] = (
    ("opt_outs", "api"),
    ("opt_outs", "crm"),
    ("persons", "api"),
    ("crm", "crm"),
    ("invites", "api"),
    ("deletes", "api"),
)
"""The order in which changes leave; opt-ins last, when their profiles are there."""

OnProgress = Callable[[int], None]


@dataclass
class Written:
    """What a delivery did, in counts of operations; `held` says why a lane waits."""

    accepted: int = 0
    rejected: int = 0
    unknown: int = 0
    withdrawn: int = 0
    held: dict[Lane, str] = field(default_factory=dict)
    error_classes: Counter[str] = field(default_factory=Counter)


def deliver(sync: ApsisSync, diff_set: str, day: str, on_progress: OnProgress) -> Written:
    """Sends whatever of the diff set is open and not held; `on_progress` may raise to stop.

    Raises:
        PushError: the login is refused, or the mapping is not in the account.
        CrmError: the CRM cannot be written, or not read for the last look before opt-ins; these
            stay open.
    """
    project = sync.project
    planned = plan(
        diff_set,
        project.diff_set_folder(day),
        project.config,
        project.ledger,
        destination=project.destination,
    )
    written = Written()
    for lane, route in ROADS:
        if not any(name.startswith(f"{lane}/{route}/") for name in planned.operations):
            continue
        if lane == "deletes" and (excess := _too_many_deletes(sync, planned)):
            written.held[lane] = excess
            continue
        verdict = release.may_deliver(project.ledger, diff_set, lane)
        if not verdict.allowed:
            written.held[lane] = "; ".join([*verdict.reasons, verdict.cure or ""])
            continue
        if route == "crm":
            _write_back(sync, planned, lane, written)
        else:
            _push(sync, planned, lane, written, on_progress)
    release.accept_if_delivered(project.ledger, diff_set)
    return written


def _too_many_deletes(sync: ApsisSync, planned: Plan) -> str | None:
    """Why an approval is not enough; None when the cap allows all deletions."""
    rows = planned.operations.get("deletes/api/delete", 0)
    cap = sync.section.guards.deletes
    landed = newest_reads(sync)
    share = rows / landed.manifest.rows if landed and landed.manifest.rows else 1.0
    over = (cap.max_rows is not None and rows > cap.max_rows) or (
        cap.max_share is not None and share > cap.max_share
    )
    if not over:
        return None
    return (
        f"deletes: {rows} profiles, {share:.1%}, are more than destinations.apsis.guards.deletes"
        " allows; look at the conditions, or raise the cap"
    )


def _push(
    sync: ApsisSync, planned: Plan, lane: Lane, written: Written, on_progress: OnProgress
) -> None:
    operations = sync.project.ledger.open_operations(planned.diff_set, lane, "api")
    before = written.accepted + written.rejected + written.unknown
    result = run_until_interrupted(
        push_lane(sync, operations, lambda done: on_progress(before + done))
    )
    written.accepted += result.accepted
    written.rejected += result.rejected
    written.unknown += result.unknown
    written.withdrawn += result.withdrawn
    written.error_classes.update(result.error_classes)


async def push_lane(
    sync: ApsisSync, operations: Iterable[Operation], on_progress: OnProgress
) -> "PushResult":
    """Pushes the operations of one lane; see `delivery.api_push`."""
    # The HTTP client is slow to import; a process that asks nobody does without it.
    from vibes_pipelines.delivery.api_push import push_by  # noqa: PLC0415
    from vibes_pipelines.delivery.apsis_sends import ApsisSender  # noqa: PLC0415

    with closing(RealtimeBook(sync.project.settings.ledger_url)) as book:
        async with sync.client() as client:
            sender = ApsisSender(
                client, sync.types, deletion_permission(sync), compared_reads(sync)
            )
            return await push_by(
                sender,
                operations,
                sync.project.ledger,
                consent=LastLook(sync, NewerWatch(book)),
                dry_run=False,
                on_progress=on_progress,
            )


def deletion_permission(sync: ApsisSync) -> "DeletionPermission | None":
    """The word of sync.yaml that profiles may be deleted; None without it."""
    from vibes_pipelines.apsis.profiles import DeletionPermission  # noqa: PLC0415 - as above

    if sync.section.when_unmatched != "delete":
        return None
    granted_by = "destinations.apsis.when_unmatched of sync.yaml, and the approval of the diff set"
    return DeletionPermission(granted_by, "the contact stopped meeting the sync conditions")


def _write_back(sync: ApsisSync, planned: Plan, lane: Lane, written: Written) -> None:
    project = sync.landing_project
    operations = list(project.ledger.open_operations(planned.diff_set, lane, "crm"))
    result = write_back(operations, crm_writer(project), project.ledger, dry_run=False)
    written.accepted += result.accepted
    written.rejected += result.rejected
    written.error_classes.update(result.error_classes)
    done = [project.ledger.operation(one.operation_id) for one in operations]
    note_removed(sync, [one for one in done if one and one.status == "accepted"])


def note_removed(sync: ApsisSync, operations: Iterable[Operation]) -> None:
    """Remembers that the labels of these opt-outs were seen removed: the CRM was read back."""
    columns = {consent.list: consent.from_ for consent in sync.project.config.consents}
    now = sync.now()
    looks = [
        Look(one.external_person_id or "", columns[one.subscription_list_id], is_in=False, at=now)
        for one in operations
        if one.kind == "crm_opt_out" and one.subscription_list_id in columns
    ]
    with closing(ConsentLooks(sync.project.settings.ledger_url)) as book:
        book.note(looks)
