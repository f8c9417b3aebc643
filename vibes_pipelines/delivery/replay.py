"""The reader model: what the platform would make of a person file, column by column.

It takes a file as it was read back and answers which values each row would leave behind. It shares
nothing with the code that wrote the file, so that a cell which says something else than the plan is
found before the file leaves. Rules: the Vibes documentation, Person Import; the table of blank
cells is an assumption where it is silent.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vibes_pipelines.sync_config import SELECT_TYPES, FieldType
from vibes_pipelines.vibes.import_reader import ImportFile

_CLEARED_ID = "[null]"
_IDENTIFYING = frozenset({"external_person_id", "mdn"})
_MIDNIGHT = "T00:00:00Z"
_DATE = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}(\.\d+)?Z$"

_Wrong = tuple[str, pa.ChunkedArray]
"""A column, and true for each row that would not do what was planned in it."""


class ReplayMismatch(ValueError):  # noqa: N818 - the name says what is wrong
    """A file would not do what was planned; it was not uploaded."""


def check_replay(file: ImportFile, planned: pa.Table, types: Mapping[str, FieldType]) -> None:
    """Checks that a file would leave exactly the planned values, on the state it was planned for.

    `planned` has a row per row of the file: `operation_id`, `kind`, `external_person_id`, `mdn`
    and `changes`, a list of `field`, `before` and `after`; NULL is empty.

    Raises:
        ReplayMismatch: names the file, the row and the columns, never a value.
    """
    if file.cells.num_rows != planned.num_rows:
        msg = f"{file.name}: {file.cells.num_rows} rows, planned {planned.num_rows}"
        raise ReplayMismatch(msg)
    wrong = [
        ("external_person_id", _is_wrong_id(file.cells, planned)),
        ("mdn", _is_wrong_number(file.cells, planned)),
        *_wrong_fields(file.cells, planned["changes"], types),
        *_strangers(file.cells, types),
    ]
    found = [(pc.index(is_wrong, value=True).as_py(), column) for column, is_wrong in wrong]
    row = min((row for row, _ in found if row >= 0), default=None)
    if row is not None:
        columns = ", ".join(sorted({column for first, column in found if first == row}))
        raise ReplayMismatch(
            f"{file.name}: row {row + 1} would not do what was planned in column {columns}; "
            f"send operation {planned['operation_id'][row]} through the API"
        )


def left_by(
    cells: pa.ChunkedArray, before: pa.ChunkedArray, field_type: FieldType
) -> pa.ChunkedArray:
    """What a column of cells leaves of one custom field; values are canonical text, NULL is empty.

    A blank cell clears a select and changes no other field.
    """
    kept = pa.nulls(len(cells), pa.string()) if field_type in SELECT_TYPES else before
    return pc.if_else(pc.equal(cells, ""), kept, _canonical(cells, field_type))


def _is_wrong_id(cells: pa.Table, planned: pa.Table) -> pa.ChunkedArray:
    told = _column(cells, "external_person_id")
    is_marker = pc.fill_null(pc.equal(told, _CLEARED_ID), fill_value=False)
    return pc.or_(is_marker, _differ(told, planned["external_person_id"]))


def _is_wrong_number(cells: pa.Table, planned: pa.Table) -> pa.ChunkedArray:
    """Only who is added gets a number; a blank cell keeps the one of others."""
    told, none = _column(cells, "mdn"), pa.scalar(None, pa.string())
    given = pc.if_else(pc.equal(told, ""), none, told)
    return _differ(given, pc.if_else(pc.equal(planned["kind"], "add"), planned["mdn"], none))


def _wrong_fields(
    cells: pa.Table, changes: pa.ChunkedArray, types: Mapping[str, FieldType]
) -> Iterator[_Wrong]:
    """The custom fields that the file has, and those that it should have."""
    flat = _flattened(changes)
    said = types.keys() & set(cells.column_names)
    for field in said:
        before, after = _planned(flat, field, len(changes))
        told = cells[field]
        # No value is a blank or the marker: the platform might read such a cell as anything.
        is_doubtful = pc.or_(pc.utf8_is_space(told), pc.equal(told, _CLEARED_ID))
        if types[field] == "date":
            is_doubtful = pc.or_(is_doubtful, pc.invert(pc.match_substring_regex(told, _DATE)))
        left = left_by(told, before, types[field])
        yield field, pc.or_(is_doubtful, _differ(left, after))
    for field in set(pc.unique(flat["field"]).to_pylist()) - said:
        yield field, _differ(*_planned(flat, field, len(changes)))


def _strangers(cells: pa.Table, types: Mapping[str, FieldType]) -> Iterator[_Wrong]:
    """Columns that no plan has: whatever they hold, the platform might act on it."""
    every = pa.chunked_array([pa.repeat(pa.scalar(value=True), cells.num_rows)])
    for column in cells.column_names:
        if column not in types and column not in _IDENTIFYING:
            yield column, every


def _flattened(changes: pa.ChunkedArray) -> pa.Table:
    """A row per change, which names its row of the file."""
    whole = changes.combine_chunks()
    each = pc.list_flatten(whole)
    told = {name: pc.struct_field(each, name) for name in ("field", "before", "after")}
    return pa.table({"row": pc.list_parent_indices(whole), **told})


def _planned(flat: pa.Table, field: str, rows: int) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """What each row of the file finds in a field and should leave; both empty if untouched."""
    of_field = flat.select(["row", "before", "after"]).filter(pc.equal(flat["field"], field))
    every = pa.array(np.arange(rows))
    if not of_field["row"].cast(pa.int64()).equals(pa.chunked_array([every])):
        of_field = of_field.take(pc.index_in(every, of_field["row"].cast(pa.int64())))
    return of_field["before"], of_field["after"]


def _column(cells: pa.Table, name: str) -> pa.ChunkedArray:
    if name in cells.column_names:
        return cells[name]
    return pa.chunked_array([pa.nulls(cells.num_rows, pa.string())])


def _differ(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where two columns have different values; two empty ones are alike."""
    are_equal = pc.fill_null(pc.equal(left, right), fill_value=False)
    are_empty = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.invert(pc.or_(are_equal, are_empty))


def _canonical(cells: pa.ChunkedArray, field_type: FieldType) -> pa.ChunkedArray:
    if field_type == "date":
        return pc.replace_substring_regex(cells, f"{_MIDNIGHT}$", "")
    if field_type == "multi_select":
        encoded = pc.dictionary_encode(cells).combine_chunks()
        sets = ("|".join(sorted(set(keys.split("|")))) for keys in encoded.dictionary.to_pylist())
        return pa.chunked_array([pa.array(sets, pa.string()).take(encoded.indices)])
    return cells
