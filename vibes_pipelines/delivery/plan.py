"""Plans a diff set: each change becomes one operation with its lane, road and place in a file.

Intents are written to the ledger in one transaction; nothing is sent here. Planning the same diff
set again changes nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from vibes_pipelines.delivery.deferrals import DEFERRABLE_KINDS, Deferrals
from vibes_pipelines.delivery.intents import (
    Origin,
    PlanError,
    crm_intents,
    opt_out_intents,
    person_intents,
)
from vibes_pipelines.delivery.routes import (
    Estimates,
    faster_road,
    file_columns,
    why_not_by_file,
)
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch, DiffSet, Operation
from vibes_pipelines.sync_config import FieldType, SyncConfig
from vibes_pipelines.vibes.person_import import SUFFIX

MAX_FILE_ROWS = 100_000
"""Rows per import file: what the documentation calls a comfortable file, for uploads by hand."""

Columns = tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What will be sent.

    `operations` counts by `lane/route/kind`; `reasons` counts by `lane/route: why this road`;
    `deferred` counts what is not sent today by `kind: why`.
    """

    diff_set: str
    day: str
    operations: Mapping[str, int]
    reasons: Mapping[str, int]
    deferred: Mapping[str, int]
    estimates: Mapping[str, float]
    batches: tuple[Batch, ...] = ()


def plan(
    diff_set: str,
    folder: Path,
    config: SyncConfig,
    ledger: Ledger,
    estimates: Estimates | None = None,
) -> Plan:
    """Plans the registered diff set whose files are in `folder`.

    Raises:
        PlanError: the diff set is not registered, or a file is missing or holds a change that no
            delivery carries.
    """
    record = _registered(ledger, diff_set)
    if ledger.plan(diff_set) is None:
        origin = Origin(diff_set, record.day, record.as_of, folder)
        draft = _Draft(origin, config, ledger, estimates or Estimates())
        ledger.write_plan(diff_set, draft.batches, draft.operations(), draft.document)
    return _written_plan(ledger, diff_set, record.day)


def preview(
    diff_set: str,
    folder: Path,
    config: SyncConfig,
    ledger: Ledger,
    estimates: Estimates | None = None,
) -> Plan:
    """What `plan` would write, and the written plan when there is one. Nothing is recorded.

    Raises:
        PlanError: as `plan`.
    """
    record = _registered(ledger, diff_set)
    if ledger.plan(diff_set) is not None:
        return _written_plan(ledger, diff_set, record.day)
    origin = Origin(diff_set, record.day, record.as_of, folder)
    draft = _Draft(origin, config, ledger, estimates or Estimates())
    for _ in draft.operations():
        pass  # only counted
    return Plan(diff_set, record.day, batches=tuple(draft.batches), **draft.document())


def _registered(ledger: Ledger, diff_set: str) -> DiffSet:
    record = ledger.diff_set(diff_set)
    if record is None:
        raise PlanError(f"diff set {diff_set} is not registered; register it, then plan")
    return record


def _written_plan(ledger: Ledger, diff_set: str, day: str) -> Plan:
    document = ledger.plan(diff_set)
    if document is None:
        raise PlanError(f"diff set {diff_set} has no plan; plan it first")
    return Plan(diff_set, day, batches=tuple(ledger.batches(diff_set=diff_set)), **document)


class _Draft:
    """A plan in the making: hands out its operations once and counts them meanwhile."""

    def __init__(
        self, origin: Origin, config: SyncConfig, ledger: Ledger, estimates: Estimates
    ) -> None:
        self._origin = origin
        self._types: Mapping[str, FieldType] = {field.to: field.type for field in config.fields}
        self._estimates = estimates
        self._deferrals = Deferrals(
            ledger.earlier_attempts(
                DEFERRABLE_KINDS, origin.day, _registered(ledger, origin.diff_set).config_hash
            ),
            origin.as_of,
            timedelta(hours=config.policies.visibility_lag_h),
        )
        rows = _count_file_rows(origin, self._types)
        self._road = faster_road(rows.total(), estimates)
        self._seats = _Seats(origin, rows if self._road.by_file else Counter())
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("operations", "reasons", "deferred")
        }

    @property
    def batches(self) -> list[Batch]:
        """The import files, planned before the first operation is handed out."""
        return self._seats.batches

    def operations(self) -> Iterator[Operation]:
        """Every operation of the diff set, routed and seated; opt-outs first."""
        for operation in self._routed():
            road = f"{operation.lane}/{operation.route}"
            self._counts["operations"][f"{road}/{operation.kind}"] += 1
            self._counts["reasons"][f"{road}: {operation.route_reason}"] += 1
            yield operation

    def document(self) -> dict[str, Any]:
        """What the ledger keeps of the plan; complete when every operation was handed out."""
        counts = {name: dict(sorted(c.items())) for name, c in self._counts.items()}
        return {**counts, "estimates": asdict(self._estimates)}

    def _routed(self) -> Iterator[Operation]:
        for intents in (opt_out_intents(self._origin), crm_intents(self._origin)):
            yield from self._not_deferred(intents)
        for operation in person_intents(self._origin):
            yield self._on_its_road(operation)

    def _not_deferred(self, intents: Iterator[Operation]) -> Iterator[Operation]:
        for operation in intents:
            reason = self._deferrals.why_deferred(operation)
            if reason is None:
                yield operation
            else:
                self._counts["deferred"][f"{operation.kind}: {reason}"] += 1

    def _on_its_road(self, operation: Operation) -> Operation:
        reason = why_not_by_file(operation, self._types)
        if reason is not None:
            return replace(operation, route_reason=reason)
        operation = replace(operation, route_reason=self._road.reason)
        return self._seats.seat(operation) if self._road.by_file else operation


def _count_file_rows(origin: Origin, types: Mapping[str, FieldType]) -> Counter[Columns]:
    return Counter(
        file_columns(operation)
        for operation in person_intents(origin)
        if why_not_by_file(operation, types) is None
    )


class _Seats:
    """Import files and their rows: one group of files per set of columns, in a fixed order."""

    def __init__(self, origin: Origin, rows: Mapping[Columns, int]) -> None:
        self.batches: list[Batch] = []
        self._files: dict[Columns, list[Batch]] = {}
        self._taken: Counter[Columns] = Counter()
        for columns in sorted(rows):
            self._files[columns] = list(self._build(origin, rows[columns]))

    def seat(self, operation: Operation) -> Operation:
        """The operation with its file and row."""
        columns = file_columns(operation)
        file, row = divmod(self._taken[columns], MAX_FILE_ROWS)
        self._taken[columns] += 1
        batch = self._files[columns][file]
        return replace(operation, route="file", batch_id=batch.batch_id, row_number=row + 1)

    def _build(self, origin: Origin, rows: int) -> Iterator[Batch]:
        for start in range(0, rows, MAX_FILE_ROWS):
            number = len(self.batches) + 1
            batch_id = f"{origin.day}_{origin.diff_set[:12]}_{number:02d}"
            size = min(MAX_FILE_ROWS, rows - start)
            self.batches.append(Batch(batch_id, origin.diff_set, batch_id + SUFFIX, size))
            yield self.batches[-1]
