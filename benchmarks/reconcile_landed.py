"""The reconcile of two landed snapshots against the limit, a naive join, and what others would do.

    python -m benchmarks.reconcile_landed --rows 5000000 --rounds 3

limit   one engine reads every column of both sides and writes a file of the diff set's size
naive   DuckDB joins both sides on the key and compares every column
pandas  merge on the key and comparison column by column (at most 1,000,000 rows)
landed  ours: from hashes made at landing, with identity, quarantine, guards, all files written
plain   ours without hashes
Landing's share (the hashes of one side) is measured against a plain copy of its file.
"""

import argparse
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import compare, report
from benchmarks.reconcile_scan import SCRATCH, run_reconcile, scan

_DAY = "2026-01-01"
_MOST_FOR_PANDAS = 1_000_000
_BUDGETS = {"landed": 1.75}
"""1.25 times the limit, and 0.5 for the resolution of identity."""


def land(folder: Path, rows: int) -> None:
    """Lands both sides as snapshots, unless they are."""
    from benchmarks.data import write_sides  # noqa: PLC0415  (not part of what is measured)
    from vibes_pipelines.store.snapshots import SnapshotStore, Source  # noqa: PLC0415

    store = SnapshotStore(folder / "landing")
    for feed, side in zip(
        ("crm/contacts", "share/persons"), write_sides(folder, rows), strict=True
    ):

        def write(place: Path, side: Path = side) -> Source:
            os.link(side, place / "data.parquet")
            return Source(side.name, datetime.fromisoformat(_DAY).replace(tzinfo=UTC))

        store.land(feed, _DAY, write)


def write_diff_set(contacts: Path) -> None:
    """Writes 2.5 % of the contacts, every column: a file of about the diff set's size."""
    import duckdb  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as out:
        duckdb.sql(f"FROM '{contacts}' USING SAMPLE 2.5 %").write_parquet(f"{out}/diff.parquet")


def join_naively(contacts: Path, persons: Path) -> None:
    """Compares texts as they are: no identity, no canonical values, no quarantine."""
    import duckdb  # noqa: PLC0415

    from benchmarks.data import build_config  # noqa: PLC0415

    fields = build_config().fields
    changes = ", ".join(
        f"CASE WHEN c.{f.from_}::VARCHAR IS DISTINCT FROM p.{f.to}::VARCHAR THEN"
        f" {{'field': '{f.to}', 'before': p.{f.to}::VARCHAR, 'after': c.{f.from_}::VARCHAR}} END"
        for f in fields
    )
    with tempfile.TemporaryDirectory() as out:
        connection = duckdb.connect(config={"preserve_insertion_order": "false"})
        connection.execute(f"""
            COPY (SELECT * FROM (
                SELECT c.contact_id, p.external_person_id,
                       list_filter([{changes}], lambda x: x IS NOT NULL) AS changes
                FROM '{contacts}' c FULL JOIN '{persons}' p
                  ON c.contact_id = p.external_person_id) WHERE len(changes) > 0)
            TO '{out}/diff.parquet'""")


def merge_in_pandas(contacts: Path, persons: Path) -> None:
    """The same comparison in pandas."""
    import pandas as pd  # noqa: PLC0415

    from benchmarks.data import build_config  # noqa: PLC0415

    merged = pd.read_parquet(contacts).merge(
        pd.read_parquet(persons), "outer", left_on="contact_id", right_on="external_person_id"
    )
    differs = pd.Series(data=False, index=merged.index)
    for field in build_config().fields:
        same = field.from_ == field.to
        crm, platform = (f"{field.from_}_x", f"{field.to}_y") if same else (field.from_, field.to)
        left, right = (merged[name].astype("string") for name in (crm, platform))
        differs |= (left != right).fillna(left.isna() != right.isna())
    with tempfile.TemporaryDirectory() as out:
        merged[differs].to_parquet(f"{out}/diff.parquet")


def _measure(mode: str, folder: Path, memory_limit: str) -> None:
    contacts, persons = (
        folder / "landing" / feed / _DAY for feed in ("crm/contacts", "share/persons")
    )
    data = contacts / "data.parquet", persons / "data.parquet"
    more: dict[str, object] = {}
    if mode == "limit":
        scan(*data)
        write_diff_set(data[0])
    elif mode == "naive":
        join_naively(*data)
    elif mode == "pandas":
        merge_in_pandas(*data)
    elif mode == "copy":
        _copy(data[0])
    elif mode == "hashes":
        _hash(contacts, memory_limit)
    else:
        more = run_reconcile(*((contacts, persons) if mode == "landed" else data), memory_limit)
    report(more)


def _copy(data: Path) -> None:
    import duckdb  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as out:
        duckdb.execute(f"COPY (FROM '{data}') TO '{out}/copy.parquet' (COMPRESSION zstd)")


def _hash(contacts: Path, memory_limit: str) -> None:
    from benchmarks.data import build_config  # noqa: PLC0415
    from vibes_pipelines.reconcile.engine import Limits  # noqa: PLC0415
    from vibes_pipelines.reconcile.landed import HASHES, write_contact_hashes  # noqa: PLC0415

    (contacts / HASHES).unlink(missing_ok=True)
    write_contact_hashes(build_config(), contacts, Limits(memory_limit=memory_limit))


def _hash_both(folder: Path) -> None:
    from benchmarks.data import build_config  # noqa: PLC0415
    from vibes_pipelines.reconcile.landed import (  # noqa: PLC0415
        write_contact_hashes,
        write_person_hashes,
    )

    write_contact_hashes(build_config(), folder / "landing" / "crm/contacts" / _DAY)
    write_person_hashes(build_config(), folder / "landing" / "share/persons" / _DAY)


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    parser.add_argument("--mode", default="compare")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve() / f"reconcile-{arguments.rows}"
    if arguments.mode != "compare":
        _measure(arguments.mode, folder, arguments.memory_limit)
        return
    land(folder, arguments.rows)
    _hash_both(folder)

    def command(mode: str) -> list[str]:
        told = ["--rows", str(arguments.rows), "--folder", str(arguments.folder.resolve())]
        told += ["--memory-limit", arguments.memory_limit, "--mode", mode]
        return ["-m", "benchmarks.reconcile_landed", *told]

    rows = f"{arguments.rows:,} rows x 24 columns, memory limit {arguments.memory_limit}"
    print(f"two landed snapshots of {rows}; limit = 1")
    others = ("pandas",) if arguments.rows <= _MOST_FOR_PANDAS else ()
    runs = compare(
        ("limit", "landed", "plain", "naive", *others), command, arguments.rounds, _BUDGETS
    )
    print({name: runs["landed"][-1][name] for name in ("counts", "plan", "seconds")})
    print("hashes of one side; a plain copy of its file = 1")
    compare(("copy", "hashes"), command, arguments.rounds, {"hashes": 0.5})


if __name__ == "__main__":
    main()
