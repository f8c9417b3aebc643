"""Writing one person import file against DuckDB's COPY of the same columns.

    python -m benchmarks.import_files [--rows 5000000] [--rounds 3]

copy      DuckDB reads the rows from Parquet and writes them as CSV
ours      the import writer, which looks at every cell, from the same Parquet by the same engine
rows      the import writer from rows of Python texts, which pyarrow reads from that Parquet

Then one file as large as a delivery makes them, from operations as a ledger gives them: cells,
writing, reading back by the reader model, and the replay of every row.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import compare, report
from benchmarks.reconcile_scan import SCRATCH

if TYPE_CHECKING:
    from vibes_pipelines.store.records import Operation

COLUMNS = ("external_person_id", "first_name", "score", "tier")
_BUDGETS = {"ours": 1.5}
_BATCH_ROWS = 50_000
_AS_OF = datetime(2026, 1, 2, 12, tzinfo=UTC)


def write_rows(path: Path, rows: int) -> Path:
    """Writes the rows once."""
    import duckdb  # noqa: PLC0415

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(
            "COPY (SELECT 'C' || n AS external_person_id,"
            " 'Ada' || CASE WHEN n % 50 = 0 THEN ', ' ELSE ' ' END || n % 1000 AS first_name,"
            " (n % 97)::VARCHAR AS score, ['gold', 'silver'][1 + n % 2] AS tier"
            f" FROM range({int(rows)}) AS t(n)) TO '{path}' (FORMAT parquet)"
        )
    return path


def _measure(mode: str, source: Path, rows: int) -> None:
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        target = Path(out) / "a.persons"
        if mode == "copy":
            import duckdb  # noqa: PLC0415

            duckdb.execute(f"COPY (FROM '{source}') TO '{target}' (FORMAT csv, HEADER)")
        elif mode == "ours":
            _write_columns(target, source)
        else:
            from vibes_pipelines.vibes.person_import import write_import  # noqa: PLC0415

            write_import(target, COLUMNS, _rows(source))
        assert _count_lines(target) == rows + 1
    report({})


def _write_columns(target: Path, source: Path) -> None:
    import duckdb  # noqa: PLC0415

    from vibes_pipelines.vibes.import_writer import Table, write_columns  # noqa: PLC0415

    with duckdb.connect() as engine:
        engine.read_parquet(str(source)).create_view("cells")
        write_columns(target, Table("persons", COLUMNS), engine)


def _print_checked(source: Path) -> None:
    """Prints what a whole file of a delivery costs, and the writing alone of the same rows."""
    from vibes_pipelines.delivery.checked_files import write_checked  # noqa: PLC0415
    from vibes_pipelines.delivery.plan import MAX_FILE_ROWS  # noqa: PLC0415
    from vibes_pipelines.store.records import Batch  # noqa: PLC0415
    from vibes_pipelines.sync_config import FieldType  # noqa: PLC0415
    from vibes_pipelines.vibes.person_import import write_import  # noqa: PLC0415

    types: dict[str, FieldType] = {
        "first_name": "string",
        "score": "number",
        "tier": "single_select",
    }
    rows = list(islice(_rows(source), MAX_FILE_ROWS))
    operations = [_operation(*row) for row in rows]
    batch = Batch("b", "d" * 64, "a.persons", len(operations))
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        write_import(Path(out) / batch.name, COLUMNS, rows)
        began = time.process_time()
        write_import(Path(out) / batch.name, COLUMNS, rows)
        written = time.process_time()
        write_checked(batch, operations, types, Path(out))
        checked_s, written_s = time.process_time() - written, written - began
    print(
        f"one file of {len(rows):,} operations, written and replayed: {checked_s:.2f} s CPU,"
        f" of which the writing {written_s:.2f} s"
    )


def _operation(key: str, *after: str) -> "Operation":
    from vibes_pipelines.store.records import Change, Operation  # noqa: PLC0415

    return Operation(
        operation_id=key,
        diff_set="d" * 64,
        day="2026-01-02",
        as_of=_AS_OF,
        lane="persons",
        route="file",
        route_reason="",
        kind="update",
        external_person_id=key,
        person_key=None,
        mdn=None,
        subscription_list_id=None,
        changes=tuple(
            Change(field, "set", None, value, "crm_changed")
            for field, value in zip(COLUMNS[1:], after, strict=True)
        ),
    )


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**24), b""))


def _rows(source: Path) -> Iterator[Sequence[str]]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    for batch in pq.ParquetFile(source).iter_batches(_BATCH_ROWS, columns=list(COLUMNS)):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    parser.add_argument("--mode")
    given = parser.parse_args()
    source = given.folder / f"import-{given.rows}.parquet"
    if given.mode:
        _measure(given.mode, source, given.rows)
        return
    write_rows(source, given.rows)
    print(f"an import file of {given.rows:,} rows x {len(COLUMNS)} columns; copy = 1")
    told = ["--rows", str(given.rows), "--folder", str(given.folder)]
    compare(
        ("copy", "ours", "rows"),
        lambda mode: ["-m", "benchmarks.import_files", *told, "--mode", mode],
        given.rounds,
        _BUDGETS,
    )
    _print_checked(source)


if __name__ == "__main__":
    main()
