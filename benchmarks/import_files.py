"""Writing person import files as deliveries do, against DuckDB's COPY of the same columns.

    python -m benchmarks.import_files [--rows 5000000] [--file-rows 100000] [--rounds 3]

copy      DuckDB writes the columns as CSV, which are in memory
write     the delivery's writer, from the planned rows in columns: what the file cannot say, the
          look at every cell, and the file
replay    the same, then the file read back and every row replayed
checked   the same from the rows as a ledger gives them, whose changes are JSON

All of them write files of `--file-rows` rows, file by file in turn, in one process. Starting it,
loading its modules and making the rows up are in no figure. Then one file as large as a delivery
makes them, from a ledger in SQLite: what reading it costs, and what all else does.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Measured, peak_rss_mb, print_table
from benchmarks.reconcile_scan import SCRATCH

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from vibes_pipelines.store.records import Operation
    from vibes_pipelines.sync_config import FieldType

TYPES: "dict[str, FieldType]" = {
    "first_name": "string",
    "score": "number",
    "tier": "single_select",
}
_BATCH_ROWS = 25_000
MODES = ("copy", "write", "replay", "checked")
_BUDGETS = {"write": 1.5}
_AS_OF = datetime(2026, 1, 2, 12, tzinfo=UTC)

_COLUMNS = """
    SELECT 'C' || n AS external_person_id,
        'Ada' || CASE WHEN n % 50 = 0 THEN ', ' ELSE ' ' END || n % 1000 AS first_name,
        (n % 97)::VARCHAR AS score, ['gold', 'silver'][1 + n % 2] AS tier
    FROM range($first, $end) AS t(n)"""

_FILE_ROWS = f"""
    SELECT external_person_id AS operation_id, 'update' AS kind, external_person_id,
        NULL::VARCHAR AS mdn, to_json([{
    ", ".join(
        f"{{'field': '{field}', 'action': 'set', 'before': NULL::VARCHAR, 'after': {field},"
        " 'reason': 'crm_changed'}"
        for field in TYPES
    )
}])::VARCHAR AS changes
    FROM ({_COLUMNS})"""


def _measure(rows: int, file_rows: int, folder: Path) -> dict[str, Measured]:
    """Writes every file in every mode, one after the other, so that all meet the same machine."""
    import duckdb  # noqa: PLC0415 - not before `main` has read its arguments

    wall_s, cpu_s = dict.fromkeys(MODES, 0.0), dict.fromkeys(MODES, 0.0)
    with tempfile.TemporaryDirectory(dir=folder) as out, duckdb.connect() as engine:
        path = Path(out) / "a.persons"
        for first in range(0, rows, file_rows):
            told = {"first": first, "end": min(first + file_rows, rows)}
            for mode, work in _prepared(path, told, engine).items():
                if first == 0:
                    work()  # what the first file of a process loads
                path.unlink(missing_ok=True)
                wall, cpu = time.perf_counter(), time.process_time()
                work()
                wall_s[mode] += time.perf_counter() - wall
                cpu_s[mode] += time.process_time() - cpu
                assert _count_lines(path) == told["end"] - first + 1
    peak = peak_rss_mb()
    return {mode: {"wall_s": wall_s[mode], "cpu_s": cpu_s[mode], "rss_mb": peak} for mode in MODES}


def _prepared(
    path: Path, told: dict[str, int], engine: "duckdb.DuckDBPyConnection"
) -> dict[str, Callable[[], object]]:
    """What is to be measured of one file, by mode; its rows are in memory."""
    import pyarrow as pa  # noqa: PLC0415

    from vibes_pipelines.delivery.checked_files import write_person_rows  # noqa: PLC0415
    from vibes_pipelines.delivery.person_files import (  # noqa: PLC0415
        planned_rows,
        write_person_file,
    )
    from vibes_pipelines.delivery.replay import check_replay  # noqa: PLC0415
    from vibes_pipelines.vibes.import_reader import read_file  # noqa: PLC0415

    rows = engine.sql(_FILE_ROWS, params=told).to_arrow_table()
    planned = planned_rows(path.name, rows, engine)
    values = [f"value_{place}" for place in range(1, len(TYPES) + 1)]
    columns = planned.rows.select(["external_person_id", *values])
    # In batches as ours: of one batch the engine would use one thread.
    engine.register("columns", pa.Table.from_batches(columns.to_batches(_BATCH_ROWS)))
    statement = f"COPY columns TO '{path}' (FORMAT csv, HEADER)"

    def replay() -> None:
        write_person_file(path, planned, TYPES, engine)
        check_replay(read_file(path), planned.rows, TYPES)

    return {
        "copy": lambda: engine.execute(statement).fetchall(),
        "write": lambda: write_person_file(path, planned, TYPES, engine),
        "replay": replay,
        "checked": lambda: write_person_rows(path, rows, TYPES, engine),
    }


def _print_from_a_ledger(folder: Path) -> None:
    """Prints what a whole file costs, from the ledger to the proof."""
    import duckdb  # noqa: PLC0415

    from vibes_pipelines.delivery.checked_files import write_person_rows  # noqa: PLC0415
    from vibes_pipelines.delivery.plan import MAX_FILE_ROWS  # noqa: PLC0415
    from vibes_pipelines.store.ledger import Ledger  # noqa: PLC0415
    from vibes_pipelines.store.records import Batch, DiffSet  # noqa: PLC0415

    day = _AS_OF.date().isoformat()
    batch = Batch("b", "d" * 64, "a.persons", MAX_FILE_ROWS)
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        duckdb.connect() as engine,
        Ledger(f"sqlite:///{out}/ledger.db") as ledger,
    ):
        told = {"first": 0, "end": MAX_FILE_ROWS}
        columns = engine.sql(_COLUMNS, params=told).to_arrow_table()
        ledger.register(DiffSet(batch.diff_set, 0, day, _AS_OF, "m", "c", "open", {}, {}))
        ledger.write_plan(batch.diff_set, [batch], _operations(columns, batch.batch_id), dict)
        seconds = []
        for _ in range(2):  # the first loads what a process needs
            began = time.process_time()
            rows = ledger.file_rows(batch.batch_id)
            read = time.process_time()
            write_person_rows(Path(out) / batch.name, rows, TYPES, engine)
            seconds.append((read - began, time.process_time() - read))
    read_s, checked_s = seconds[-1]
    print(
        f"one file of {batch.rows:,} rows: read from a ledger {read_s:.2f} s CPU, decoded, written,"
        f" read back and replayed {checked_s:.2f} s"
    )


def _operations(columns: "pa.Table", batch_id: str) -> "Iterator[Operation]":
    from vibes_pipelines.store.records import Change, Operation  # noqa: PLC0415

    for number, row in enumerate(columns.to_pylist(), start=1):
        yield Operation(
            operation_id=row["external_person_id"],
            diff_set="d" * 64,
            day=_AS_OF.date().isoformat(),
            as_of=_AS_OF,
            lane="persons",
            route="file",
            route_reason="",
            kind="update",
            external_person_id=row["external_person_id"],
            person_key=None,
            mdn=None,
            subscription_list_id=None,
            changes=tuple(Change(name, "set", None, row[name], "crm_changed") for name in TYPES),
            batch_id=batch_id,
            row_number=number,
        )


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**24), b""))


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--file-rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(
        f"import files of {given.file_rows:,} rows, {given.rows:,} in all,"
        f" {1 + len(TYPES)} columns; copy = 1"
    )
    rounds = [_measure(given.rows, given.file_rows, given.folder) for _ in range(given.rounds)]
    print_table({mode: [told[mode] for told in rounds] for mode in MODES}, _BUDGETS)
    _print_from_a_ledger(given.folder)


if __name__ == "__main__":
    main()
