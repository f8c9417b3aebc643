"""Writes the import file of a batch and proves, by reading it back, that it says what was planned.

Person files, which have a row per changed person, are written and replayed by columns on the state
they were planned for. `.opt_outs` files are few rows, held by a cap of their own, and each is a
person and a list whose forms are checked: they are written and compared row by row. A file that
would do anything else never leaves. Nothing is sent here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import duckdb
import pyarrow as pa

from vibes_pipelines.delivery.person_files import planned_rows, write_person_file
from vibes_pipelines.delivery.replay import ReplayMismatch, check_replay
from vibes_pipelines.delivery.routes import opt_out_member
from vibes_pipelines.store.records import Batch, Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_cells import writing
from vibes_pipelines.vibes.import_errors import ImportFileError
from vibes_pipelines.vibes.import_files import write_opt_outs
from vibes_pipelines.vibes.import_kinds import kind_of
from vibes_pipelines.vibes.import_reader import read_file, read_list_file


class PlannedFiles(Protocol):
    """What was planned for each file."""

    def file_rows(self, batch_id: str) -> pa.Table:
        """The rows of a person file; see `Ledger.file_rows`."""

    def batch_operations(self, batch_id: str) -> Sequence[Operation]:
        """The operations of any file, in the order of its rows."""


def write_checked(
    batch: Batch,
    planned: PlannedFiles,
    types: Mapping[str, FieldType],
    folder: Path,
    engine: duckdb.DuckDBPyConnection,
) -> int:
    """Writes the file of a batch into `folder`, under its name; returns its count of rows.

    Writes none without rows.

    Raises:
        ReplayMismatch: the file would not do what was planned.
        ImportFileError: the file cannot say what was planned.
        ImportFileUnwritable: the file cannot be written there.
    """
    path = folder / batch.name
    if kind_of(batch.name) == "opt_outs":
        operations = planned.batch_operations(batch.batch_id)
        if operations:
            _write_opt_outs(path, operations)
            with _removed_if_wrong(path):
                _check_opt_outs(path, operations)
        return len(operations)
    rows = planned.file_rows(batch.batch_id)
    if rows.num_rows:
        write_person_rows(path, rows, types, engine)
    return int(rows.num_rows)


def write_person_rows(
    path: Path,
    rows: pa.Table,
    types: Mapping[str, FieldType],
    engine: duckdb.DuckDBPyConnection,
) -> None:
    """Writes the rows of `Ledger.file_rows` and replays them; raises as `write_checked`."""
    planned = planned_rows(path.name, rows, engine)
    write_person_file(path, planned, types, engine)
    with _removed_if_wrong(path):
        check_replay(read_file(path), planned.rows, types)


@contextmanager
def _removed_if_wrong(path: Path) -> Iterator[None]:
    """Leaves no refused file behind, which somebody might upload by hand."""
    try:
        yield
    except (ReplayMismatch, ImportFileError):
        path.unlink(missing_ok=True)
        raise


def _write_opt_outs(path: Path, operations: Sequence[Operation]) -> None:
    members = [opt_out_member(operation) for operation in operations]
    with writing(path), TemporaryDirectory(dir=path.parent) as parts:
        (written,) = write_opt_outs(Path(parts), "part", members)
        written.path.replace(path)


def _check_opt_outs(path: Path, operations: Sequence[Operation]) -> None:
    said = [(row.identifier, row.value, row.list_id) for row in read_list_file(path)]
    members = map(opt_out_member, operations)
    planned = [(m.person.identifier, m.person.value, m.list_id) for m in members]
    wrong = [n for n, pair in enumerate(zip(said, planned, strict=False), 1) if pair[0] != pair[1]]
    if len(said) != len(planned) or wrong:
        where = f"row {wrong[0]}" if wrong else f"{len(said)} rows, planned {len(planned)}"
        raise ReplayMismatch(
            f"{path.name}: {where}: the file would not end the planned subscriptions; send them "
            "through the API"
        )
