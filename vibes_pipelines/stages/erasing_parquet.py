"""Writing a Parquet file again with some rows changed; all else in it stays as it was.

Only the mechanics belong here: which rows, and what they become, is the callers'.
"""

import math
import tempfile
from collections.abc import Callable, Collection
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.reconcile.numerals import LONGEST
from vibes_pipelines.stages.pseudonyms import PREFIX
from vibes_pipelines.store.placing import put

Row = dict[str, Any]


def plain(value: object) -> str:
    """A cell as text, without the blanks around it; of another type, as the reconcile writes it."""
    match value:
        case bytes():
            return trimmed(value.decode(errors="replace")) or ""
        case bool():
            return str(value).lower()
        case float() if math.isfinite(value):
            return _number(Decimal(repr(value)), otherwise=repr(value))
        case Decimal():
            return _number(value, otherwise=str(value))
        case datetime():
            return _moment(value)
        case _:
            return trimmed(str(value)) or ""


def _number(value: Decimal, otherwise: str) -> str:
    """As `reconcile.numerals` writes it: no zeros behind the point, and no exponent."""
    if not value:
        return "0"
    whole, _, fraction = f"{value:f}".partition(".")
    if len(whole.lstrip("-")) > LONGEST:
        return otherwise
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _moment(value: datetime) -> str:
    """As `reconcile.moments` writes it: the day alone at midnight UTC, else to the second."""
    instant = value if value.tzinfo is None else value.astimezone(UTC)
    second = instant.replace(microsecond=0, tzinfo=None)
    if second.time() == time.min:
        return second.date().isoformat()
    return f"{second.isoformat()}Z"


def is_blank(text: str) -> bool:
    """Whether it is the pseudonym of somebody who was erased."""
    return text.startswith(PREFIX)


def rows_with(
    table: pa.Table, columns: Collection[str], is_meant: Callable[[object], bool]
) -> set[int]:
    """The rows in which one of these columns has a value that is meant; each value once asked."""
    found: set[int] = set()
    for name in sorted(set(columns).intersection(table.column_names)):
        column = table.column(name)
        meant = [one for one in pc.unique(column).to_pylist() if one is not None and is_meant(one)]
        if meant:
            mask = pc.is_in(column, value_set=pa.array(meant, column.type))
            found.update(pc.indices_nonzero(mask).to_pylist())
    return found


def rewrite_parquet(
    path: Path,
    key_columns: Collection[str],
    find: Callable[[pa.Table], list[int]],
    change: Callable[[Row], Row],
) -> int:
    """Replaces the rows that `find` names, in order, by what `change` makes of them.

    Row groups, metadata and the order stay; key columns become text where they were numbers. The
    file is written beside its place and renamed there, and only when a row changes. Returns how
    many rows have a pseudonym for a key afterwards.
    """
    with (
        pq.ParquetFile(path) as source,
        tempfile.TemporaryDirectory(prefix=".erasing-", dir=path.parent) as folder,
    ):
        groups = range(source.num_row_groups)
        changes = {group: _changes(source.read_row_group(group), find, change) for group in groups}
        if not any(changes.values()):
            return sum(_blank(source.read_row_group(group), key_columns) for group in groups)
        schema = _textual(source.schema_arrow, key_columns)
        written, blank = Path(folder) / path.name, 0
        with pq.ParquetWriter(written, schema, compression="zstd") as writer:
            for group in groups:
                table = _replaced(_cast(source.read_row_group(group), schema), changes[group])
                blank += _blank(table, key_columns)
                writer.write_table(table, row_group_size=max(1, table.num_rows))
        put(written, path)
    return blank


def count_changes(
    path: Path, find: Callable[[pa.Table], list[int]], change: Callable[[Row], Row]
) -> int:
    """How many rows `rewrite_parquet` would change."""
    with pq.ParquetFile(path) as source:
        groups = range(source.num_row_groups)
        return sum(len(_changes(source.read_row_group(n), find, change)) for n in groups)


def _changes(
    table: pa.Table, find: Callable[[pa.Table], list[int]], change: Callable[[Row], Row]
) -> dict[int, Row]:
    changed = {}
    for number in find(table):
        [row] = table.slice(number, 1).to_pylist()
        new = change(row)
        if new != row:
            changed[number] = new
    return changed


def _textual(schema: pa.Schema, key_columns: Collection[str]) -> pa.Schema:
    """Keys as text; and any cell may be blank, also where the writer saw none."""
    fields = [
        (field.with_type(pa.string()) if field.name in key_columns else field).with_nullable(
            nullable=True
        )
        for field in schema
    ]
    return pa.schema(fields, metadata=schema.metadata)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with these types; what becomes text is the text by which the reconcile knows it."""
    for index, field in enumerate(schema):
        column = table.column(index)
        if pa.types.is_string(field.type) and not pa.types.is_string(column.type):
            texts = [None if value is None else plain(value) for value in column.to_pylist()]
            table = table.set_column(index, field, pa.array(texts, field.type))
    return table.cast(schema)


def _replaced(table: pa.Table, changes: dict[int, Row]) -> pa.Table:
    parts, done = [], 0
    for number in sorted(changes):
        new = pa.Table.from_pylist([changes[number]], schema=table.schema)
        parts += [table.slice(done, number - done), new]
        done = number + 1
    return pa.concat_tables([*parts, table.slice(done)]).combine_chunks()


def _blank(table: pa.Table, key_columns: Collection[str]) -> int:
    names = set(key_columns).intersection(table.column_names)
    return len(
        set().union(*(rows_with(table, {name}, _has_pseudonym) for name in names))
        if names
        else set[int]()
    )


def _has_pseudonym(value: object) -> bool:
    return PREFIX in plain(value)
