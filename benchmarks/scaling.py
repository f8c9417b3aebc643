"""How the reconcile grows with its rows: ours, the limit and the naive join at several sizes.

    python -m benchmarks.scaling --rows 1000000 5000000 --write docs/speed
    python -m benchmarks.scaling --rows 1000000 5000000 20000000   (takes some 30 GB of disk)

Prints one table for all sizes with the exponents of CPU time, cpu ~ rows^e; with `--write`, also
into the Markdown file of that name, between its marks, and as a plot into the SVG file.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import typical
from benchmarks.peers import PEERS
from benchmarks.reconcile_landed import run_modes
from benchmarks.reconcile_scan import SCRATCH

_MODES = ("limit", "landed", "naive")
_SMALLEST_FOR_ALL = 1_000_000
_START, _END = "<!-- figures -->\n", "<!-- /figures -->\n"

Figures = dict[str, dict[int, dict[str, float]]]
"""By mode and rows: wall_s, cpu_s, rss_mb."""


def measure(sizes: Sequence[int], rounds: int, folder: Path) -> Figures:
    """Runs every mode at every size; all peers at no more than a million rows."""
    figures: Figures = {}
    for rows in sizes:
        modes = (*_MODES, *(name for name in PEERS if name not in _MODES))
        print(f"{rows:,} rows x 24 columns")
        runs = run_modes(rows, folder, modes if rows <= _SMALLEST_FOR_ALL else _MODES, rounds)
        for mode, measured in runs.items():
            figures.setdefault(mode, {})[rows] = typical(measured)
    return figures


def table(figures: Figures) -> str:
    """The figures as a Markdown table, a row per size and mode."""
    lines = [
        "| rows | what | wall s | CPU s | peak MB | wall x | CPU x |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for rows in sorted({rows for by_rows in figures.values() for rows in by_rows}):
        limit = figures["limit"][rows]
        for mode, by_rows in figures.items():
            if rows in by_rows:
                one = by_rows[rows]
                lines.append(
                    f"| {rows:,} | {mode} | {one['wall_s']:.2f} | {one['cpu_s']:.2f}"
                    f" | {one['rss_mb']:.0f} | {one['wall_s'] / limit['wall_s']:.2f}"
                    f" | {one['cpu_s'] / limit['cpu_s']:.2f} |"
                )
    return "\n".join([*lines, "", *_exponents(figures)]) + "\n"


def _exponents(figures: Figures) -> list[str]:
    lines = ["| CPU ~ rows^e | from | to | e |", "|---|---:|---:|---:|"]
    for mode, by_rows in figures.items():
        for small, large in itertools.pairwise(sorted(by_rows)):
            grown = math.log(by_rows[large]["cpu_s"] / by_rows[small]["cpu_s"])
            lines.append(
                f"| {mode} | {small:,} | {large:,} | {grown / math.log(large / small):.2f} |"
            )
    return lines if len(lines) > 2 else []


def plot(figures: Figures, path: Path) -> None:
    """Wall time over rows, both logarithmic, as SVG."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (only wanted with --write)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for mode, by_rows in figures.items():
        rows = sorted(by_rows)
        axes.loglog(rows, [by_rows[one]["wall_s"] for one in rows], marker="o", label=mode)
    axes.set_xlabel("rows a side")
    axes.set_ylabel("seconds")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def write(figures: Figures, page: Path) -> None:
    """Puts the table between the page's marks, and the plot beside the page.

    Raises:
        ValueError: the page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(_START)
    _, after = rest.split(_END)
    page.write_text(before + _START + "\n" + table(figures) + "\n" + _END + after, encoding="utf-8")
    plot(figures, page.with_suffix(".svg"))


def main() -> None:
    """Measures, prints, and writes if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=SCRATCH)
    parser.add_argument("--write", type=Path, help="the page without its suffix, as docs/speed")
    arguments = parser.parse_args()
    figures = measure(sorted(arguments.rows), arguments.rounds, arguments.folder)
    print(table(figures))
    if arguments.write is not None:
        write(figures, arguments.write.with_suffix(".md"))


if __name__ == "__main__":
    main()
