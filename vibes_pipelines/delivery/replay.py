"""The reader model: what the platform would make of an import file, row by row.

It reads a finished file and answers which values each row would leave behind. It shares nothing
with the code that wrote the file, so that a cell which says something else than the plan is found
before the file leaves. Rules: the Vibes documentation, Person Import; the table of blank cells is
an assumption where it is silent.
"""

from collections.abc import Iterable, Mapping, Sequence

from vibes_pipelines.store.records import Operation
from vibes_pipelines.sync_config import SELECT_TYPES, FieldType

_CLEARED_ID = "[null]"
_MIDNIGHT = "T00:00:00Z"


class ReplayMismatch(ValueError):  # noqa: N818 - the name says what is wrong
    """A file would not do what was planned; it was not uploaded."""


def check_replay(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    operations: Sequence[Operation],
    types: Mapping[str, FieldType],
) -> None:
    """Checks that a file would leave exactly the planned values, on the state it was planned for.

    Raises:
        ReplayMismatch: names the file, the row and the columns, never a value.
    """
    if len(rows) != len(operations):
        raise ReplayMismatch(f"{name}: {len(rows)} rows, planned {len(operations)}")
    for number, (row, operation) in enumerate(zip(rows, operations, strict=True), start=1):
        cells = dict(zip(columns, row, strict=True))
        wrong = sorted({*_wrong_identifiers(cells, operation), *_wrong(cells, operation, types)})
        if wrong:
            raise ReplayMismatch(
                f"{name}: row {number} would not do what was planned in column "
                f"{', '.join(wrong)}; send operation {operation.operation_id} through the API"
            )


def replay_row(
    state: Mapping[str, str | None], cells: Mapping[str, str], types: Mapping[str, FieldType]
) -> dict[str, str | None]:
    """The custom fields of one person after a row; values are canonical text, None is empty."""
    after = dict(state)
    for column, cell in cells.items():
        if column not in types:
            continue
        if cell:
            after[column] = _canonical(cell, types[column])
        elif types[column] in SELECT_TYPES:
            after[column] = None
    return after


def _wrong(
    cells: Mapping[str, str], operation: Operation, types: Mapping[str, FieldType]
) -> Iterable[str]:
    before = {change.field: change.before for change in operation.changes}
    planned = before | {change.field: change.after for change in operation.changes}
    result = replay_row(before, cells, types)
    names = planned.keys() | result.keys()
    return (name for name in names if planned.get(name) != result.get(name))


def _wrong_identifiers(cells: Mapping[str, str], operation: Operation) -> Iterable[str]:
    external = cells.get("external_person_id")
    if external == _CLEARED_ID or external != operation.external_person_id:
        yield "external_person_id"
    planned_mdn = operation.mdn if operation.kind == "add" else None
    if (cells.get("mdn") or None) != planned_mdn:
        yield "mdn"


def _canonical(cell: str, field_type: FieldType) -> str:
    if field_type == "date":
        return cell.removesuffix(_MIDNIGHT) if cell.endswith(_MIDNIGHT) else cell
    if field_type == "multi_select":
        return "|".join(sorted(set(cell.split("|"))))
    return cell
