"""Hands import files to a person, who uploads them on the platform's upload page.

What the file server does for `file_import` a person does here: nothing is known of a file once it
was handed over, and no report is read. Its rows are unknown until a certificate sees their effect.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import duckdb

from vibes_pipelines.delivery.batch_files import BatchFiles, reasons_to_stay
from vibes_pipelines.delivery.file_import import LEASE, lane_of
from vibes_pipelines.delivery.lane_lease import lease_name
from vibes_pipelines.delivery.ports import ConsentWatch
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Batch, DiffSetSuperseded, LedgerError, Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_writer import WrittenFile
from vibes_pipelines.vibes.upload_page import make_folder, remove_earlier, write_for_upload

HANDED_OVER = "HandedOver"
"""The error class of rows in a file that a person is to upload."""

# As `plan` names them, and the parts of each.
_IS_OURS = re.compile(
    r"\d{4}-\d\d-\d\d_[0-9a-f]{12}_(out_)?\d{2,}(-\d{3,})?\.(persons|opt_outs)"
).fullmatch

Tell = Callable[[WrittenFile], None]
"""Is told of each file as soon as the ledger has it as handed over."""


@dataclass(frozen=True)
class HandedOver:
    """What a person has to upload. `withdrawn` are rows that were taken out of their file before.

    `before` are files that an earlier run handed over and that still stand there; `overtaken` says
    of how many of their rows something newer became known since. `not_there` are files that were
    handed over and do not stand there any more: they were uploaded and deleted, or are lost.
    `begun` are files whose upload to the file server was begun, and which are not handed over.
    """

    files: tuple[WrittenFile, ...] = ()
    before: tuple[WrittenFile, ...] = ()
    overtaken: Mapping[Path, int] = field(default_factory=dict)
    not_there: tuple[WrittenFile, ...] = ()
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
    there, the second time finds everything as it asks for. Such a file keeps its rows in the ledger
    until it is handed over, for a report may come; so does one of which no row may leave any more.

    Raises:
        ReplayMismatch: a file would not do what was planned; it was not handed over.
        ImportFileError, ImportFileUnwritable: a file, or the folder, cannot be written; what was
            told until then is handed over, and nothing else.
        DiffSetSuperseded: a newer diff set was registered meanwhile; no file of persons stays.
        LaneBusy: another process uploads files of this lane; nothing was handed over.
    """
    if not batches:
        return HandedOver()
    workdir.mkdir(parents=True, exist_ok=True)
    make_folder(folder)
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
                written += _hand_over(batch, files, watch, folder, tell)
            begun = sum(batch.status == "sent" for batch in files.read_again(batches))
    except DiffSetSuperseded:
        # The newer one has later values of persons, which these must not replace. An opt-out that
        # is recorded is uploaded all the same: one too many is better than one too few.
        if lane_of(batches[0]) == "persons":
            _remove(written)
        raise
    finally:
        ledger.give_lease_back(lease)
    before = [part for batch in now for part in _handed_before(batch, folder, ledger, watch)]
    return HandedOver(
        files=tuple(written),
        before=tuple(part.file for part in before if part.is_there),
        overtaken={part.file.path: part.overtaken for part in before if part.is_overtaken},
        not_there=tuple(part.file for part in before if not part.is_there),
        withdrawn=files.withdrawn,
        begun=begun,
    )


def others_in(folder: Path, good: Collection[Path]) -> tuple[Path, ...]:
    """Import files in the folder that are none of the good ones: of an earlier diff set, or held.

    What has another name than ours is not among them.
    """
    standing = folder.iterdir() if folder.is_dir() else ()
    return tuple(sorted(p for p in standing if _IS_OURS(p.name) and p not in good))


def _may_be_taken(batch: Batch, *, also_begun: bool) -> bool:
    return batch.status == "planned" or (also_begun and batch.status == "sent")


def _hand_over(
    batch: Batch, files: BatchFiles, watch: ConsentWatch | None, folder: Path, tell: Tell
) -> list[WrittenFile]:
    operations = files.ledger.batch_operations(batch.batch_id)
    reasons = reasons_to_stay(operations, watch)
    if not files.write_without(batch, reasons):
        # One that was begun may be on the server: a report on it still has to fit.
        if reasons and batch.status == "planned":
            files.ledger.withdraw(reasons, operations[0].day)
            files.withdrawn += len(reasons)
        return []
    parts = write_for_upload(files.workdir / batch.name, folder)
    try:
        _record(files.ledger, batch, parts, operations, reasons)
    except LedgerError:
        # Any other failure may have come after the record: the next run tells of these, or anew.
        _remove(parts)
        raise
    files.withdrawn += len(reasons)
    for part in parts:
        tell(part)
    return parts


def _record(
    ledger: Ledger,
    batch: Batch,
    parts: Sequence[WrittenFile],
    operations: Sequence[Operation],
    reasons: Mapping[str, str],
) -> None:
    leaving = [one.operation_id for one in operations if one.operation_id not in reasons]
    receipts = [receipt(one, "unknown", HANDED_OVER) for one in leaving]
    names = [{"name": part.path.name, "rows": part.rows} for part in parts]
    report = {"handed_over": True, "files": names, "folder": str(parts[0].path.parent)}
    ledger.hand_over_batch(batch, report, receipts, operations[0].day, reasons)


def _is_handed_over(batch: Batch) -> bool:
    return "handed_over" in (batch.report or {})


@dataclass(frozen=True)
class _Part:
    """A file that an earlier run handed over, and of how many rows something newer is known."""

    file: WrittenFile
    is_there: bool
    overtaken: int

    @property
    def is_overtaken(self) -> bool:
        """Whether it stands there to be uploaded, and must not be."""
        return self.is_there and self.overtaken > 0


def _handed_before(
    batch: Batch, folder: Path, ledger: Ledger, watch: ConsentWatch | None
) -> Iterator[_Part]:
    if not _is_handed_over(batch):
        return
    report = batch.report or {}
    operations = ledger.batch_operations(batch.batch_id)
    newer = reasons_to_stay(operations, watch)
    rows = iter(one.operation_id in newer for one in operations)
    for file in report["files"]:
        overtaken = sum(islice(rows, file["rows"]))
        here, there = (Path(one) / file["name"] for one in (folder, report.get("folder", folder)))
        path = here if here.is_file() else there
        yield _Part(WrittenFile(path, file["rows"]), path.is_file(), overtaken)


def _remove(files: Sequence[WrittenFile]) -> None:
    for file in files:
        file.path.unlink(missing_ok=True)
