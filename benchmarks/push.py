"""Pushes through the API: how much of the limit is used, and what a request costs.

    python -m benchmarks.push [--requests 20000] [--seconds 20] [--rounds 3]

bare     32 workers of aiohttp that send the same bodies and read the answers
client   the client of the Person API, its limiter lifted: lanes, retries, answers judged
push     the whole delivery: intents and receipts in a ledger (SQLite)

These three against a server that answers everything at once, in a process of its own; compare
their CPU. Then a push at the platform's limit, see `push_at_limit`.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import compare, report
from benchmarks.push_at_limit import Load, run

WORKERS = 32
UNLIMITED_PER_S = 1_000_000
BUDGETS = {"client": 1 / 0.7}
"""At least 0.7 of the requests per CPU second of the bare loop; told of the wall as well."""

_SERVE = """
import asyncio
from aiohttp import web

async def answer(request):
    await request.read()
    return web.json_response({"person_key": "k", "external_person_id": "C1"})

async def main():
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def serving() -> Iterator[int]:
    """Yields the port of a server that answers every request with 200 at once."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _body(number: int) -> dict[str, object]:
    return {"external_person_id": f"N{number}", "custom_fields": {"first_name": f"Ada {number}"}}


async def _work(requests: int, send: Callable[[int], Awaitable[object]]) -> None:
    numbers = iter(range(requests))

    async def worker() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(worker() for _ in range(WORKERS)))


async def _bare(port: int, requests: int) -> None:
    import aiohttp  # noqa: PLC0415 - part of what is measured

    url = f"http://127.0.0.1:{port}/companies/A1b2C3/mobiledb/persons/external/N"
    connector = aiohttp.TCPConnector(limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(number: int) -> None:
            async with session.put(f"{url}{number}", json=_body(number)) as response:
                response.raise_for_status()
                await response.read()

        await _work(requests, send)


async def _client(port: int, requests: int) -> None:
    from vibes_pipelines.vibes.person_api import PersonApi  # noqa: PLC0415 - as above

    account = (f"http://127.0.0.1:{port}", "A1b2C3", "user", "password")
    async with PersonApi(*account, rate_per_s=UNLIMITED_PER_S, concurrency=WORKERS) as api:
        await _work(requests, lambda number: api.upsert(f"N{number}", _body(number)))


async def _push(address: tuple[str, str, str], requests: int) -> float:
    """Plans and pushes; returns the seconds that the push alone took."""
    from vibes_pipelines.delivery.api_push import push  # noqa: PLC0415 - as above
    from vibes_pipelines.store.ledger import Ledger  # noqa: PLC0415 - as above
    from vibes_pipelines.vibes.person_api import PersonApi  # noqa: PLC0415 - as above
    from vibes_pipelines_tests.support.deliveries import (  # noqa: PLC0415 - not of the others
        TYPES,
        add,
        change,
        planned,
    )

    url, user, password = address
    with tempfile.TemporaryDirectory() as name, Ledger(f"sqlite:///{name}/ledger.db") as ledger:
        rows = [add(f"N{n}", change("first_name", f"Ada {n}")) for n in range(requests)]
        planned(ledger, Path(name) / "out", persons=rows)
        async with PersonApi(url, "A1b2C3", user, password, rate_per_s=UNLIMITED_PER_S) as api:
            operations = ledger.open_operations("d" * 64, "persons", "api")
            began = time.perf_counter()
            result = await push(operations, api, ledger, TYPES, dry_run=False)
            assert result.accepted == requests
            return time.perf_counter() - began


def _measure(mode: str, port: int, requests: int) -> None:
    if mode == "push":
        address = (f"http://127.0.0.1:{port}", "user", "password")
        seconds = asyncio.run(_push(address, requests))
        report({"push_s": seconds})
        return
    asyncio.run({"bare": _bare, "client": _client}[mode](port, requests))
    report({})


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mode")
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.mode:
        _measure(given.mode, given.port, given.requests)
        return
    with serving() as port:
        print(f"{given.requests:,} requests, {WORKERS} at once; bare = 1, the budget is of the CPU")
        told = ["--requests", str(given.requests), "--port", str(port)]
        compare(
            ("bare", "client", "push"),
            lambda mode: ["-m", "benchmarks.push", *told, "--mode", mode],
            given.rounds,
            BUDGETS,
        )
    print(run(Load(given.seconds)).sentence)


if __name__ == "__main__":
    main()
