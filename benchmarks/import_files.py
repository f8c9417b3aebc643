"""Writing one person import file against DuckDB's COPY of the same columns.

    python -m benchmarks.import_files [--rows 5000000] [--rounds 3]

copy    DuckDB reads the rows from Parquet and writes them as CSV
ours    the import writer, which checks every cell, from the same Parquet in batches
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import compare, report
from benchmarks.reconcile_scan import SCRATCH

COLUMNS = ("external_person_id", "first_name", "tier", "score")
_BUDGETS = {"ours": 1.5}
_BATCH_ROWS = 50_000


def write_rows(path: Path, rows: int) -> Path:
    """Writes the rows once."""
    import duckdb  # noqa: PLC0415

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(
            "COPY (SELECT 'C' || n AS external_person_id,"
            " 'Ada' || CASE WHEN n % 50 = 0 THEN ', ' ELSE ' ' END || n % 1000 AS first_name,"
            " ['gold', 'silver'][1 + n % 2] AS tier, (n % 97)::VARCHAR AS score"
            f" FROM range({int(rows)}) AS t(n)) TO '{path}' (FORMAT parquet)"
        )
    return path


def _measure(mode: str, source: Path) -> None:
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        target = Path(out) / "a.persons"
        if mode == "copy":
            import duckdb  # noqa: PLC0415

            duckdb.execute(f"COPY (FROM '{source}') TO '{target}' (FORMAT csv, HEADER)")
        else:
            from vibes_pipelines.vibes.person_import import write_import  # noqa: PLC0415

            write_import(target, COLUMNS, _rows(source))
    report({})


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
        _measure(given.mode, source)
        return
    write_rows(source, given.rows)
    print(f"an import file of {given.rows:,} rows x {len(COLUMNS)} columns; copy = 1")
    told = ["--rows", str(given.rows), "--folder", str(given.folder)]
    compare(
        ("copy", "ours"),
        lambda mode: ["-m", "benchmarks.import_files", *told, "--mode", mode],
        given.rounds,
        _BUDGETS,
    )


if __name__ == "__main__":
    main()
