"""The reconcile of two plain files against one scan of both.

    python -m benchmarks.reconcile_scan --rows 1000000 --rounds 3

The reference is one DuckDB scan that hashes every column of both files.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.measure import compare, report

BUDGET = 3.0
"""How many scans a reconcile of two plain files may cost."""

SCRATCH = Path(tempfile.gettempdir()) / "vibes-pipelines-benchmarks"


def scan(contacts: Path, persons: Path) -> None:
    """The reference: decode and touch every value of both sides."""
    import duckdb  # noqa: PLC0415  (the imports are part of what is measured)

    connection = duckdb.connect()
    for path in (contacts, persons):
        connection.execute(f"SELECT bit_xor(hash(*COLUMNS(*))) FROM '{path}'").fetchall()
    connection.close()


def run_reconcile(contacts: Path, persons: Path, memory_limit: str) -> dict[str, object]:
    """Ours: the whole reconcile, all files written; returns counts and the phases' seconds."""
    from vibes_pipelines.loading import kept_for_good, no_collections  # noqa: PLC0415

    with kept_for_good():  # as the command does
        import vibes_pipelines.sync_config  # noqa: F401, PLC0415
    with no_collections():
        from benchmarks.data import build_config  # noqa: PLC0415
        from vibes_pipelines.reconcile.engine import Limits  # noqa: PLC0415
        from vibes_pipelines.reconcile.run import Inputs, reconcile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as out:
        summary = reconcile(
            build_config(), Inputs(contacts, persons), Path(out), Limits(memory_limit=memory_limit)
        )
        run = json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))
    counts = {name: getattr(summary, name) for name in ("added", "updated", "unchanged")}
    return {"counts": counts, "plan": run["plan"], "seconds": run["seconds"]}


def main() -> None:
    """Prints both measurements and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    parser.add_argument("--mode", choices=("compare", "scan", "reconcile"), default="compare")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve() / f"reconcile-{arguments.rows}"
    sides = folder / "contacts.parquet", folder / "persons.parquet"
    if arguments.mode == "scan":
        scan(*sides)
        report({})
    elif arguments.mode == "reconcile":
        report(run_reconcile(*sides, arguments.memory_limit))
    else:
        _compare(arguments, folder)


def _compare(arguments: argparse.Namespace, folder: Path) -> None:
    from benchmarks.data import write_sides  # noqa: PLC0415  (not part of what is measured)

    write_sides(folder, arguments.rows)

    def command(mode: str) -> list[str]:
        told = ["--rows", str(arguments.rows), "--folder", str(arguments.folder.resolve())]
        told += ["--memory-limit", arguments.memory_limit, "--mode", mode]
        return ["-m", "benchmarks.reconcile_scan", *told]

    print(f"two plain files of {arguments.rows:,} rows x 24 columns; scan = 1")
    runs = compare(("scan", "reconcile"), command, arguments.rounds, {"reconcile": BUDGET})
    print({name: runs["reconcile"][-1][name] for name in ("counts", "seconds")})


if __name__ == "__main__":
    main()
