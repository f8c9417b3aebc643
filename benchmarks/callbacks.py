"""The receiver under load: callbacks per second, time to the answer, and that none is lost.

A PostgreSQL of its own (durable settings), the receiver as its command starts it, and a sender
that repeats what was not answered with 2xx. With `--disturb` the receiver is killed after a third
of the time and the database after two thirds; both come back. Needs PostgreSQL's programs.

    python -m benchmarks.callbacks [--rate 1000] [--seconds 60] [--processes 1] [--disturb]
"""

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from vibes_pipelines_tests.support.real_parts import free_port
from vibes_pipelines_tests.support.restartable_postgresql import (
    RestartablePostgresql,
    restartable_postgresql,
)
from vibes_pipelines_tests.support.served_receiver import Served, serving

P99_BUDGET_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Load:
    """How hard the receiver is driven. `away_s`: how long a killed part stays away."""

    rate_per_s: int = 1_000
    seconds: int = 60
    processes: int = 1
    disturb: bool = False
    away_s: float = 1.0


@dataclass
class Outcome:
    """What a load led to; times in seconds, CPU in cores while the load lasted."""

    load: Load
    answered: int
    stored: int
    again: int
    wall_s: float
    first_try_s: list[float]
    cores: Mapping[str, float] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """How many callbacks there were."""
        return self.load.rate_per_s * self.load.seconds

    @property
    def lost(self) -> int:
        """Callbacks that were answered with 2xx and are not in the inbox."""
        return self.answered - self.stored

    def percentile_s(self, percent: float) -> float:
        """Of the answers to callbacks that were sent once."""
        ordered = sorted(self.first_try_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def report(self) -> dict[str, object]:
        """The figures as they are printed."""
        return {
            "rate_per_s": self.load.rate_per_s,
            "seconds": self.load.seconds,
            "processes": self.load.processes,
            "disturbed": self.load.disturb,
            "sent": self.sent,
            "answered": self.answered,
            "stored": self.stored,
            "lost": self.lost,
            "sent_again": self.again,
            "reached_per_s": round(self.answered / self.wall_s, 1),
            **{f"p{p}_ms": round(self.percentile_s(p) * 1000, 1) for p in (50, 99, 99.9)},
            **{f"{name}_cores": round(used, 2) for name, used in self.cores.items()},
        }


def run(load: Load) -> Outcome:
    """Drives a new receiver over a new database."""
    with restartable_postgresql() as database, ExitStack() as stack:
        receiver = _Receiver(database.url, load.processes, stack)
        parts = {"receiver": receiver.served.process.pid, "database": database.process.pid}
        before = {name: _cpu_s(pid) for name, pid in parts.items()}
        with _sending(receiver.port, load) as sender:
            if load.disturb:
                _disturb(receiver, database, load)
            output, _ = sender.communicate()
        sent = json.loads(output)
        cores = {"sender": sent["cpu_s"] / sent["wall_s"]}
        if not load.disturb:
            used = {name: _cpu_s(pid) - before[name] for name, pid in parts.items()}
            cores |= {name: seconds / sent["wall_s"] for name, seconds in used.items()}
        return Outcome(
            load,
            answered=sent["answered"],
            stored=_stored(database),
            again=sent["again"],
            wall_s=sent["wall_s"],
            first_try_s=sent["first_try_s"],
            cores=cores,
        )


class _Receiver:
    """The receiver's command on one port, killed and started again at will."""

    def __init__(self, url: str, processes: int, stack: ExitStack) -> None:
        self._url, self._processes, self._stack = url, processes, stack
        self.port = free_port()
        self.served = self._start()

    def kill(self) -> None:
        self.served.process.kill()
        self.served.process.wait()

    def start(self) -> None:
        self.served = self._start()

    def _start(self) -> Served:
        options = ("--processes", str(self._processes))
        served = serving(self._url, *options, port=self.port, errors=subprocess.DEVNULL)
        return self._stack.enter_context(served)


def _disturb(receiver: _Receiver, database: RestartablePostgresql, load: Load) -> None:
    time.sleep(load.seconds / 3)
    receiver.kill()
    time.sleep(load.away_s)
    receiver.start()
    time.sleep(load.seconds / 3)
    database.kill()
    time.sleep(load.away_s)
    database.start()


@contextmanager
def _sending(port: int, load: Load) -> "Iterator[subprocess.Popen[str]]":
    arguments = (str(port), str(load.rate_per_s), str(load.seconds))
    command = [sys.executable, "-m", "benchmarks.callbacks_sender", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def _stored(database: RestartablePostgresql) -> int:
    """How many of the events are in the inbox."""
    address = database.url.replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT count(DISTINCT event_id) FROM callbacks").fetchone()
    assert found
    return int(found[0])


def _cpu_s(pid: int) -> float:
    """What a process and its children have used, those that ended included."""
    stat = _proc(pid, "stat").rpartition(")")[2].split()
    own = sum(map(int, stat[11:15])) / _TICKS if stat else 0.0
    children = _proc(pid, "task", str(pid), "children").split()
    return own + sum(_cpu_s(int(child)) for child in children)


def _proc(pid: int, *names: str) -> str:
    try:
        return Path("/proc", str(pid), *names).read_text(encoding="utf-8")
    except OSError:
        return ""


def main() -> None:
    """Runs one load and prints its figures; ends with 1 when a callback was lost."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1_000, help="callbacks per second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--processes", type=int, default=1, help="of the receiver")
    parser.add_argument("--disturb", action="store_true", help="kill receiver and database")
    given = parser.parse_args()
    outcome = run(Load(given.rate, given.seconds, given.processes, given.disturb))
    print(json.dumps(outcome.report(), indent=2))
    if not given.disturb and outcome.percentile_s(99) > P99_BUDGET_S:
        print(f"p99 is above {P99_BUDGET_S * 1000:.0f} ms", file=sys.stderr)
    if outcome.lost or outcome.answered < outcome.sent:
        sys.exit("callbacks were lost")


if __name__ == "__main__":
    main()
