"""The full sync from the CRM to APSIS One: read both sides whole, compare, write what differs.

One at a time. It can be cancelled: what was written stays. It can be taken up again: what is open
is sent, nothing twice. Messages of Tribe that arrive meanwhile wait for its end.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.parquet as pq

from vibes_pipelines.apsis.errors import ApsisSetupError
from vibes_pipelines.stages.apsis_compared import TAKEN_UP
from vibes_pipelines.stages.apsis_delivering import Written, deliver
from vibes_pipelines.stages.apsis_landing import (
    land_contacts_of,
    land_profiles,
    newest_reads,
    retire,
)
from vibes_pipelines.stages.apsis_merges import merge_same_email
from vibes_pipelines.stages.apsis_names import OF_NAMES, all_missing
from vibes_pipelines.stages.apsis_sync import LEASE, ApsisSync
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.erase_lock import no_erasure
from vibes_pipelines.stages.full_sync_need import changed_since_begun, config_marks
from vibes_pipelines.stages.reconciling import reconcile_day, snapshot_of
from vibes_pipelines.stages.tribe_messages import Applied, apply_messages
from vibes_pipelines.store.full_syncs import OPEN_STATES, FullSync, FullSyncs, Phase, State
from vibes_pipelines.store.kept_lease import kept_lease
from vibes_pipelines.store.records import OperationCount

CHECK_S = 0.25
"""How often a running sync looks whether it is to stop; it notes its progress as often."""

Tell = Callable[[str], None]


class SyncCancelled(Exception):  # noqa: N818 - it is no error
    """Somebody cancelled the full sync; the message is their reason."""


class NothingToResume(ValueError):  # noqa: N818 - the name says what is wrong
    """No full sync of today was cut, cancelled, held or failed."""


class MappedOtherwise(NothingToResume):
    """sync.yaml changed since the full sync began: what is left of it is not what it says now."""


@dataclass(frozen=True)
class Results:
    """What a full sync came to. `failed` counts by error class; `skipped`: outside conditions.

    `wanted` is what the diff set asks for, whether or not it went out: what an approval is about.
    `withdrawn` is what the last look kept back this time.

    `values_left_out` no attribute can hold; `profiles_unread` are locked or could not be read. Both
    are the rejects of what was landed.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    quarantined: int = 0
    opted_in: int = 0
    opted_out: int = 0
    labels_removed: int = 0
    deleted: int = 0
    withdrawn: int = 0
    wanted: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    merges: Mapping[str, int] = field(default_factory=dict)
    values_left_out: int = 0
    profiles_unread: int = 0
    diff_set: str | None = None

    def to_document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "wanted": dict(self.wanted),
            "failed": dict(self.failed),
            "held": dict(self.held),
            "merges": dict(self.merges),
        }


@dataclass(frozen=True)
class Ended:
    """A full sync and how it ended."""

    sync_id: str
    day: str
    state: State
    results: Results
    reason: str | None = None
    messages: Applied | None = None

    @property
    def sentence(self) -> str:
        """One line for the log."""
        names = ("created", "updated", "unchanged", "skipped", "opted_in", "opted_out")
        counts = ", ".join(f"{name} {getattr(self.results, name)}" for name in names)
        failed = sum(self.results.failed.values())
        if self.state == "held":
            wanted = ", ".join(f"{n} {rows}" for n, rows in self.results.wanted.items())
            counts = f"wanted: {wanted}; so far {counts}"
        why = f" ({self.reason})" if self.reason else ""
        applied = f"; messages after it: {self.messages.sentence}" if self.messages else ""
        return f"{self.state}: {counts}, failed {failed}{why}{applied}"


def full_sync(
    sync: ApsisSync, *, resume: bool = False, dry_run: bool = False, tell: Tell | None = None
) -> Ended:
    """Runs a full sync to its end, or the rest of the newest one with `resume`.

    A dry run reads both sides and makes the diff set, and writes to neither. A guard, a first run
    and a changed mapping hold what they hold until somebody approves; then `resume` sends it.

    Raises:
        LaneBusy: a full sync runs already, or messages are being applied.
        NothingToResume: there is none to take up.
        MappedOtherwise: fields, consents, the place or conditions changed since it began.
        TribeError, CrmError, ApsisError, PushError: a side is away or refuses; `resume` later.
    """
    project = sync.project
    with (
        no_erasure(project.settings),
        closing(FullSyncs(project.settings.ledger_url, sync.now)) as book,
        kept_lease(project.ledger, LEASE),
    ):
        record = _taken_up(sync, book) if resume else book.begin(sync.today())
        running = _Running(sync, book, record, tell or (lambda _: None))
        ended = running.run(dry_run=dry_run)
    if dry_run:
        return ended  # messages are written as well; they wait on
    # The lease is given back by now; what came in meanwhile was waiting for that.
    return replace(ended, messages=apply_messages(sync))


def cancel(sync: ApsisSync, reason: str) -> FullSync | None:
    """Asks the running full sync to stop; returns it, or None when none runs."""
    with closing(FullSyncs(sync.project.settings.ledger_url, sync.now)) as book:
        newest = book.newest()
        if newest is None or not is_running(sync):
            return None
        book.cancel(newest.sync_id, reason)
        return newest


def is_running(sync: ApsisSync) -> bool:
    """Whether a full sync, or a drain of messages, holds the lease."""
    return bool(sync.project.ledger.live_leases([LEASE]))


def full_syncs(sync: ApsisSync, limit: int = 10) -> list[FullSync]:
    """The newest full syncs first."""
    with closing(FullSyncs(sync.project.settings.ledger_url, sync.now)) as book:
        return book.all(limit)


def _taken_up(sync: ApsisSync, book: FullSyncs) -> FullSync:
    newest = book.newest()
    if newest is None or newest.state not in OPEN_STATES or newest.day != sync.today():
        msg = "no full sync of today waits to be taken up; start a new one"
        raise NothingToResume(msg)
    if changed := changed_since_begun(sync, newest):
        msg = (
            f"sync.yaml says otherwise since this full sync began: {', '.join(changed)} of"
            " destinations.apsis; nothing of the rest was sent. Start a new full sync"
        )
        raise MappedOtherwise(msg)
    book.resume(newest.sync_id)
    return replace(newest, progress={**newest.progress, TAKEN_UP: True})


class _Running:
    """One full sync in progress."""

    def __init__(self, sync: ApsisSync, book: FullSyncs, record: FullSync, tell: Tell) -> None:
        self._sync = sync
        self._book = book
        self._record = record
        self._tell = tell
        self._phase: Phase = record.phase
        self._progress: dict[str, Any] = dict(record.progress)
        # Of a sync that is taken up they stay: they tell what its diff set was made by.
        self._progress.setdefault("config", config_marks(sync.project.config, sync.section))
        self._checked_at = 0.0

    def run(self, *, dry_run: bool) -> Ended:
        """Every phase that is left."""
        try:
            self._retire()
            diff_set = self._open_diff_set() or self._compared()
            if dry_run:
                return self._end("held", "dry run: nothing was written; a full sync sends it")
            self._enter("write")
            written = deliver(self._sync, diff_set, self._record.day, self._on_progress)
            merges = self._merge()
        except SyncCancelled as cancelled:
            return self._end("cancelled", str(cancelled))
        except Exception:
            self._end("failed", "see its error; cure it, then resume it or run another")
            raise
        except BaseException:  # somebody stopped the process, or its run
            self._end("cancelled", "the process was stopped")
            raise
        return self._ended(written, merges)

    def _retire(self) -> None:
        """Once a sync, and whole: half of what an earlier one landed is nothing to build on."""
        if not self._progress.get("retired"):
            retire(self._sync, self._record.day)
            self._progress["retired"] = True
            self._check(at_once=True)

    def _compared(self) -> str:
        """The diff set; wrong names are told all at once, instead of one a run.

        Raises:
            ApsisSetupError: what either side has not, where it is more than what stopped it.
        """
        try:
            return self._compare()
        except OF_NAMES as first:
            missing = all_missing(self._sync)
            if not missing or (len(missing) == 1 and missing[0] == str(first)):
                raise
            raise ApsisSetupError("; ".join(missing)) from first

    def _compare(self) -> str:
        day = self._record.day
        self._enter("download")
        contacts = land_contacts_of(self._sync, day, self._check)
        self._progress["contacts"] = contacts.manifest.rows
        self._progress["values_left_out"] = contacts.manifest.rejected
        self._enter("read_back")
        profiles = land_profiles(self._sync, day, contacts, self._check)
        self._progress["profiles"] = profiles.manifest.rows
        reads = newest_reads(self._sync, day)
        self._progress["profiles_unread"] = reads.manifest.rejected if reads else 0
        self._enter("reconcile")
        certify_day(self._sync.project, day)
        diff_set = reconcile_day(self._sync.project, day).diff_set
        self._progress["diff_set"] = diff_set
        self._progress["deletes"] = self._deletes(day)
        self._check(at_once=True)
        return diff_set

    def _deletes(self, day: str) -> int:
        """Profiles that the diff set wants deleted; no count of its summary tells them."""
        changes = self._sync.project.diff_set_folder(day) / "person_changes.parquet"
        is_delete = [("operation", "=", "delete")]
        return int(pq.read_table(changes, columns=["operation"], filters=is_delete).num_rows)

    def _open_diff_set(self) -> str | None:
        """The diff set of a sync that is taken up, where it is still the newest and open."""
        made = self._progress.get("diff_set")
        newest = self._sync.project.ledger.newest_diff_set()
        if made and newest and newest.diff_set == made and newest.status == "open":
            return newest.diff_set
        return None

    def _merge(self) -> dict[str, int]:
        """Profiles by what became of them, where sync.yaml wants them merged."""
        sync = self._sync
        if not sync.section.merge_same_email:
            return {}
        contacts = snapshot_of(
            sync.project, sync.project.destination.feeds.contacts, self._record.day
        )
        return dict(merge_same_email(sync, self._record.sync_id, contacts.data))

    def _ended(self, written: Written, merges: dict[str, int]) -> Ended:
        self._progress["merges"] = merges
        if written.held:
            return self._end("held", "; ".join(dict.fromkeys(written.held.values())), written)
        if written.unknown:
            reason = f"{written.unknown} operations got no answer; `resume` sends them again"
            return self._end("failed", reason, written)
        return self._end("finished", None, written)

    def _end(self, state: State, reason: str | None, written: Written | None = None) -> Ended:
        results = self._results(written)
        document = {**self._progress, "results": results.to_document(), "reason": reason}
        self._book.finish(self._record.sync_id, state, document)
        ended = Ended(self._record.sync_id, self._record.day, state, results, reason)
        self._tell(ended.sentence)
        return ended

    def _results(self, written: Written | None) -> Results:
        diff_set = self._progress.get("diff_set")
        if diff_set is None:
            return Results()
        record = self._sync.project.ledger.diff_set(diff_set)
        summary = record.summary if record else {}
        found = read_results(
            diff_set,
            self._sync.project.ledger.operation_counts(diff_set),
            summary,
            {str(lane): why for lane, why in written.held.items()} if written else {},
        )
        return replace(
            found,
            wanted={**found.wanted, "delete": self._progress.get("deletes", 0)},
            withdrawn=written.withdrawn if written else 0,
            merges=self._progress.get("merges", {}),
            values_left_out=self._progress.get("values_left_out", 0),
            profiles_unread=self._progress.get("profiles_unread", 0),
        )

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._tell(f"full sync {self._record.sync_id}: {phase}")
        self._check(at_once=True)

    def _on_progress(self, done: int) -> None:
        self._progress["written"] = done
        self._check()

    def _check(self, *, at_once: bool = False) -> None:
        """Notes the progress, and stops where somebody asked for it."""
        if not at_once and time.monotonic() - self._checked_at < CHECK_S:
            return
        self._checked_at = time.monotonic()
        sync_id = self._record.sync_id
        self._book.note(sync_id, phase=self._phase, progress=self._progress)
        if reason := self._book.cancel_reason(sync_id):
            raise SyncCancelled(reason)


_WANTED = {
    "create": "added",
    "update": "updated",
    "opt_in": "invites",
    "opt_out": "opt_outs_to_platform",
    "remove_label": "opt_outs_to_crm",
}
"""What a diff set asks for: the word of the results, and the count of its summary."""


def read_results(
    diff_set: str,
    counted: list[OperationCount],
    summary: Mapping[str, Any],
    held: Mapping[str, str],
) -> Results:
    """The results of a diff set as far as it has gone out."""
    accepted: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for one in counted:
        if one.status == "accepted":
            accepted[one.kind] += one.rows
        elif one.status in {"rejected", "unknown"}:
            failed[one.error_class or one.status] += one.rows
    return Results(
        created=accepted["add"],
        updated=accepted["update"],
        unchanged=int(summary.get("unchanged", 0)),
        skipped=int(summary.get("filtered", 0)),
        quarantined=int(summary.get("quarantined", 0)),
        opted_in=accepted["opt_in"],
        opted_out=accepted["opt_out"],
        labels_removed=accepted["crm_opt_out"],
        deleted=accepted["delete"],
        wanted={name: int(summary.get(key, 0)) for name, key in _WANTED.items()},
        failed=dict(sorted(failed.items())),
        held=held,
        diff_set=diff_set,
    )
