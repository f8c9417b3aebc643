"""Hands import files to a person, who uploads them on the platform's upload page.

What the file server does for `file_import` a person does here: nothing is known of a file once it
was handed over, and no report is read. Its rows are unknown until a certificate sees their effect.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from vibes_pipelines.delivery.batch_files import BatchFiles
from vibes_pipelines.delivery.file_import import LEASE, lane_of
from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch, DiffSetSuperseded, LedgerError
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_writer import WrittenFile
from vibes_pipelines.vibes.upload_page import remove_earlier, write_for_upload

HANDED_OVER = "HandedOver"
"""The error class of rows in a file that a person is to upload."""

Tell = Callable[[WrittenFile], None]
"""Is told of each file as soon as the ledger has it as handed over."""


@dataclass(frozen=True)
class HandedOver:
    """What a person has to upload. `withdrawn` are rows that were taken out of their file before.

    `before` are files that an earlier run handed over and that still stand there. `begun` are files
    whose upload to the file server was begun, and which are not handed over.
    """

    files: tuple[WrittenFile, ...] = ()
    before: tuple[WrittenFile, ...] = ()
    withdrawn: int = 0
    begun: int = 0

    @property
    def rows(self) -> int:
        """The rows of all files that are handed over now."""
        return sum(file.rows for file in self.files)


def hand_over(
    batches: Sequence[Batch],
    folder: Path,
    ledger: Ledger,
    types: Mapping[str, FieldType],
    workdir: Path,
    *,
    watch: ConsentWatch | None = None,
    also_begun: bool = False,
    tell: Tell = lambda _: None,
) -> HandedOver:
    """Writes the planned files of one lane into `folder`, each in parts that the page takes.

    A file is in the folder before the ledger says so: one that was cut between the two is written
    anew. `also_begun` takes those, too, whose upload to the file server was begun: if they arrived
    there, the second time finds everything as it asks for.

    Raises:
        ReplayMismatch: a file would not do what was planned; it was not handed over.
        ImportFileError, ImportFileUnwritable: a file cannot be written; it was not handed over.
        DiffSetSuperseded: a newer diff set was registered meanwhile; no file of persons stays.
        LaneBusy: another process uploads files of this lane; nothing was handed over.
    """
    if not batches:
        return HandedOver()
    workdir.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lease = ledger.take_lease(lease_name(lane_of(batches[0]), "file"), LEASE)
    written: list[WrittenFile] = []
    try:
        with duckdb.connect() as engine:
            files = BatchFiles(ledger, types, workdir, engine)
            now = files.read_again(batches)
            for batch in now:
                if not _is_handed_over(batch):
                    remove_earlier(folder, batch.name)
            for batch in (one for one in now if _may_be_taken(one, also_begun=also_begun)):
                ledger.renew_lease(lease)
                if files.write_last(batch, watch).rows:
                    written += _hand_over(batch, files, folder, tell)
    except DiffSetSuperseded:
        # The newer one has later values of persons, which these must not replace. An opt-out that
        # is recorded is uploaded all the same: one too many is better than one too few.
        if lane_of(batches[0]) == "persons":
            _remove(written)
        raise
    finally:
        ledger.give_lease_back(lease)
    begun = sum(batch.status == "sent" for batch in now)
    return HandedOver(
        files=tuple(written),
        before=tuple(file for batch in now for file in _handed_before(batch, folder)),
        withdrawn=files.withdrawn,
        begun=0 if also_begun else begun,
    )


def _may_be_taken(batch: Batch, *, also_begun: bool) -> bool:
    return batch.status == "planned" or (also_begun and batch.status == "sent")


def _hand_over(batch: Batch, files: BatchFiles, folder: Path, tell: Tell) -> list[WrittenFile]:
    parts = write_for_upload(files.workdir / batch.name, folder)
    try:
        _record(files.ledger, batch, parts)
    except LedgerError:
        # Any other failure may have come after the record: the next run tells of these, or anew.
        _remove(parts)
        raise
    for part in parts:
        tell(part)
    return parts


def _record(ledger: Ledger, batch: Batch, parts: Sequence[WrittenFile]) -> None:
    operations = ledger.batch_operations(batch.batch_id)
    receipts = [receipt(one.operation_id, "unknown", HANDED_OVER) for one in operations]
    names = [{"name": part.path.name, "rows": part.rows} for part in parts]
    report = {"handed_over": True, "files": names}
    ledger.hand_over_batch(batch, report, receipts, operations[0].day)


def _is_handed_over(batch: Batch) -> bool:
    return "handed_over" in (batch.report or {})


def _handed_before(batch: Batch, folder: Path) -> Iterator[WrittenFile]:
    if not _is_handed_over(batch):
        return
    for file in (batch.report or {}).get("files", ()):
        path = folder / file["name"]
        if path.is_file():
            yield WrittenFile(path, file["rows"])


def _remove(files: Sequence[WrittenFile]) -> None:
    for file in files:
        file.path.unlink(missing_ok=True)
