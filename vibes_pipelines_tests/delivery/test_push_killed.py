"""A push killed with SIGKILL, again and again, over real HTTP: one effect per operation."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines_tests.support.deliveries import change, planned, update

DIFF_SET = "d" * 64
PERSONS = 900
KILL_AFTER = (1, 250, 560)
WAIT_S = 120

PUSH = """
import asyncio, sys
from vibes_pipelines.delivery.api_push import push
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.vibes.person_api import PersonApi

async def main(ledger_url, base_url, diff_set):
    with Ledger(ledger_url) as ledger:
        async with PersonApi(base_url, "A1b2C3", "user", "password", rate_per_s=5000) as api:
            operations = ledger.open_operations(diff_set, "persons", "api")
            await push(operations, api, ledger, {"first_name": "string"}, dry_run=False)

asyncio.run(main(*sys.argv[1:]))
"""


class CountingServer:
    """A platform of one route: the last body per person, effects and repeats counted apart."""

    def __init__(self) -> None:
        self.bodies: dict[str, object] = {}
        self.effects: Counter[str] = Counter()
        self.repeats: Counter[str] = Counter()
        self.seen = threading.Condition()
        self.silent_after: int | None = None
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "CountingServer":
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def requests(self) -> int:
        return self.effects.total() + self.repeats.total()

    def wait_for(self, requests: int) -> None:
        with self.seen:
            assert self.seen.wait_for(lambda: self.requests >= requests, WAIT_S)

    def _serve(self) -> None:
        runner = self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        route = "/companies/A1b2C3/mobiledb/persons/external/{external_person_id}"
        app.router.add_put(route, self._put)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return runner

    async def _put(self, request: web.Request) -> web.Response:
        person, body = request.match_info["external_person_id"], await request.json()
        with self.seen:
            is_new = self.bodies.get(person) != body
            (self.effects if is_new else self.repeats)[person] += 1
            self.bodies[person] = body
            self.seen.notify_all()
        while self.silent_after is not None and self.requests >= self.silent_after:
            await asyncio.sleep(0.01)
        return web.json_response({"external_person_id": person})


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as started:
        yield started


def start_push(ledger_url: str, server: CountingServer) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", PUSH, ledger_url, server.url, DIFF_SET]
    return subprocess.Popen(arguments, env=dict(os.environ))


def test_every_operation_has_exactly_one_effect(
    ledger_url: str, server: CountingServer, tmp_path: Path
) -> None:
    """Law: killing the process at any point and running again loses none and repeats none."""
    rows = [update(f"C{n}", change("first_name", f"Ada {n}")) for n in range(PERSONS)]
    with Ledger(ledger_url) as ledger:
        planned(ledger, tmp_path / "out", persons=rows)
        for requests in KILL_AFTER:
            server.silent_after = requests  # so that it cannot come to its end before it is killed
            pushing = start_push(ledger_url, server)
            server.wait_for(requests)
            pushing.send_signal(signal.SIGKILL)
            assert pushing.wait(WAIT_S) == -signal.SIGKILL
        server.silent_after = None
        assert ledger.status_counts(DIFF_SET) != {("persons", "api", "accepted"): PERSONS}
        assert start_push(ledger_url, server).wait(WAIT_S) == 0
        assert ledger.status_counts(DIFF_SET) == {("persons", "api", "accepted"): PERSONS}
    assert len(server.effects) == PERSONS
    assert set(server.effects.values()) == {1}
    assert server.repeats.total() < PERSONS
