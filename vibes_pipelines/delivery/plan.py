"""Plans a diff set: each change becomes one operation with its lane, road and place in a file.

Intents are written to the ledger in one transaction; nothing is sent here. Planning the same diff
set again changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from vibes_pipelines.delivery.deferrals import Deferrals
from vibes_pipelines.delivery.intents import (
    Origin,
    PlanError,
    crm_intents,
    invite_intents,
    opt_in_intents,
    opt_out_intents,
    person_intents,
)
from vibes_pipelines.delivery.routes import (
    Columns,
    Estimates,
    RoadChoice,
    choose_roads,
    file_columns,
    why_no_opt_out_by_file,
    why_not_by_file,
)
from vibes_pipelines.reconcile.destinations import VIBES, Destination
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch, DiffSet, Operation
from vibes_pipelines.sync_config import FieldType, SyncConfig
from vibes_pipelines.vibes.import_kinds import ImportKind, import_name

NO_FILES = "the only road to this destination"

MAX_FILE_ROWS = 100_000
"""Rows per import file: what the documentation calls a comfortable file, for uploads by hand."""


@dataclass(frozen=True)
class Plan:
    """What will be sent.

    `operations` counts by `lane/route/kind`; `reasons` counts by `lane/route: why this road`;
    `deferred` counts what is not sent today by `kind: why`; `seconds` is when each road of a lane
    should be through, by `lane/route`.
    """

    diff_set: str
    day: str
    operations: Mapping[str, int]
    reasons: Mapping[str, int]
    deferred: Mapping[str, int]
    estimates: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    batches: tuple[Batch, ...] = ()


def plan(
    diff_set: str,
    folder: Path,
    config: SyncConfig,
    ledger: Ledger,
    estimates: Estimates | None = None,
    destination: Destination = VIBES,
) -> Plan:
    """Plans the registered diff set whose files are in `folder`.

    Raises:
        PlanError: the diff set is not registered, or a file is missing or holds a change that no
            delivery carries.
    """
    record = _registered(ledger, diff_set)
    if ledger.plan(diff_set) is None:
        origin = Origin(diff_set, record.day, record.as_of, folder)
        draft = _Draft(origin, config, ledger, estimates or Estimates(), destination)
        ledger.write_plan(diff_set, draft.batches, draft.operations(), draft.document)
    return _written_plan(ledger, diff_set, record.day)


def preview(
    diff_set: str,
    folder: Path,
    config: SyncConfig,
    ledger: Ledger,
    estimates: Estimates | None = None,
    destination: Destination = VIBES,
) -> Plan:
    """What `plan` would write, and the written plan when there is one. Nothing is recorded.

    Raises:
        PlanError: as `plan`.
    """
    record = _registered(ledger, diff_set)
    if ledger.plan(diff_set) is not None:
        return _written_plan(ledger, diff_set, record.day)
    origin = Origin(diff_set, record.day, record.as_of, folder)
    draft = _Draft(origin, config, ledger, estimates or Estimates(), destination)
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
        self,
        origin: Origin,
        config: SyncConfig,
        ledger: Ledger,
        estimates: Estimates,
        destination: Destination,
    ) -> None:
        self._origin = origin
        self._destination = destination
        self._types: Mapping[str, FieldType] = {field.to: field.type for field in config.fields}
        self._campaigns = {
            consent.list.strip(): consent.campaign
            for consent in config.consents
            if consent.invites and consent.campaign is not None
        }
        self._estimates = estimates
        self._deferrals = Deferrals.of(
            ledger,
            _registered(ledger, origin.diff_set),
            timedelta(hours=config.policies.visibility_lag_h),
        )
        self._persons = self._weighed("persons", self._count_persons())
        self._opt_outs = self._weighed("opt_outs", self._count_opt_outs())
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("operations", "reasons", "deferred")
        }

    @property
    def batches(self) -> list[Batch]:
        """The import files, planned before the first operation is handed out."""
        batches = [*self._persons.seats.batches, *self._opt_outs.seats.batches]
        return sorted(batches, key=lambda batch: batch.name)

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
        seconds = {
            f"{lane}/{route}": round(seconds, 3)
            for lane, group in (("opt_outs", self._opt_outs), ("persons", self._persons))
            for route, seconds in (("api", group.road.api_s), ("file", group.road.file_s))
            if seconds
        }
        return {**counts, "estimates": asdict(self._estimates), "seconds": seconds}

    def _routed(self) -> Iterator[Operation]:
        for operation in self._not_deferred(opt_out_intents(self._origin)):
            yield self._on_its_road(operation)
        yield from self._not_deferred(crm_intents(self._origin))
        for operation in person_intents(self._origin):
            yield self._on_its_road(operation)
        yield from invite_intents(self._origin, self._campaigns)
        yield from opt_in_intents(self._origin)

    def _not_deferred(self, intents: Iterator[Operation]) -> Iterator[Operation]:
        for operation in intents:
            reason = self._deferrals.why_deferred(operation)
            if reason is None:
                yield operation
            else:
                self._counts["deferred"][f"{operation.kind}: {reason}"] += 1

    def _on_its_road(self, operation: Operation) -> Operation:
        if operation.kind == "crm_opt_out":
            return operation
        reason, columns = self._fitness(operation)
        if reason is not None:
            return replace(operation, route_reason=reason)
        group = self._opt_outs if operation.kind == "opt_out" else self._persons
        operation = replace(operation, route_reason=group.road.reason)
        return group.seats.seat(operation, columns) if columns in group.road.by_file else operation

    def _fitness(self, operation: Operation) -> tuple[str | None, Columns]:
        """Why no file can carry the operation (None: one can), and what file that would be."""
        if not self._destination.takes_files:
            return NO_FILES, ()
        if operation.kind == "opt_out":
            return why_no_opt_out_by_file(operation), (operation.subscription_list_id or "",)
        reason = why_not_by_file(operation, self._types)
        return reason, file_columns(operation) if reason is None else ()

    def _count_persons(self) -> "_Rows":
        return self._count(person_intents(self._origin))

    def _count_opt_outs(self) -> "_Rows":
        return self._count(
            operation
            for operation in opt_out_intents(self._origin)
            if operation.kind == "opt_out" and self._deferrals.why_deferred(operation) is None
        )

    def _count(self, operations: Iterable[Operation]) -> "_Rows":
        rows = _Rows()
        for operation in operations:
            reason, columns = self._fitness(operation)
            if reason is None:
                rows.by_columns[columns] += 1
            else:
                rows.only_by_api += 1
        return rows

    def _weighed(self, kind: ImportKind, rows: "_Rows") -> "_Weighed":
        road = choose_roads(rows.by_columns, rows.only_by_api, self._estimates, MAX_FILE_ROWS)
        by_file = {columns: rows.by_columns[columns] for columns in road.by_file}
        return _Weighed(road, _Seats(self._origin, kind, by_file))


@dataclass
class _Rows:
    """How many rows a file could carry, by its columns, and how many only the API can."""

    by_columns: Counter[Columns] = field(default_factory=Counter)
    only_by_api: int = 0


@dataclass(frozen=True)
class _Weighed:
    """The roads of one lane, and the seats in its files."""

    road: RoadChoice
    seats: "_Seats"


# So that the ids of a diff set's files differ whatever their kind.
_MARKS: Mapping[ImportKind, str] = {"persons": "", "opt_outs": "out_"}


class _Seats:
    """Import files and their rows: one group of files per set of columns, in a fixed order."""

    def __init__(self, origin: Origin, kind: ImportKind, rows: Mapping[Columns, int]) -> None:
        self._kind = kind
        self.batches: list[Batch] = []
        self._files: dict[Columns, list[Batch]] = {}
        self._taken: Counter[Columns] = Counter()
        for columns in sorted(rows):
            self._files[columns] = list(self._build(origin, rows[columns]))

    def seat(self, operation: Operation, columns: Columns) -> Operation:
        """The operation with its file and row."""
        file, row = divmod(self._taken[columns], MAX_FILE_ROWS)
        self._taken[columns] += 1
        batch = self._files[columns][file]
        return replace(operation, route="file", batch_id=batch.batch_id, row_number=row + 1)

    def _build(self, origin: Origin, rows: int) -> Iterator[Batch]:
        for start in range(0, rows, MAX_FILE_ROWS):
            number = len(self.batches) + 1
            batch_id = f"{origin.day}_{origin.diff_set[:12]}_{_MARKS[self._kind]}{number:02d}"
            size = min(MAX_FILE_ROWS, rows - start)
            name = import_name(batch_id, self._kind)
            self.batches.append(Batch(batch_id, origin.diff_set, name, size))
            yield self.batches[-1]
