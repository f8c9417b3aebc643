"""The reconcile against one scan: how much more than reading everything once does it cost?

    python -m benchmarks.reconcile_scan --rows 1000000 --rounds 3

The reference is one DuckDB scan that hashes every column of both files. Each measurement is a fresh
process; rounds alternate, and the ratio of their medians is printed.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 3.0
"""How many scans a reconcile of two plain files may cost, in wall time and in CPU time."""

_SCRATCH = Path(tempfile.gettempdir()) / "vibes-pipelines-benchmarks"
_REPOSITORY = Path(__file__).resolve().parents[1]


def scan(contacts: Path, persons: Path) -> None:
    """The reference: decode and touch every value of both sides."""
    import duckdb  # noqa: PLC0415  (the imports are part of what is measured)

    connection = duckdb.connect()
    for path in (contacts, persons):
        connection.execute(f"SELECT bit_xor(hash(*COLUMNS(*))) FROM '{path}'").fetchall()
    connection.close()


def run_reconcile(contacts: Path, persons: Path, memory_limit: str) -> dict[str, object]:
    """Ours: the whole reconcile, all files written."""
    from benchmarks.data import build_config  # noqa: PLC0415
    from vibes_pipelines.reconcile.engine import Limits  # noqa: PLC0415
    from vibes_pipelines.reconcile.run import Inputs, reconcile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as out:
        summary = reconcile(
            build_config(), Inputs(contacts, persons), Path(out), Limits(memory_limit=memory_limit)
        )
        seconds = json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))["seconds"]
    counts = {name: getattr(summary, name) for name in ("added", "updated", "unchanged")}
    return {"counts": counts, "seconds": seconds}


def _child(mode: str, arguments: argparse.Namespace) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.reconcile_scan", "--mode", mode]
    command += ["--folder", str(arguments.folder), "--rows", str(arguments.rows)]
    command += ["--memory-limit", arguments.memory_limit]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_REPOSITORY)
    measured: dict[str, object] = json.loads(done.stdout)
    return measured | {"wall_s": time.perf_counter() - started}


def _measure(mode: str, arguments: argparse.Namespace, sides: tuple[Path, Path]) -> None:
    more: dict[str, object] = {}
    if mode == "scan":
        scan(*sides)
    else:
        more = run_reconcile(*sides, arguments.memory_limit)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    print(json.dumps({"cpu_s": cpu_s, "rss_mb": _peak_rss_mb()} | more))


def _peak_rss_mb() -> float:
    """Of this process alone: what getrusage tells is inherited over fork and outlives exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) / 1024


def _compare(arguments: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, object]]] = {"scan": [], "reconcile": []}
    for _ in range(arguments.rounds):
        for mode, measured in runs.items():
            measured.append(_child(mode, arguments))
    median = {
        mode: {
            name: statistics.median(float(str(run[name])) for run in measured)
            for name in ("wall_s", "cpu_s", "rss_mb")
        }
        for mode, measured in runs.items()
    }
    for mode, figures in median.items():
        print(
            f"{mode:10s} wall {figures['wall_s']:6.2f} s   CPU {figures['cpu_s']:6.2f} s"
            f"   RSS {figures['rss_mb']:6.0f} MB"
        )
    for name in ("wall_s", "cpu_s"):
        ratio = median["reconcile"][name] / median["scan"][name]
        print(f"ratio {name}: {ratio:.2f} (budget {BUDGET})")
    print(f"last reconcile: {runs['reconcile'][-1]['counts']} {runs['reconcile'][-1]['seconds']}")


def main() -> None:
    """Prints both measurements and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--folder", type=Path, default=_SCRATCH)
    parser.add_argument("--mode", choices=("compare", "scan", "reconcile"), default="compare")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve() / f"reconcile-{arguments.rows}"
    sides = folder / "contacts.parquet", folder / "persons.parquet"
    if arguments.mode == "compare":
        from benchmarks.data import write_sides  # noqa: PLC0415  (not part of what is measured)

        write_sides(folder, arguments.rows)
        _compare(arguments)
    else:
        _measure(arguments.mode, arguments, sides)


if __name__ == "__main__":
    main()
