"""Pushes operations to the platform's API: intent first, then the call, then the receipt.

The ledger knows of every send before it starts, so that a push killed at any point can run again.
One process at a time pushes a lane. What each kind of operation sends is in `sends`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from vibes_pipelines.delivery.forbidden import Forbidden
from vibes_pipelines.delivery.lane_lease import PAUSE_S, LaneLease
from vibes_pipelines.delivery.ports import (
    ConsentWatch,
    Inviter,
    OperationSender,
    PersonWriter,
    WriteAnswer,
)
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.delivery.sends import PushError, Sender
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.records import Lane, Operation, Receipt
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.api_calls import Answer
from vibes_pipelines.vibes.api_transport import VibesAuthError, VibesForbidden

__all__ = ["PushError", "PushResult", "push"]

CONCURRENCY = 32
"""Requests in flight at once."""

INTENT_ROWS = 500
"""Operations marked as sent in one write to the ledger, ahead of their requests."""

INVITE_ROWS = 1
"""The same for invitations: consent is looked at again right before each of them leaves."""

OPT_IN_ROWS = 100
"""The same for opt-ins, which leave within seconds: so many the CRM can be asked about at once."""

RECEIPT_ROWS = 200
"""Receipts gathered for one write to the ledger; a kill repeats at most these, harmlessly."""

Progress = Callable[[int], None]
"""Told how many operations have been answered so far."""


@dataclass(frozen=True)
class PushResult:
    """Operations by what became of them. In a dry run only `planned` counts: what would be sent.

    `repeated` are those among the answered that had been sent before, by a run that was cut.
    `error_classes` counts the rejected and the unknown. `withdrawn` were not sent at all.
    """

    planned: int = 0
    accepted: int = 0
    rejected: int = 0
    unknown: int = 0
    repeated: int = 0
    error_classes: Mapping[str, int] = field(default_factory=dict)
    withdrawn: int = 0


async def push(
    operations: Iterable[Operation],
    api: PersonWriter,
    ledger: Ledger,
    types: Mapping[str, FieldType],
    *,
    campaigns: Inviter | None = None,
    consent: ConsentWatch | None = None,
    dry_run: bool = True,
    on_progress: Progress | None = None,
) -> PushResult:
    """Sends operations of the API route of one lane, as `Ledger.open_operations` gives them.

    `campaigns` and `consent` are needed for invitations.

    Raises:
        VibesAuthError: the platform refuses the credentials, or one person after the other for
            want of a right. Operations not sent stay planned.
        PushError: an operation that the API cannot carry.
        LaneBusy: another process pushes this lane; nothing was sent.
        LeaseLost: this process stood still for so long that another one took the lane over.
    """
    sender = Sender(api, types, campaigns)
    return await push_by(
        sender, operations, ledger, consent=consent, dry_run=dry_run, on_progress=on_progress
    )


async def push_by(
    sender: OperationSender,
    operations: Iterable[Operation],
    ledger: Ledger,
    *,
    consent: ConsentWatch | None = None,
    dry_run: bool = True,
    on_progress: Progress | None = None,
) -> PushResult:
    """The same by the sender of any destination; `on_progress` may raise to stop the push.

    Raises:
        PushError: what `sender` cannot carry, or a login that it is refused.
        LaneBusy: another process pushes this lane; nothing was sent.
        LeaseLost: this process stood still for so long that another one took the lane over.
    """
    if dry_run:
        return PushResult(planned=sum(1 for _ in operations))
    waiting = iter(operations)
    first = next(waiting, None)
    if first is None:
        return PushResult()
    if first.kind == "invite" and consent is None:
        raise PushError("invitations are not sent without a look at the callback inbox before")
    running = _Push(sender, ledger, first, consent, on_progress)
    await running.run(chain((first,), waiting))
    counts = running.counts
    return PushResult(
        planned=counts.total(),
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        unknown=counts["unknown"],
        repeated=running.repeated,
        error_classes=dict(sorted(running.error_classes.items())),
        withdrawn=running.withdrawn,
    )


class _Push:
    """One push in progress: workers share one stream of operations already marked as sent."""

    def __init__(
        self,
        sender: OperationSender,
        ledger: Ledger,
        first: Operation,
        consent: ConsentWatch | None,
        on_progress: Progress | None,
    ) -> None:
        self._sender = sender
        self._ledger = ledger
        self._lane: Lane = first.lane
        self._intent_rows = {"invite": INVITE_ROWS, "opt_in": OPT_IN_ROWS}.get(
            first.kind, INTENT_ROWS
        )
        self._consent = consent
        self._on_progress = on_progress
        self._stopped = False
        self._certainly_not_sent: set[str] = set()
        self._forbidden = Forbidden()
        self._receipts: dict[str, list[Receipt]] = {}
        self.counts: Counter[str] = Counter()
        self.error_classes: Counter[str] = Counter()
        self.repeated = 0
        self.withdrawn = 0

    async def run(self, operations: Iterable[Operation]) -> None:
        """Sends all of them; after a failure none is begun any more, and the first is raised."""
        async with LaneLease(self._ledger, self._lane) as lease:
            marked = self._marked(operations)
            try:
                workers = (self._work(marked, lease) for _ in range(CONCURRENCY))
                ends = await asyncio.gather(*workers, return_exceptions=True)
            finally:
                self._decide_on_forbidden()
                self._flush()
                if lease.is_held:  # else they may be another process's by now
                    self._ledger.take_back(self._certainly_not_sent)
        for end in ends:
            if end is not None:
                raise end

    def _marked(self, operations: Iterable[Operation]) -> Iterator[Operation]:
        for chunk in chunks(operations, self._intent_rows):
            leaving = self._without_withdrawn(chunk)
            ids = [operation.operation_id for operation in leaving]
            self._ledger.mark_sent(ids)
            self._certainly_not_sent.update(ids)
            yield from leaving

    def _without_withdrawn(self, chunk: Sequence[Operation]) -> list[Operation]:
        reasons = {} if self._consent is None else self._consent.withdrawn(chunk)
        if reasons:
            self._ledger.withdraw(reasons, chunk[0].day)
            self.withdrawn += len(reasons)
        return [operation for operation in chunk if operation.operation_id not in reasons]

    async def _work(self, marked: Iterator[Operation], lease: LaneLease) -> None:
        try:
            while not self._stopped:
                await self._let_go_first(lease)
                operation = next(marked, None)
                if operation is None:
                    return
                await self._carry(operation, lease)
        except BaseException:
            self._stopped = True
            raise

    async def _let_go_first(self, lease: LaneLease) -> None:
        """Stands still while opt-outs leave: they never wait behind anything else."""
        while lease.must_wait and not self._stopped:
            await asyncio.sleep(PAUSE_S)

    async def _carry(self, operation: Operation, lease: LaneLease) -> None:
        lease.require()
        if reason := await self._sender.overtaken(operation):
            self._certainly_not_sent.discard(operation.operation_id)
            self._ledger.withdraw({operation.operation_id: reason}, operation.day)
            self.withdrawn += 1
            return
        lease.require()
        self._certainly_not_sent.discard(operation.operation_id)
        try:
            answer = await self._sender.send(operation)
        except PushError:
            self._certainly_not_sent.add(operation.operation_id)
            raise
        except VibesAuthError as refused:
            self._take_refusal(operation, refused)
            return
        self._take(operation, answer)
        if answer.outcome == "accepted":
            self._decide_on_forbidden(was_accepted=True)

    def _take_refusal(self, operation: Operation, refused: VibesAuthError) -> None:
        """One person after the other without the right, or a refused login, ends the push."""
        is_of_record = isinstance(refused, VibesForbidden)
        if refused.in_doubt:
            answer = Answer(None, "unknown", refused.error_class, str(refused))
            self._take(operation, answer)
        elif is_of_record:
            self._forbidden.hold(operation, str(refused))
        else:
            self._certainly_not_sent.add(operation.operation_id)
        if not is_of_record or self._forbidden.is_everything:
            raise refused

    def _decide_on_forbidden(self, *, was_accepted: bool = False) -> None:
        """Those refused one by one are rejected; of a right that is missing none was sent."""
        is_right = self._forbidden.is_everything and not was_accepted
        for operation, message in self._forbidden.let_go():
            if is_right:
                self._certainly_not_sent.add(operation.operation_id)
            else:
                refused = Answer(403, "rejected", VibesForbidden.error_class, message)
                self._take(operation, refused)

    def _take(self, operation: Operation, answer: WriteAnswer) -> None:
        taken = receipt(
            operation.operation_id,
            answer.outcome,
            answer.error_class,
            answer.message,
            retry_later=self._sender.may_retry(answer),
        )
        self._receipts.setdefault(operation.day, []).append(taken)
        self.counts[taken.status] += 1
        if taken.error_class is not None:
            self.error_classes[taken.error_class] += 1
        self.repeated += operation.attempts > 0
        if self._on_progress is not None:
            self._on_progress(self.counts.total())
        if sum(map(len, self._receipts.values())) >= RECEIPT_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Writes the gathered receipts, each under the logical day of its operation."""
        for day in list(self._receipts):
            self._ledger.record(self._receipts[day], day)
            del self._receipts[day]
