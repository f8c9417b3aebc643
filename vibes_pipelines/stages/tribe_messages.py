"""Messages of Tribe, applied to APSIS One: each person is read anew, compared, and written.

A message only says who changed. While a full sync runs messages wait, and are applied after it in
the order in which they came; of several about one person the newest state counts, which is read.
Whatever is left undone is the next full sync's: it compares everybody.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

from vibes_pipelines.delivery.intents import (
    Origin,
    evidence_at,
    opt_in_intents,
    opt_out_intents,
    person_intents,
)
from vibes_pipelines.delivery.ports import CrmOptOut, OperationSender
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.reconcile.engine import Limits
from vibes_pipelines.reconcile.guards import Workload, check_guards, held_lanes
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.stages.apsis_contacts import write_contacts
from vibes_pipelines.stages.apsis_delivering import note_removed
from vibes_pipelines.stages.apsis_known import NEVER, write_consents, write_profiles, write_reads
from vibes_pipelines.stages.apsis_landing import managed, newest_reads, read_now
from vibes_pipelines.stages.apsis_last_look import no_longer_opted_in
from vibes_pipelines.stages.apsis_sync import LEASE, ApsisSync
from vibes_pipelines.stages.crm_side import copy_crm_contacts, crm_writer
from vibes_pipelines.stages.erase_lock import no_erasure
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.kept_out import without_erased
from vibes_pipelines.stages.tribe_keys import contact_keys
from vibes_pipelines.store.inbox import Finished, Inbox, StoredCallback
from vibes_pipelines.store.kept_lease import kept_lease
from vibes_pipelines.store.leases import LaneBusy
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines.tribe.webhooks import EVENT_TYPES

PAGE_ROWS = 200
"""Persons compared at once."""

CONCURRENCY = 16

GONE = "the person is not in Tribe, has no contacts.key or was erased; the profile stays as it is"
NOBODY = "the message names no person; the next full sync compares everybody"
UNHEARD = (
    "APSIS One took an opt-out or showed a profile not now; the message waits for the next time"
)
LEFT_OUT = "values that no attribute can hold were left out; the next full sync lists them"
APPLIED = "the person was compared"


@dataclass(frozen=True)
class Applied:
    """What became of the messages; `waiting` ones stay, and `why` says what they wait for."""

    messages: int = 0
    persons: int = 0
    ignored: int = 0
    waiting: int = 0
    accepted: int = 0
    rejected: int = 0
    unknown: int = 0
    left_to_full_sync: int = 0
    why: tuple[str, ...] = ()
    error_classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """One line for the log."""
        names = ("messages", "persons", "accepted", "rejected", "unknown", "ignored", "waiting")
        counts = ", ".join(f"{name} {getattr(self, name)}" for name in names)
        why = f" ({'; '.join(self.why)})" if self.why else ""
        return f"{counts}{why}"


def messages_waiting(sync: ApsisSync) -> list[StoredCallback]:
    """The messages of Tribe that nobody acted on yet, the oldest first."""
    with closing(Inbox(sync.project.settings.inbox_url)) as inbox:
        return sorted(inbox.stored(EVENT_TYPES), key=lambda message: message.id)


def why_held(sync: ApsisSync) -> str | None:
    """Why no message may be applied yet; None when they may."""
    ledger = sync.project.ledger
    newest = ledger.newest_diff_set()
    agreed = newest if newest and newest.approved_reason else ledger.last_delivered()
    if agreed is None:
        return "no full sync was approved yet; run one"
    if agreed.mapping_hash != sync.project.config.mapping_hash:
        return "fields or consents are mapped otherwise since the last full sync; run one"
    return None


def apply_messages(sync: ApsisSync) -> Applied:
    """Applies every message that waits, unless a full sync runs or must run first.

    Raises:
        TribeError, CrmError, ApsisError, PushError: a side is away or refuses; what was not
            finished waits.
    """
    waiting = messages_waiting(sync)
    if reason := why_held(sync):
        return Applied(waiting=len(waiting), why=(reason,))
    try:
        with no_erasure(sync.project.settings), kept_lease(sync.project.ledger, LEASE):
            return _Applying(sync).run(waiting)
    except LaneBusy:
        return Applied(waiting=len(waiting), why=("a full sync runs; they are applied after it",))


class _Applying:
    """One drain: pages of messages, each compared, written down, then sent."""

    def __init__(self, sync: ApsisSync) -> None:
        self._sync = sync
        self._today = sync.today()
        self._counts: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        self._why: dict[str, None] = {}
        self._unheard: set[str] = set()

    def run(self, waiting: Sequence[StoredCallback]) -> Applied:
        url = self._sync.project.settings
        with (
            closing(Inbox(url.inbox_url, self._sync.now)) as inbox,
            closing(RealtimeBook(url.ledger_url, self._sync.now)) as book,
        ):
            self._take_up(book)
            for page in _pages(waiting):
                inbox.finish(self._page(book, page))
        return Applied(
            **self._counts, why=tuple(self._why), error_classes=dict(sorted(self._classes.items()))
        )

    def _take_up(self, book: RealtimeBook) -> None:
        """What a cut drain left is compared anew: what had its effect is seen then."""
        unfinished = book.unfinished()
        if not unfinished:
            return
        contacts = {one.external_person_id for one in unfinished if one.external_person_id}
        self._carry(book, sorted(contacts))
        book.withdraw([operation.operation_id for operation in unfinished])

    def _page(self, book: RealtimeBook, page: Sequence[StoredCallback]) -> list[Finished]:
        named = dict.fromkeys(m.external_person_id for m in page if m.external_person_id)
        keys = contact_keys(self._sync.landing_project, list(named))
        here = {*without_erased(self._sync.project.settings, set(keys.values()))}
        keys = {person: key for person, key in keys.items() if key in here}
        self._unheard = set()
        present = self._carry(book, list(dict.fromkeys(keys.values())))
        ending = [m for m in page if keys.get(m.external_person_id or "") not in self._unheard]
        ended = [_ended(message, keys, present) for message in ending]
        self._counts["messages"] += len(ended)
        self._counts["ignored"] += sum(one.status == "ignored" for one in ended)
        if waiting := len(page) - len(ended):
            self._counts["waiting"] += waiting
            self._why[UNHEARD] = None
        return ended

    def _carry(self, book: RealtimeBook, contacts: Sequence[str]) -> frozenset[str]:
        """Compares these contacts with their profiles and sends what differs."""
        if not contacts:
            return frozenset()
        self._counts["persons"] += len(contacts)
        name = f"messages {self._sync.now().isoformat()}"
        operations, present = self._compared(contacts, name)
        leaving = [
            replace(one, day=self._today, route_reason="in real time")
            for one in self._within_guards(book, operations)
        ]
        book.plan(leaving)
        for lane_and_route in (
            ("opt_outs", "api"),
            ("opt_outs", "crm"),
            ("persons", "api"),
            ("invites", "api"),
        ):
            chosen = [one for one in leaving if (one.lane, one.route) == lane_and_route]
            if gone := no_longer_opted_in(self._sync, chosen):
                book.withdraw(gone)
                chosen = [one for one in chosen if one.operation_id not in gone]
            if chosen:
                book.mark_sent([one.operation_id for one in chosen])
                receipts, overtaken = self._send(chosen)
                book.record(receipts)
                book.withdraw(overtaken)
                self._unheard |= _turned_away(chosen, receipts)
                self._counts.update(taken.status for taken in receipts)
                self._classes.update(r.error_class for r in receipts if r.error_class)
        return present

    def _compared(
        self, contacts: Collection[str], name: str
    ) -> tuple[list[Operation], frozenset[str]]:
        sync, project = self._sync, self._sync.project
        with tempfile.TemporaryDirectory(prefix="messages-") as workspace:
            folder = Path(workspace)
            paths = {n: folder / f"{n}.parquet" for n in ("raw", "contacts", "reads")}
            looked_at = sync.now()
            copy_crm_contacts(sync.landing_project, paths["raw"], contacts)
            left_out = write_contacts(
                project.config,
                sync.section,
                paths["raw"],
                paths["contacts"],
                looked_at=looked_at,
                ledger_url=project.settings.ledger_url,
            )
            if left_out:
                self._why[LEFT_OUT] = None
            found = run_until_interrupted(read_now(sync, contacts))
            self._unheard |= {one.key for one in found if one.read_at == NEVER}
            write_reads(None, found, paths["reads"])
            write_profiles(sync.section, paths["reads"], folder / "persons.parquet")
            consents = folder / "subscriptions.parquet"
            write_consents(paths["reads"], managed(sync), consents)
            inputs = Inputs(
                contacts=paths["contacts"],
                persons=folder / "persons.parquet",
                subscriptions=(consents,),
                as_of=sync.now(),
                relative_guards=False,
                destination=project.destination,
            )
            reconcile(project.config, inputs, folder / "out", Limits(threads=1))
            origin = Origin(name, self._today, looked_at, folder / "out")
            return list(_intents(origin)), _keys(sync, paths["contacts"])

    def _within_guards(
        self, book: RealtimeBook, operations: Sequence[Operation]
    ) -> Iterator[Operation]:
        """What the caps let pass today, what was sent before included."""
        before, kinds = book.counts(self._today), Counter(one.kind for one in operations)
        reads = newest_reads(self._sync)
        size = reads.manifest.rows if reads else 0
        clears = sum(any(c.action == "clear" for c in one.changes) for one in operations)
        work = Workload(
            contacts=size,
            persons=size,
            adds=before.get("add", 0) + kinds["add"],
            updates=before.get("update", 0) + kinds["update"],
            clears=book.clears(self._today) + clears,
            crm_updates=0,
            crm_clears=0,
            opt_outs_to_platform=before.get("opt_out", 0) + kinds["opt_out"],
            opt_outs_to_crm=before.get("crm_opt_out", 0) + kinds["crm_opt_out"],
            invites=before.get("opt_in", 0) + kinds["opt_in"],
        )
        guards = self._sync.project.config.guards
        breaches = check_guards(guards, work, None, relative=True)
        held = held_lanes(breaches)
        for operation in operations:
            if operation.lane in held:
                self._counts["left_to_full_sync"] += 1
            else:
                yield operation
        self._why |= dict.fromkeys(breach.message for breach in breaches)

    def _send(self, operations: Sequence[Operation]) -> tuple[list[Receipt], list[str]]:
        if operations[0].route == "crm":
            return self._write_back(operations), []
        return run_until_interrupted(self._push(operations))

    async def _push(self, operations: Sequence[Operation]) -> tuple[list[Receipt], list[str]]:
        # The HTTP client is slow to import; a process that asks nobody does without it.
        from vibes_pipelines.delivery.apsis_sends import ApsisSender  # noqa: PLC0415

        gate = asyncio.Semaphore(CONCURRENCY)

        async def one(sender: OperationSender, operation: Operation) -> Receipt | str:
            async with gate:
                if await sender.overtaken(operation):
                    return operation.operation_id
                answer = await sender.send(operation)
            return receipt(
                operation.operation_id,
                answer.outcome,
                answer.error_class,
                answer.message,
                retry_later=sender.may_retry(answer),
            )

        async with self._sync.client() as client:
            sender = ApsisSender(client, self._sync.types)
            ended = await asyncio.gather(*(one(sender, operation) for operation in operations))
        receipts = [found for found in ended if isinstance(found, Receipt)]
        return receipts, [found for found in ended if isinstance(found, str)]

    def _write_back(self, operations: Sequence[Operation]) -> list[Receipt]:
        rows = [
            CrmOptOut(
                one.external_person_id or "", one.subscription_list_id or "", evidence_at(one)
            )
            for one in operations
        ]
        answers = crm_writer(self._sync.landing_project).apply_opt_outs(rows)
        pairs = list(zip(operations, answers, strict=True))
        note_removed(self._sync, [one for one, answer in pairs if answer.outcome == "accepted"])
        return [
            receipt(one.operation_id, answer.outcome, answer.error_class) for one, answer in pairs
        ]


def _intents(origin: Origin) -> Iterator[Operation]:
    yield from opt_out_intents(origin)
    yield from person_intents(origin)
    yield from opt_in_intents(origin)


def _keys(sync: ApsisSync, contacts: Path) -> frozenset[str]:
    key = sync.project.config.contacts.key
    return frozenset(filter(None, pq.read_table(contacts, columns=[key])[key].to_pylist()))


def _turned_away(operations: Sequence[Operation], receipts: Sequence[Receipt]) -> set[str]:
    """The contacts whose opt-out the other side did not take, and may take later."""
    contacts = {o.operation_id: o.external_person_id for o in operations if o.lane == "opt_outs"}
    later = {r.operation_id for r in receipts if r.status == "unknown" or r.retry_later}
    return {contact for one, contact in contacts.items() if contact and one in later}


def _pages(waiting: Sequence[StoredCallback]) -> Iterator[list[StoredCallback]]:
    """All messages about a person together, those of the newest first.

    The person is compared as it is now, whatever the order; those who wait on hold up nobody else.
    """
    about: dict[str | None, list[StoredCallback]] = {}
    for message in reversed(waiting):
        about.setdefault(message.external_person_id, []).append(message)
    for persons in chunks(list(about.values()), PAGE_ROWS):
        yield [message for messages in persons for message in messages]


def _ended(message: StoredCallback, keys: Mapping[str, str], present: frozenset[str]) -> Finished:
    person = message.external_person_id
    if person is None:
        return Finished(message.id, "ignored", NOBODY)
    if keys.get(person) not in present:
        return Finished(message.id, "ignored", GONE)
    return Finished(message.id, "applied", APPLIED)
