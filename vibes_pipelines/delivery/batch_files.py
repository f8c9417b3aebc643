"""Writes the import files of batches for the last time before they leave, by whichever way.

What a file says is checked in `checked_files`. Who takes it from there, the file server or a
person, is in `file_import` and `hand_over`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from vibes_pipelines.delivery.checked_files import write_checked
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.records import Batch
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

    def write_last(self, batch: Batch, watch: ConsentWatch | None) -> Batch:
        """Writes it without the rows that must not leave any more; the batch as it leaves."""
        if watch is not None:
            self.withdrawn += self._withdraw(batch, watch)
        return replace(batch, rows=self.write(batch))

    def _withdraw(self, batch: Batch, watch: ConsentWatch) -> int:
        operations = self.ledger.batch_operations(batch.batch_id)
        reasons: dict[str, str] = {}
        for chunk in chunks(operations):
            reasons.update(watch.withdrawn(chunk))
        if reasons:
            self.ledger.withdraw(reasons, operations[0].day)
        return len(reasons)
