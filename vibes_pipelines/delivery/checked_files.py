"""Writes the import file of a batch and proves, by reading it back, that it says what was planned.

Person files are replayed on the state they were planned for; `.opt_outs` files are compared row by
row. A file that would do anything else never leaves. Nothing is sent here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vibes_pipelines.delivery.replay import ReplayMismatch, check_replay
from vibes_pipelines.delivery.routes import file_columns, opt_out_member
from vibes_pipelines.store.records import Batch, Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_files import write_opt_outs
from vibes_pipelines.vibes.import_kinds import kind_of
from vibes_pipelines.vibes.import_reader import read_list_file
from vibes_pipelines.vibes.person_import import cell, read_import, write_import


def write_checked(
    batch: Batch,
    operations: Sequence[Operation],
    types: Mapping[str, FieldType],
    folder: Path,
) -> None:
    """Writes the file of a batch into `folder`, under its name.

    Raises:
        ReplayMismatch: the file would not do what was planned.
    """
    path = folder / batch.name
    if kind_of(batch.name) == "opt_outs":
        _write_opt_outs(path, operations)
        _check_opt_outs(path, operations)
        return
    columns = file_columns(operations[0])
    write_import(path, columns, (_row(operation, columns, types) for operation in operations))
    written = read_import(path)
    check_replay(batch.name, written.columns, written.rows, operations, types)


def _row(
    operation: Operation, columns: Sequence[str], types: Mapping[str, FieldType]
) -> tuple[str, ...]:
    cells = {"external_person_id": operation.external_person_id or "", "mdn": operation.mdn or ""}
    for change in operation.changes:
        cells[change.field] = cell(change.after, types[change.field], change.action)
    return tuple(cells[column] for column in columns)


def _write_opt_outs(path: Path, operations: Sequence[Operation]) -> None:
    members = [opt_out_member(operation) for operation in operations]
    with TemporaryDirectory(dir=path.parent) as parts:
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
