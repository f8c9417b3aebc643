"""The sandbox's API under load: requests a second and how long each answer takes.

    python -m benchmarks.sandbox [--persons 10000] [--seconds 10]

The sandbox runs whole in a process of its own, its request limit lifted, its state saved as ever:
API, SFTP, share, CRM, callbacks. 32 workers of aiohttp read persons by key and by number, change
them, add others, and ask for subscriptions, in turn; every answer is judged, and in the end the
sandbox's audit must have counted the same. Then the same at 1,000 requests a second, which is what
it has to stand: latencies at full load tell about the queue before them.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

LEAST_PER_S = 1_000
WORKERS = 32


@dataclass(frozen=True)
class Served:
    """A running sandbox: where its API is, how to log in, and persons that it has.

    `answered` is filled when it has stopped: how many requests it counted itself, by status.
    """

    url: str
    headers: Mapping[str, str]
    persons: list[dict[str, str]]
    answered: Counter[int] = field(default_factory=Counter)


@dataclass
class Load:
    """What became of the requests: kinds answered rightly, each answer's seconds, wrong answers."""

    kinds: Counter[str] = field(default_factory=Counter)
    answers_s: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return len(self.answers_s) / self.took_s

    @property
    def sentence(self) -> str:
        """One line to be printed."""
        cuts = statistics.quantiles(self.answers_s, n=100)
        return (
            f"{self.per_s:,.0f} requests/s; answers after {cuts[49] * 1000:.1f} ms (median), "
            f"{cuts[98] * 1000:.1f} ms (99 %), {max(self.answers_s) * 1000:.0f} ms (longest); "
            f"{self.wrong.total()} wrong {dict(self.wrong) or ''}".rstrip()
        )


@contextmanager
def serving(persons: int, home: Path) -> Iterator[Served]:
    """A sandbox in a process of its own, whose request limit is lifted."""
    command = [sys.executable, "-m", "benchmarks.sandbox", "--serve", str(home)]
    with subprocess.Popen(
        [*command, "--persons", str(persons)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            login = b64encode(f"{told['user']}:{told['password']}".encode()).decode()
            headers = {"Authorization": f"Basic {login}", "X-API-Version": "2"}
            served = Served(told["url"], headers, told["persons"])
            yield served
        finally:
            process.stdin.close()
            counted = process.stdout.read()
        for request in json.loads(counted):
            served.answered[request["status"]] += request["count"]


def _serve(home: Path, persons: int) -> None:
    """The child: serves until its standard input ends."""
    from vibes_pipelines.sandbox.population import build_world  # noqa: PLC0415 - of the child alone
    from vibes_pipelines.sandbox.service import Sandbox  # noqa: PLC0415 - as above

    with Sandbox(home, build_world(persons, seed=5), rate_per_s=None) as sandbox:
        environment = sandbox.environment()
        known = [
            {"key": one.person_key, "external": one.external_person_id, "mdn": one.mdn}
            for one in sandbox.platform.persons.values()
            if one.external_person_id and one.mdn
        ]
        told = {
            "url": f"{environment['VIBES_API_URL']}/companies/{sandbox.platform.company_key}",
            "user": environment["VIBES_API_USER"],
            "password": environment["VIBES_API_PASSWORD"],
            "persons": known,
        }
        print(json.dumps(told), flush=True)
        sys.stdin.read()
        print(json.dumps(sandbox.audit()["requests"]), flush=True)


async def drive(served: Served, seconds: float, per_s: float | None = None) -> Load:
    """Asks for so long, with all workers, or at `per_s` requests a second."""
    load, calls = Load(), _calls(served, f"{per_s}")
    began = time.perf_counter()
    due = itertools.count() if per_s is None else (n / per_s for n in itertools.count())

    async def worker(session: aiohttp.ClientSession) -> None:
        for at in due:
            if per_s is not None:
                await asyncio.sleep(began + at - time.perf_counter())
            if time.perf_counter() - began >= seconds:
                return
            await _ask(session, next(calls), load)

    connector = aiohttp.TCPConnector(limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector, headers=served.headers) as session:
        await asyncio.gather(*(worker(session) for _ in range(WORKERS)))
    load.took_s = time.perf_counter() - began
    return load


@dataclass(frozen=True)
class _Call:
    """One request, and what its answer must say."""

    kind: str
    method: str
    url: URL
    status: int
    says: tuple[str, str]
    body: bytes | None = None


def _calls(served: Served, label: str) -> Iterator[_Call]:
    """Five kinds in turn, about persons in a random order that `label` makes."""
    root = f"{served.url}/mobiledb/persons"
    order = random.Random(f"load {label}")
    for number in itertools.count():
        one = order.choice(served.persons)
        key = "person_key", one["key"]
        by_external = URL(f"{root}/external/{one['external']}", encoded=True)
        mdn = f"{root}?mdn=%2B{one['mdn'].removeprefix('+')}"
        name = f"Ada {order.random()}"
        body = json.dumps({"custom_fields": {"first_name": name}}).encode()
        new = json.dumps({"external_person_id": f"N{name}", "custom_fields": {}}).encode()
        yield (
            _Call("read", "GET", by_external, 200, key),
            _Call("found", "GET", URL(mdn, encoded=True), 200, key),
            _Call("changed", "PUT", by_external, 200, ("first_name", name), body),
            _Call("added", "POST", URL(f"{root}/"), 201, ("external_person_id", f"N{name}"), new),
            _Call("listed", "GET", URL(f"{root}/{one['key']}/subscriptions"), 200, ("", "")),
        )[number % 5]


async def _ask(session: aiohttp.ClientSession, call: _Call, load: Load) -> None:
    began = time.perf_counter()
    headers = {"Content-Type": "application/json"} if call.body else None
    async with session.request(call.method, call.url, data=call.body, headers=headers) as answer:
        content = await answer.read()
    load.answers_s.append(time.perf_counter() - began)
    name, value = call.says
    is_right = answer.status == call.status and name.encode() in content
    if is_right and json.dumps(value)[1:-1].encode() in content:
        load.kinds[call.kind] += 1
    else:
        load.wrong[f"{call.kind}: {answer.status}"] += 1


def main() -> None:
    """Parses the arguments and prints how much the sandbox serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--persons", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(arguments.serve, arguments.persons)
        return
    asked = 0
    with (
        tempfile.TemporaryDirectory() as home,
        serving(arguments.persons, Path(home) / "sandbox") as served,
    ):
        print(f"{arguments.persons:,} persons, {WORKERS} workers (budget {LEAST_PER_S:,}/s)")
        for per_s in (None, LEAST_PER_S):
            load = asyncio.run(drive(served, arguments.seconds, per_s))
            asked += len(load.answers_s)
            manner = "as fast as it can" if per_s is None else f"at {per_s:,}/s"
            print(f"{manner:20s}{load.sentence}")
    print(f"asked {asked:,}, counted by the sandbox {served.answered.total():,}")


if __name__ == "__main__":
    main()
