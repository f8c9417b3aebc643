"""Reading one extract of the platform against the bare parser with its reject tables.

    python -m benchmarks.extracts [--rows 10000000] [--rounds 3]

parser    DuckDB's read_csv, its rejects kept, rows written as Parquet
ours      the same file, rejects by line number; `bad` lines among the rows
regular   ours, of a file without a bad line
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measure import compare, report
from benchmarks.reconcile_scan import SCRATCH

COLUMNS = ("mdn", "person_id", "external_person_id", "subscription_list_id", "activity_date")
BAD_EVERY = 1_000
_BUDGETS = {"ours": 1.2, "regular": 1.2}
_BLOCK_ROWS = 100_000


def write_extract(path: Path, rows: int, *, bad: bool) -> Path:
    """Writes the file once; every thousandth line lacks a cell if it is to be `bad`."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("w", encoding="utf-8") as file:
            file.write("\t".join(COLUMNS) + "\n")
            for start in range(0, rows, _BLOCK_ROWS):
                file.writelines(
                    _line(number, bad=bad)
                    for number in range(start, min(start + _BLOCK_ROWS, rows))
                )
        unfinished.rename(path)
    return path


def _line(number: int, *, bad: bool) -> str:
    cells = (
        f"+1{2_000_000_000 + number}",
        f"{number:08x}-9f5b-4a2e-8c11-0123456789ab",
        f"C{number:09d}",
        str(1_000 + number % 7),
        f"2026-01-{1 + number % 28:02d}T03:04:05Z",
    )
    return "\t".join(cells[: -1 if bad and number % BAD_EVERY == 0 else None]) + "\n"


def _measure(mode: str, rows: int, folder: Path) -> None:
    path = folder / f"extract-{rows}-{mode != 'regular'}.txt"
    with tempfile.TemporaryDirectory(dir=folder) as out:
        if mode == "parser":
            _parse(path, Path(out))
        else:
            from vibes_pipelines.vibes.extract_reader import convert_extract  # noqa: PLC0415

            assert convert_extract(path, path.name, COLUMNS, Path(out)) == rows
    report({})


def _parse(path: Path, out: Path) -> None:
    import duckdb  # noqa: PLC0415

    with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(out)}) as engine:
        engine.execute(
            "COPY (SELECT * FROM read_csv($file, columns = $columns, header = true, delim = '\t',"
            " quote = '', escape = '', auto_detect = false, store_rejects = true))"
            " TO $data (FORMAT parquet, COMPRESSION zstd)",
            {
                "file": str(path),
                "columns": dict.fromkeys(COLUMNS, "VARCHAR"),
                "data": str(out / "data.parquet"),
            },
        )
        engine.execute(
            "COPY reject_errors TO $data (FORMAT parquet)", {"data": str(out / "rejects")}
        )


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    parser.add_argument("--mode")
    given = parser.parse_args()
    if given.mode:
        _measure(given.mode, given.rows, given.folder)
        return
    for bad in (True, False):
        write_extract(given.folder / f"extract-{given.rows}-{bad}.txt", given.rows, bad=bad)
    print(f"an extract of {given.rows:,} rows, one in {BAD_EVERY:,} bad; parser = 1")
    told = ["--rows", str(given.rows), "--folder", str(given.folder)]
    compare(
        ("parser", "ours", "regular"),
        lambda mode: ["-m", "benchmarks.extracts", *told, "--mode", mode],
        given.rounds,
        _BUDGETS,
    )


if __name__ == "__main__":
    main()
