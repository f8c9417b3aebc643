"""The reconcile of two landed snapshots against the limit, and against what others would do.

    python -m benchmarks.reconcile_landed --rows 5000000 --rounds 3
    python -m benchmarks.reconcile_landed --rows 5000000 --changed 20

limit   one engine reads every column of both sides and writes a file of the diff set's size
landed  ours: from hashes made at landing, with identity, quarantine, guards, all files written
plain   ours without hashes
and those of `peers`; only DuckDB's naive join with more than 1,000,000 rows.
Landing's share (the hashes of one side) is measured against a plain copy of its file.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import Measured, compare, report
from benchmarks.peers import PEERS, write_peer_sides
from benchmarks.reconcile_scan import SCRATCH, run_reconcile, scan

_DAY = "2026-01-01"
_MOST_FOR_PEERS = 1_000_000
_USUALLY_CHANGED = 2
_BUDGETS = {"landed": 1.75, "hashes": 0.5}
"""1.25 times the limit, and 0.5 for the resolution of identity; landing may cost 1.5 copies."""


def folder_of(folder: Path, rows: int, changed_percent: int) -> Path:
    """Where the sides of one size and share of changed rows are kept."""
    share = "" if changed_percent == _USUALLY_CHANGED else f"-{changed_percent}"
    return folder.resolve() / f"reconcile-{rows}{share}"


def land(folder: Path, rows: int, changed_percent: int) -> None:
    """Lands both sides as snapshots, unless they are."""
    from benchmarks.data import write_sides  # noqa: PLC0415  (not part of what is measured)
    from vibes_pipelines.store.snapshots import SnapshotStore, Source  # noqa: PLC0415

    store = SnapshotStore(folder / "landing")
    for feed, side in zip(
        ("crm/contacts", "share/persons"), write_sides(folder, rows, changed_percent), strict=True
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


def _measure(mode: str, folder: Path, memory_limit: str) -> None:
    contacts, persons = (
        folder / "landing" / feed / _DAY for feed in ("crm/contacts", "share/persons")
    )
    data = contacts / "data.parquet", persons / "data.parquet"
    more: dict[str, object] = {}
    if mode == "limit":
        scan(*data)
        write_diff_set(data[0])
    elif mode in PEERS:
        more["rows"] = PEERS[mode](*write_peer_sides(*data, folder / "peers"))
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


def run_modes(
    rows: int,
    folder: Path,
    modes: Sequence[str],
    rounds: int,
    memory_limit: str = "1GB",
    changed_percent: int = _USUALLY_CHANGED,
) -> dict[str, list[Measured]]:
    """Measures these modes side by side, prints and returns the figures; the first is the measure.

    Everything that is read is made before, once, below `folder`.
    """
    place = folder_of(folder, rows, changed_percent)
    land(place, rows, changed_percent)
    _hash_both(place)
    write_peer_sides(place / "contacts.parquet", place / "persons.parquet", place / "peers")

    def command(mode: str) -> list[str]:
        told = ["--rows", str(rows), "--changed", str(changed_percent)]
        told += ["--folder", str(folder.resolve())]
        return [
            *("-m", "benchmarks.reconcile_landed", *told),
            *("--memory-limit", memory_limit, "--mode", mode),
        ]

    return compare(modes, command, rounds, _BUDGETS)


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changed", type=int, default=_USUALLY_CHANGED, help="percent of rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    parser.add_argument("--mode", default="compare")
    arguments = parser.parse_args()
    if arguments.mode != "compare":
        folder = folder_of(arguments.folder, arguments.rows, arguments.changed)
        _measure(arguments.mode, folder, arguments.memory_limit)
        return
    rows = f"{arguments.rows:,} rows x 24 columns, {arguments.changed} % changed"
    print(f"two landed snapshots of {rows}, memory limit {arguments.memory_limit}; limit = 1")
    peers = PEERS if arguments.rows <= _MOST_FOR_PEERS else ("naive",)
    more = arguments.rounds, arguments.memory_limit, arguments.changed
    sides = arguments.rows, arguments.folder
    runs = run_modes(*sides, ("limit", "landed", "plain", *peers), *more)
    print({name: runs["landed"][-1][name] for name in ("counts", "plan", "seconds")})
    print("hashes of one side; a plain copy of its file = 1")
    run_modes(*sides, ("copy", "hashes"), *more)


if __name__ == "__main__":
    main()
