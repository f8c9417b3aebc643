"""Writes the import files of batches for the last time before they leave, by whichever way.

What a file says is checked in `checked_files`. Who takes it from there, the file server or a
person, is in `file_import` and `hand_over`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from vibes_pipelines.delivery.checked_files import PlannedFiles, write_checked
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.records import Batch, Operation
from vibes_pipelines.sync_config import FieldType


@dataclass
class BatchFiles:
    """Writes the files of one delivery into `workdir`; `withdrawn` counts the rows taken out."""

    ledger: Ledger
    types: Mapping[str, FieldType]
    workdir: Path
    engine: duckdb.DuckDBPyConnection
    withdrawn: int = 0

    def read_again(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches as the ledger has them now."""
        now = {batch.batch_id: batch for batch in self.ledger.batches(diff_set=batches[0].diff_set)}
        return [now[batch.batch_id] for batch in batches]

    def write(self, batch: Batch) -> int:
        """Writes the file of a batch, if it has rows; returns their count."""
        return write_checked(batch, self.ledger, self.types, self.workdir, self.engine)

    def write_without(self, batch: Batch, withdrawn: Collection[str]) -> int:
        """Writes it without these operations, which stay in it in the ledger; returns its rows.

        For a file that may be on the server: what a report on it counts must not change.
        """
        rest = _Without(self.ledger, withdrawn)
        return write_checked(batch, rest, self.types, self.workdir, self.engine)

    def write_last(self, batch: Batch, watch: ConsentWatch | None) -> Batch:
        """Writes it without the rows that must not leave any more; the batch as it leaves."""
        operations = self.ledger.batch_operations(batch.batch_id) if watch is not None else []
        if reasons := reasons_to_stay(operations, watch):
            self.ledger.withdraw(reasons, operations[0].day)
            self.withdrawn += len(reasons)
        return replace(batch, rows=self.write(batch))


def reasons_to_stay(operations: Sequence[Operation], watch: ConsentWatch | None) -> dict[str, str]:
    """Why operations must not leave any more, by their ids."""
    reasons: dict[str, str] = {}
    if watch is not None:
        for chunk in chunks(operations):
            reasons.update(watch.withdrawn(chunk))
    return reasons


@dataclass(frozen=True)
class _Without:
    """The planned files without some of their operations."""

    planned: PlannedFiles
    out: Collection[str]

    def file_rows(self, batch_id: str) -> pa.Table:
        """As of `PlannedFiles`."""
        rows = self.planned.file_rows(batch_id)
        is_out = pc.is_in(rows.column("operation_id"), pa.array(list(self.out), pa.string()))
        return rows.filter(pc.invert(is_out))

    def batch_operations(self, batch_id: str) -> Sequence[Operation]:
        """As of `PlannedFiles`."""
        operations = self.planned.batch_operations(batch_id)
        return [one for one in operations if one.operation_id not in self.out]
