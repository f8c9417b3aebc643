"""Measuring whole processes side by side: every run is a fresh process, and rounds alternate."""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]
_FIGURES = ("wall_s", "cpu_s", "rss_mb")
_NOT_KEPT = "PYTHONDONTWRITEBYTECODE"
"""Where it is set, every process compiles anew what an installed package has compiled."""

Measured = dict[str, object]


def report(more: Mapping[str, object]) -> None:
    """Prints what this process has used so far, and `more`, for `compare` in its parent to read."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime, "rss_mb": peak_rss_mb(), **more}))


def peak_rss_mb() -> float:
    """Of this process alone: what getrusage tells is inherited over fork and outlives exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) / 1024


def compare(
    modes: Sequence[str],
    command: Callable[[str], Sequence[str]],
    rounds: int,
    budgets: Mapping[str, float],
) -> dict[str, list[Measured]]:
    """Runs every mode in turn, `rounds` times, and prints medians and ratios to the first mode.

    `command` gives the arguments after the Python interpreter that run one mode in a child.
    `budgets` are the highest allowed ratios of a mode's wall time.
    """
    runs: dict[str, list[Measured]] = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode, measured in runs.items():
            measured.append(_run(command(mode)))
    print_table(runs, budgets)
    return runs


def _run(arguments: Sequence[str]) -> Measured:
    environment = {name: value for name, value in os.environ.items() if name != _NOT_KEPT}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=_REPOSITORY,
        env=environment,
    )
    measured: Measured = json.loads(done.stdout)
    return measured | {"wall_s": time.perf_counter() - started}


def print_table(runs: Mapping[str, list[Measured]], budgets: Mapping[str, float]) -> None:
    """Prints medians of the runs of every mode, and their ratios to the first mode."""
    medians = {mode: typical(measured) for mode, measured in runs.items()}
    reference = next(iter(medians.values()))
    print(
        f"{'':17s} {'wall s':>8s} {'CPU s':>8s} {'RSS MB':>8s} {'wall x':>7s} {'CPU x':>7s} budget"
    )
    for mode, figures in medians.items():
        wall, cpu, rss = (figures[name] for name in _FIGURES)
        budget = f"{budgets[mode]:.2f}" if mode in budgets else ""
        print(
            f"{mode:17s} {wall:8.2f} {cpu:8.2f} {rss:8.0f} {wall / reference['wall_s']:7.2f}"
            f" {cpu / reference['cpu_s']:7.2f} {budget}"
        )


def typical(measured: Sequence[Measured]) -> dict[str, float]:
    """The median of each figure: wall_s, cpu_s, rss_mb."""
    return {name: statistics.median(float(str(run[name])) for run in measured) for name in _FIGURES}
