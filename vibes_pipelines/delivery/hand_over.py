"""Hands import files to a person, who uploads them on the platform's upload page.

What the file server does for `file_import` a person does here: nothing is known of a file once it
was handed over, and no report is read. Its rows are unknown until a certificate sees their effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from vibes_pipelines.delivery.batch_files import BatchFiles
from vibes_pipelines.delivery.file_import import LEASE, lane_of
from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_writer import WrittenFile
from vibes_pipelines.vibes.upload_page import write_for_upload

HANDED_OVER = "HandedOver"
"""The error class of rows in a file that a person is to upload."""


@dataclass(frozen=True)
class HandedOver:
    """What a person has to upload. `withdrawn` are rows that were taken out of their file before.

    `at_server` are files that went to the file server already, and are not handed over.
    """

    files: tuple[WrittenFile, ...] = ()
    withdrawn: int = 0
    at_server: int = 0

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return sum(file.rows for file in self.files)


def hand_over(
    batches: Sequence[Batch],
    folder: Path,
    ledger: Ledger,
    types: Mapping[str, FieldType],
    workdir: Path,
    *,
    watch: ConsentWatch | None = None,
) -> HandedOver:
    """Writes the planned files of one lane into `folder`, each in parts that the page takes.

    A file is in the folder before the ledger says so: one that was cut between the two is written
    and uploaded again, which finds everything as it asks for.

    Raises:
        ReplayMismatch: a file would not do what was planned; it was not handed over.
        ImportFileError, ImportFileUnwritable: a file cannot be written; it was not handed over.
        LaneBusy: another process uploads files of this lane; nothing was handed over.
    """
    if all(batch.status == "done" for batch in batches):
        return HandedOver()
    for needed in (workdir, folder):
        needed.mkdir(parents=True, exist_ok=True)
    lease = ledger.take_lease(lease_name(lane_of(batches[0]), "file"), LEASE)
    written: list[WrittenFile] = []
    try:
        with duckdb.connect() as engine:
            files = BatchFiles(ledger, types, workdir, engine)
            now = files.read_again(batches)
            for batch in (batch for batch in now if batch.status == "planned"):
                ledger.renew_lease(lease)
                if files.write_last(batch, watch).rows:
                    written += write_for_upload(workdir / batch.name, folder)
                    _record(ledger, batch)
    finally:
        ledger.give_lease_back(lease)
    at_server = sum(batch.status == "sent" for batch in now)
    return HandedOver(tuple(written), files.withdrawn, at_server)


def _record(ledger: Ledger, batch: Batch) -> None:
    operations = ledger.batch_operations(batch.batch_id)
    ledger.mark_batch_sent(batch.batch_id)
    receipts = [receipt(one.operation_id, "unknown", HANDED_OVER) for one in operations]
    ledger.finish_batch(batch.batch_id, {"handed_over": True}, receipts, operations[0].day)
