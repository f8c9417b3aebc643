"""Writes a person file from the rows that the ledger has planned for it, column by column.

Nothing is checked here but what cannot be written: `replay` reads the finished file back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from vibes_pipelines.delivery.routes import columns_of
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.import_errors import ImportFileError
from vibes_pipelines.vibes.person_import import cells, write_import

_SHAPE = '[{"field": "VARCHAR", "before": "VARCHAR", "after": "VARCHAR"}]'

# Sorted, so that a place in the list means the same field in every row of a file.
_DECODED = """
    SELECT * REPLACE (list_sort(from_json(changes, $shape)) AS changes) FROM file_rows"""

_IN_COLUMNS = """
    SELECT *, list_transform(changes, lambda change: change.field) = $fields AS is_alike{values}
    FROM ({decoded})"""


@dataclass(frozen=True)
class PlannedRows:
    """What is planned for a file: `fields` are those that every row changes, in their order.

    `rows` are those of `Ledger.file_rows`, with `changes` as lists of field, before and after, and
    with `value_1` and so on: what each of the fields is set to, NULL clears.
    """

    fields: tuple[str, ...]
    rows: pa.Table


def planned_rows(name: str, rows: pa.Table, engine: duckdb.DuckDBPyConnection) -> PlannedRows:
    """The rows of `Ledger.file_rows`, at least one, in columns.

    Raises:
        ImportFileError: the rows change different fields, or a change cannot be read.
    """
    fields = sorted(change["field"] for change in json.loads(rows["changes"][0].as_py()))
    planned = _decoded(name, rows, fields, engine)
    if not pc.all(planned["is_alike"]).as_py():
        msg = f"{name}: its rows change different fields; plan the diff set again"
        raise ImportFileError(msg)
    return PlannedRows(tuple(fields), planned)


def write_person_file(
    path: Path,
    planned: PlannedRows,
    types: Mapping[str, FieldType],
    engine: duckdb.DuckDBPyConnection,
) -> None:
    """Writes the file of these rows.

    Raises:
        ImportFileError: a row names nobody.
        CannotExpress: a file cannot say what one of them changes.
        ImportFileUnwritable: the file cannot be written there.
    """
    (first,) = planned.rows.slice(0, 1).select(["kind", "mdn"]).to_pylist()
    told = {
        field: cells(planned.rows[f"value_{place}"], types[field])
        for place, field in enumerate(planned.fields, start=1)
    }
    columns = columns_of(first["kind"], first["mdn"], planned.fields)
    in_order = {name: told[name] if name in told else planned.rows[name] for name in columns}
    write_import(path, pa.table(in_order), engine)


def _decoded(
    name: str, rows: pa.Table, fields: Sequence[str], engine: duckdb.DuckDBPyConnection
) -> pa.Table:
    places = range(1, len(fields) + 1)
    values = "".join(f", changes[{place}].after AS value_{place}" for place in places)
    query = _IN_COLUMNS.format(values=values, decoded=_DECODED)
    engine.register("file_rows", rows)
    try:
        told = {"shape": _SHAPE, "fields": fields}
        return engine.sql(query, params=told).to_arrow_table()
    except duckdb.InvalidInputException:  # its words quote the changes, which are about a person
        wrong = ImportFileError(
            f"{name}: the changes of a row in the ledger cannot be read as text; restore the "
            "ledger, or cancel the delivery and let the next day plan it anew"
        )
    finally:
        engine.unregister("file_rows")
    raise wrong
