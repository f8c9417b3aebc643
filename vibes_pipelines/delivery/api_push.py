"""Pushes operations to the platform's API: intent first, then the call, then the receipt.

The ledger knows of every send before it starts, so that a push killed at any point can run again:
every kind sent here is idempotent, and a second send of the same is counted as a repeat.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vibes_pipelines.delivery.ports import PersonWriter, WriteAnswer
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.bodies import person_body
from vibes_pipelines.vibes.person_api import VibesAuthError

CONCURRENCY = 32
"""Requests in flight at once."""

INTENT_ROWS = 500
"""Operations marked as sent in one write to the ledger, ahead of their requests."""

RECEIPT_ROWS = 200
"""Receipts gathered for one write to the ledger; a kill repeats at most these, harmlessly."""

Progress = Callable[[int], None]
"""Told how many operations have been answered so far."""


class PushError(ValueError):
    """An operation cannot be sent by API; the message says which and why."""


@dataclass(frozen=True)
class PushResult:
    """Operations by what became of them. In a dry run only `planned` counts: what would be sent.

    `repeated` are those among the answered that had been sent before, by a run that was cut.
    `error_classes` counts the rejected and the unknown.
    """

    planned: int = 0
    accepted: int = 0
    rejected: int = 0
    unknown: int = 0
    repeated: int = 0
    error_classes: Mapping[str, int] = field(default_factory=dict)


async def push(
    operations: Iterable[Operation],
    api: PersonWriter,
    ledger: Ledger,
    types: Mapping[str, FieldType],
    *,
    dry_run: bool = True,
    on_progress: Progress | None = None,
) -> PushResult:
    """Sends operations of the API route, as `Ledger.open_operations` gives them.

    Raises:
        VibesAuthError: the platform refuses the credentials. Operations not sent stay planned.
        PushError: an operation that the API cannot carry.
    """
    if dry_run:
        return PushResult(planned=sum(1 for _ in operations))
    running = _Push(api, ledger, types, on_progress)
    await running.run(operations)
    counts = running.counts
    return PushResult(
        planned=counts.total(),
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        unknown=counts["unknown"],
        repeated=running.repeated,
        error_classes=dict(sorted(running.error_classes.items())),
    )


class _Push:
    """One push in progress: workers share one stream of operations already marked as sent."""

    def __init__(
        self,
        api: PersonWriter,
        ledger: Ledger,
        types: Mapping[str, FieldType],
        on_progress: Progress | None,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._types = types
        self._on_progress = on_progress
        self._stopped = False
        self._certainly_not_sent: set[str] = set()
        self._receipts: dict[str, list[Receipt]] = {}
        self.counts: Counter[str] = Counter()
        self.error_classes: Counter[str] = Counter()
        self.repeated = 0

    async def run(self, operations: Iterable[Operation]) -> None:
        """Sends all of them; after a failure none is begun any more, and the first is raised."""
        marked = self._marked(operations)
        try:
            workers = (self._work(marked) for _ in range(CONCURRENCY))
            ends = await asyncio.gather(*workers, return_exceptions=True)
        finally:
            self._flush()
            self._ledger.take_back(self._certainly_not_sent)
        for end in ends:
            if end is not None:
                raise end

    def _marked(self, operations: Iterable[Operation]) -> Iterator[Operation]:
        for chunk in chunks(operations, INTENT_ROWS):
            ids = [operation.operation_id for operation in chunk]
            self._ledger.mark_sent(ids)
            self._certainly_not_sent.update(ids)
            yield from chunk

    async def _work(self, marked: Iterator[Operation]) -> None:
        try:
            while not self._stopped and (operation := next(marked, None)) is not None:
                await self._carry(operation)
        except BaseException:
            self._stopped = True
            raise

    async def _carry(self, operation: Operation) -> None:
        self._certainly_not_sent.discard(operation.operation_id)
        try:
            answer = await self._send(operation)
        except (VibesAuthError, PushError):
            self._certainly_not_sent.add(operation.operation_id)
            raise
        self._take(operation, answer)

    async def _send(self, operation: Operation) -> WriteAnswer:
        if operation.kind == "opt_out":
            return await self._unsubscribe(operation)
        if operation.touches("external_person_id"):
            return await self._adopt(operation)
        mdn = operation.mdn if operation.kind == "add" else None
        return await self._upsert(operation, mdn)

    async def _unsubscribe(self, operation: Operation) -> WriteAnswer:
        if operation.subscription_list_id is None:
            raise PushError(f"opt-out {operation.operation_id} names no list; rebuild the diff set")
        list_id = operation.subscription_list_id
        if operation.person_key is not None:
            return await self._api.unsubscribe(list_id, person_key=operation.person_key)
        external = operation.external_person_id
        return await self._api.unsubscribe(list_id, external_person_id=external)

    async def _adopt(self, operation: Operation) -> WriteAnswer:
        """Gives a person its external id; a person gone meanwhile is added instead."""
        if operation.person_key is None:
            raise PushError(
                f"operation {operation.operation_id} adopts a person but names no person_key; "
                "rebuild the diff set"
            )
        changes = [change.as_json() for change in operation.changes]
        answer = await self._api.update(operation.person_key, person_body(changes, self._types))
        if answer.status == 404:
            return await self._upsert(operation, operation.mdn)
        return answer

    async def _upsert(self, operation: Operation, mdn: str | None) -> WriteAnswer:
        if operation.external_person_id is None:
            raise PushError(
                f"operation {operation.operation_id} names no external_person_id; "
                "rebuild the diff set"
            )
        changes = [c.as_json() for c in operation.changes if c.field != "external_person_id"]
        body = person_body(changes, self._types, mdn=mdn)
        answer = await self._api.upsert(operation.external_person_id, body)
        if answer.status == 404 and answer.outcome == "rejected":
            # The documentation contradicts itself on updating an unknown external id.
            identified = {"external_person_id": operation.external_person_id, **body}
            return await self._api.add(identified)
        return answer

    def _take(self, operation: Operation, answer: WriteAnswer) -> None:
        taken = receipt(operation.operation_id, answer.outcome, answer.error_class, answer.message)
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
        for day, receipts in self._receipts.items():
            self._ledger.record(receipts, day)
        self._receipts = {}
