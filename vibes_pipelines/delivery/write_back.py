"""Carries write-backs to the CRM: opt-outs in their own lane, then fields. Same states as a push.

The CRM's side is idempotent and one transaction per call, so a call that was cut is made again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from vibes_pipelines.delivery.intents import evidence_at
from vibes_pipelines.delivery.ports import CrmAnswer, CrmFieldChange, CrmOptOut, CrmWriter
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.leases import Lease
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.records import Operation, Receipt

CHUNK_ROWS = 1_000
"""Operations per transaction of the CRM."""

LEASE = timedelta(minutes=10)
"""Longer than one transaction of the CRM may take; renewed before each."""


class WriteBackError(RuntimeError):
    """The CRM's answers do not fit the rows it was given, or an operation names no contact."""


@dataclass(frozen=True)
class WriteBackResult:
    """Operations by what became of them. In a dry run only `planned` counts."""

    planned: int = 0
    accepted: int = 0
    rejected: int = 0
    repeated: int = 0
    error_classes: dict[str, int] = field(default_factory=dict)


def write_back(
    operations: Iterable[Operation], crm: CrmWriter, ledger: Ledger, *, dry_run: bool = True
) -> WriteBackResult:
    """Carries operations of the CRM route, as `Ledger.open_operations` gives them.

    Raises:
        WriteBackError: the CRM answered another number of rows than it was given.
        LaneBusy: another process writes to the CRM; nothing was written.
        LeaseLost: one transaction took so long that another process took over.
    """
    if dry_run:
        return WriteBackResult(planned=sum(1 for _ in operations))
    lease = ledger.take_lease("crm", LEASE)
    try:
        return _write(operations, crm, ledger, lease)
    finally:
        ledger.give_lease_back(lease)


def _write(
    operations: Iterable[Operation], crm: CrmWriter, ledger: Ledger, lease: Lease
) -> WriteBackResult:
    counts: Counter[str] = Counter()
    error_classes: Counter[str] = Counter()
    repeated = 0
    for chunk in chunks(operations, CHUNK_ROWS):
        ledger.renew_lease(lease)
        ledger.mark_sent([operation.operation_id for operation in chunk])
        receipts = _carry(chunk, crm)
        ledger.record(receipts, chunk[0].day)
        counts.update(taken.status for taken in receipts)
        error_classes.update(taken.error_class for taken in receipts if taken.error_class)
        repeated += sum(operation.attempts > 0 for operation in chunk)
    return WriteBackResult(
        planned=counts.total(),
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        repeated=repeated,
        error_classes=dict(sorted(error_classes.items())),
    )


def _carry(operations: Sequence[Operation], crm: CrmWriter) -> list[Receipt]:
    opt_outs = [operation for operation in operations if operation.kind == "crm_opt_out"]
    updates = [operation for operation in operations if operation.kind == "crm_update"]
    return [*_carry_opt_outs(opt_outs, crm), *_carry_fields(updates, crm)]


def _carry_opt_outs(operations: Sequence[Operation], crm: CrmWriter) -> list[Receipt]:
    rows = [
        CrmOptOut(_contact(operation), operation.subscription_list_id or "", evidence_at(operation))
        for operation in operations
    ]
    answers = _answers(crm.apply_opt_outs(rows), len(rows)) if rows else []
    return [_receipt(op, [answer]) for op, answer in zip(operations, answers, strict=True)]


def _carry_fields(operations: Sequence[Operation], crm: CrmWriter) -> list[Receipt]:
    rows = [
        CrmFieldChange(_contact(operation), change.field, change.after, change.before)
        for operation in operations
        for change in operation.changes
    ]
    answers = iter(_answers(crm.apply_fields(rows), len(rows)) if rows else [])
    return [_receipt(op, [next(answers) for _ in op.changes]) for op in operations]


def _receipt(operation: Operation, answers: Sequence[CrmAnswer]) -> Receipt:
    """A contact's operation is accepted when each of its rows is."""
    refused = next((answer for answer in answers if answer.outcome != "accepted"), None)
    if refused is None:
        return receipt(operation.operation_id, "accepted")
    return receipt(operation.operation_id, "rejected", refused.error_class)


def _answers(answers: Sequence[CrmAnswer], rows: int) -> Sequence[CrmAnswer]:
    if len(answers) != rows:
        raise WriteBackError(f"the CRM answered {len(answers)} of {rows} rows; run it again")
    return answers


def _contact(operation: Operation) -> str:
    if operation.external_person_id is None:
        raise WriteBackError(
            f"operation {operation.operation_id} names no contact; rebuild the diff set"
        )
    return operation.external_person_id
