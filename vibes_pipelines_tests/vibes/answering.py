"""A small HTTP server that answers what a test tells it, and the clients that talk to it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from aiohttp import web

from vibes_pipelines.vibes.api_transport import Limits
from vibes_pipelines.vibes.api_version import ApiVersion
from vibes_pipelines.vibes.person_api import PersonApi
from vibes_pipelines.vibes.vibes_api import VibesApi

Result = TypeVar("Result")
FOR_EVER_S = 3_600
PATIENT_S, IMPATIENT_S = 60.0, 1.0
"""How long an answer is waited for: the machine may be slow; and where none will come."""

COMPANY = "/companies/A1b2C3"
ROOT = f"{COMPANY}/mobiledb"


class Platform(Protocol):
    async def handle(self, request: web.Request) -> web.StreamResponse: ...


@dataclass
class Seen:
    """One request as it arrived, path and query still encoded."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakePlatform:
    """Answers with what it was given, in order, the last one again and again.

    A text but `reset` and `hang` goes over the line as it is.
    """

    answers: list[web.Response | str]
    requests: list[Seen] = field(default_factory=list)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(seen.method, seen.path) for seen in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        body = json.loads(content) if content else None
        self.requests.append(Seen(request.method, request.raw_path, dict(request.headers), body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "reset":
            assert request.transport
            request.transport.abort()
            return web.Response()
        if answer == "hang":
            await asyncio.sleep(FOR_EVER_S)
            return web.Response()
        if isinstance(answer, str):
            assert request.transport
            request.transport.write(answer.encode())
            request.transport.close()
            return web.Response()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def serve(platform: Platform, talk: Callable[[int], Awaitable[Result]]) -> Result:
    """Serves `platform` on a port while `talk` talks to it."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", platform.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        return await talk(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def ask(
    platform: Platform, talk: Callable[[PersonApi], Awaitable[Result]], **limits: Any
) -> Result:
    """What `talk` gets from a PersonApi of its own."""

    async def talk_to(port: int) -> Result:
        async with build_api(port, **({"timeout_s": patience_s(platform)} | limits)) as api:
            return await talk(api)

    return asyncio.run(serve(platform, talk_to))


def ask_vibes(
    platform: Platform,
    talk: Callable[[VibesApi], Awaitable[Result]],
    version: ApiVersion = 2,
    **limits: Any,
) -> Result:
    """What `talk` gets from a VibesApi."""

    async def talk_to(port: int) -> Result:
        fast = {"rate_per_s": 1000, "events_per_s": 1000, "google_wallet_per_s": 1000}
        patience = {"backoff_s": 0.001, "timeout_s": patience_s(platform)}
        hasty = Limits(**(fast | patience | limits))
        async with VibesApi(
            address(port), "A1b2C3", "ada@example.com", "secret", hasty, version
        ) as api:
            return await talk(api)

    return asyncio.run(serve(platform, talk_to))


def patience_s(platform: Platform) -> float:
    """How long the client of a platform waits for an answer."""
    return IMPATIENT_S if "hang" in getattr(platform, "answers", ()) else PATIENT_S


def build_api(port: int, **limits: Any) -> PersonApi:
    fast = {"rate_per_s": 1000, "backoff_s": 0.001, "timeout_s": PATIENT_S}
    return PersonApi(address(port), "A1b2C3", "ada@example.com", "secret", **(fast | limits))


def address(port: int) -> str:
    return f"http://127.0.0.1:{port}/"


def refusal(status: int, *messages: str) -> web.Response:
    errors = [{"message": message, "code": 1} for message in messages]
    return web.json_response({"errors": errors}, status=status)
