"""Pushes at the platform's limit: how much of it is used, and whether anything is turned away.

    python -m benchmarks.push_at_limit [--seconds 20] [--opt-outs 0] [--killed]

A delivery with its ledger against the sandbox, which counts the requests of every second and
refuses what is too many. With opt-outs a second process carries so many beside the delivery, as the
lane of opt-outs does, and tells how long each took from its begin. `--killed`: before that one,
another is killed in the middle of its work.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_PER_S = 100
LEAST_OF_LIMIT = 0.98

_ROOT = Path(__file__).resolve().parents[1]
_READY = "ready"
_LIST = "1234"
_ALONE_S = 2.0
"""What the delivery has for itself before the first opt-outs, and between the killed and the next:
as long as it takes to have the whole rate."""


@dataclass(frozen=True)
class Load:
    """How many pushes there are, in seconds of the limit, and how many opt-outs beside them."""

    seconds: int = 20
    opt_outs: int = 0
    killed: bool = False
    rate_per_s: int = LIMIT_PER_S
    opt_outs_per_s: int = 2


@dataclass
class Outcome:
    """What became of a load. `opt_outs_s`: from the begin of its lane to each answer."""

    load: Load
    took_s: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    opt_outs_s: list[float] = field(default_factory=list)

    @property
    def of_limit(self) -> float:
        """The share of the limit that the pushes used, without the opt-outs."""
        return self.load.seconds / self.took_s

    @property
    def refused(self) -> int:
        """Requests answered with 429, of either process."""
        return self.statuses.get(429, 0)

    @property
    def sentence(self) -> str:
        """One line to be printed."""
        load = self.load
        told = (
            f"{load.seconds * load.rate_per_s:,} pushes at {load.rate_per_s}/s: {self.of_limit:.1%}"
            f" of the limit (budget {LEAST_OF_LIMIT:.0%}), {self.refused} answered with 429"
            " (budget 0)"
        )
        if self.opt_outs_s:
            first, last = min(self.opt_outs_s), max(self.opt_outs_s)
            told += f"; {len(self.opt_outs_s)} opt-outs after {first:.1f} to {last:.1f} s"
        return told


def run(load: Load) -> Outcome:
    """Drives a new sandbox and a new ledger."""
    from vibes_pipelines.sandbox.population import build_world  # noqa: PLC0415 - not of the lane
    from vibes_pipelines.sandbox.service import Sandbox  # noqa: PLC0415 - as above

    outcome = Outcome(load)
    lanes = 1 + load.killed if load.opt_outs else 0
    world = build_world(20 + 2 * lanes * load.opt_outs, seed=5)
    with (
        tempfile.TemporaryDirectory() as name,
        Sandbox(Path(name) / "sandbox", world, rate_per_s=load.rate_per_s) as sandbox,
    ):
        environment = {
            **sandbox.environment(),
            "VIBES_HOME": str(Path(name) / "data"),
            "VIBES_LEDGER_URL": f"sqlite:///{name}/ledger.db",
            "VIBES_SYNC_CONFIG": str(_ROOT / "sync.example.yaml"),
            "VIBES_API_OPT_OUTS_PER_S": str(load.opt_outs_per_s),
        }
        persons = list(sandbox.platform.persons)[: lanes * load.opt_outs]
        for person_key in persons:
            sandbox.platform.subscribe(person_key, _LIST, sandbox.now())
        opting_out = [" ".join(persons[number::lanes]) for number in range(lanes)]
        with _opt_outs_beside(outcome, environment, opting_out) as begun:
            outcome.took_s = _deliver(load, environment, Path(name) / "diff_set", begun)
        for entry in sandbox.audit()["requests"]:  # type: ignore[attr-defined]
            status = entry["status"]
            outcome.statuses[status] = outcome.statuses.get(status, 0) + entry["count"]
    return outcome


def _deliver(
    load: Load, environment: Mapping[str, str], diff_set: Path, begun: threading.Event
) -> float:
    """Plans and pushes; returns the seconds that the push alone took, of which `begun` tells."""
    from vibes_pipelines.delivery.api_push import push  # noqa: PLC0415 - not of the lane
    from vibes_pipelines.settings import Settings  # noqa: PLC0415 - as above
    from vibes_pipelines.stages.api import person_api  # noqa: PLC0415 - as above
    from vibes_pipelines.stages.api_rate import calls_of_deliveries  # noqa: PLC0415 - as above
    from vibes_pipelines.stages.project import Project, open_project  # noqa: PLC0415 - as above
    from vibes_pipelines_tests.support.deliveries import (  # noqa: PLC0415 - as above
        TYPES,
        add,
        change,
        planned,
    )

    count = load.seconds * load.rate_per_s

    async def deliver(project: Project) -> float:
        with calls_of_deliveries(project) as calls:
            async with person_api(project, calls) as api:
                operations = project.ledger.open_operations("d" * 64, "persons", "api")
                begun.set()
                began = time.perf_counter()
                result = await push(operations, api, project.ledger, TYPES, dry_run=False)
                assert result.accepted == count
                return time.perf_counter() - began

    with open_project(Settings(environment)) as project:
        rows = [add(f"N{n}", change("first_name", f"Ada {n}")) for n in range(count)]
        planned(project.ledger, diff_set, persons=rows)
        return asyncio.run(deliver(project))


@contextmanager
def _opt_outs_beside(
    outcome: Outcome, environment: Mapping[str, str], opting_out: Sequence[str]
) -> Iterator[threading.Event]:
    """Has a lane for each of these at work once the push has begun, and waits for their end."""
    begun = threading.Event()
    with ExitStack() as running:
        lanes = {_start_lane(environment): persons for persons in opting_out}
        for lane in lanes:
            running.callback(_end, lane)
        beside = threading.Thread(target=_conduct, args=(lanes, outcome, begun), daemon=True)
        beside.start()
        yield begun
        beside.join()


def _end(lane: subprocess.Popen[str]) -> None:
    lane.kill()
    lane.communicate()


def _start_lane(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A process that waits for its begin."""
    lane = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.push_at_limit", "--lane"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env={**os.environ, **environment},
    )
    assert lane.stdout is not None
    assert lane.stdout.readline().strip() == _READY
    return lane


def _conduct(
    lanes: Mapping[subprocess.Popen[str], str], outcome: Outcome, begun: threading.Event
) -> None:
    """One lane after the other; all but the last are killed after their first answer."""
    begun.wait()
    for number, (lane, persons) in enumerate(lanes.items(), 1):
        time.sleep(_ALONE_S)
        assert lane.stdin is not None
        assert lane.stdout is not None
        lane.stdin.write(f"{persons}\n")
        lane.stdin.flush()
        for line in lane.stdout:
            outcome.opt_outs_s.append(float(line))
            if number < len(lanes):
                lane.kill()
                lane.wait()  # until then the process counts as being there
                break


def _carry() -> None:
    """What the lane does, without what it reads and writes; prints the seconds of each opt-out.

    Persons come by their keys in one line of the standard input, with which it begins.
    """
    from vibes_pipelines.settings import Settings  # noqa: PLC0415 - a lane only
    from vibes_pipelines.stages.api_rate import LEASE, calls_of_opt_outs  # noqa: PLC0415 - as above
    from vibes_pipelines.store.kept_lease import kept_lease  # noqa: PLC0415 - as above
    from vibes_pipelines.store.leases import Leases  # noqa: PLC0415 - as above
    from vibes_pipelines.vibes.person_api import PersonApi  # noqa: PLC0415 - as above
    from vibes_pipelines.vibes.rate_limit import RateLimiter  # noqa: PLC0415 - as above

    settings = Settings()
    account = settings.api
    address = (account.url, "A1b2C3", account.user, account.password.get_secret_value())
    with Leases(settings.ledger_url) as leases:
        print(_READY, flush=True)
        persons = sys.stdin.readline().split()
        began = time.perf_counter()

        async def carry(api: PersonApi, person_key: str) -> None:
            answer = await api.unsubscribe(_LIST, person_key=person_key)
            assert answer.outcome == "accepted"
            print(time.perf_counter() - began, flush=True)

        async def carry_all(calls: RateLimiter) -> None:
            async with PersonApi(*address, calls=calls) as api:
                await asyncio.gather(*(carry(api, person_key) for person_key in persons))

        with kept_lease(leases, LEASE) as lease:
            asyncio.run(carry_all(calls_of_opt_outs(settings, lease)))


def main() -> None:
    """Runs one load and prints its figures; ends with 1 when anything was turned away."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--opt-outs", type=int, default=0)
    parser.add_argument("--killed", action="store_true")
    parser.add_argument("--lane", action="store_true", help="be the other process")
    given = parser.parse_args()
    if given.lane:
        _carry()
        return
    outcome = run(Load(given.seconds, given.opt_outs, given.killed))
    print(outcome.sentence)
    if outcome.refused:
        sys.exit("the limit was exceeded")


if __name__ == "__main__":
    main()
