"""The receiver: an ASGI application that stores each body and answers.

The platform sends again after a 3XX, a 5XX or no answer, and never after a 4XX: such an event is
lost (the Vibes documentation, Callbacks). So whatever could be stored is answered with 200, garbage
too, and whatever could not with 503. The one deliberate 4XX is 403, for a source that is not
allowed: its address is not, or it shows no certificate in an allowed name.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from vibes_pipelines.callbacks.intake import Intake, Posted
from vibes_pipelines.callbacks.metrics import Board, Tally, exposition
from vibes_pipelines.callbacks.signup import OpenSignup, SignupDesk
from vibes_pipelines.callbacks.tls import STATE_KEY
from vibes_pipelines.callbacks.tribe import PATH as TRIBE_PATH
from vibes_pipelines.callbacks.tribe import TribeGate
from vibes_pipelines.store.inbox import Inbox

Network = IPv4Network | IPv6Network

MAX_BODY_BYTES = 1024 * 1024
PATHS = ("/callbacks", "/callbacks/{anything:path}")

_MAX_PATH = 1_024
_MAX_ADDRESS = 64
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("vibes_pipelines.callbacks")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is taken in. Without `allowed` networks every source is; times are in seconds.

    With `client_names` a callback needs a client certificate in one of these names.
    """

    allowed: Sequence[Network] = ()
    client_names: Sequence[str] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    read_timeout_s: float = 30
    store_timeout_s: float = 10


@dataclass
class Receiver:
    """The endpoints over one open inbox; sign-ups are taken when there is somebody to take them."""

    inbox: Inbox
    rules: Rules = field(default_factory=Rules)
    tally: Tally = field(default_factory=Tally)
    board: Board | None = None
    signup: OpenSignup | None = None
    tribe: TribeGate | None = None

    def __post_init__(self) -> None:
        self._intake = Intake(self.inbox.store)
        self._desk = SignupDesk()
        self._names = frozenset(name.lower() for name in self.rules.client_names)

    def app(self) -> Starlette:
        """The application; its inbox stays open until it has stopped."""
        taken_in = [Route(path, self.receive, methods=["POST", "PUT"]) for path in PATHS]
        signed_up = [Route("/signup", self._desk.receive, methods=["POST"])] if self.signup else []
        if self.tribe:
            taken_in.append(Route(TRIBE_PATH, self.receive_tribe, methods=["POST"]))
        told = [Route("/health", self.health), Route("/metrics", self.metrics)]
        return Starlette(
            routes=[*taken_in, *signed_up, *told],
            lifespan=self._lifespan,
        )

    async def receive(self, request: Request) -> Response:
        """Stores the body, then answers."""
        answer = await self._receive(request)
        if self.board:
            self.board.publish(self.tally)
        return answer

    async def receive_tribe(self, request: Request) -> Response:
        """Stores a webhook of Tribe CRM, then answers; its signature says whose it is."""
        answer = await self._take_in(request, self._read_tribe)
        if self.board:
            self.board.publish(self.tally)
        return answer

    async def _receive(self, request: Request) -> Response:
        source = request.client.host if request.client else "unknown"
        if not self._is_allowed(source) or not self._is_named(request):
            self.tally.refused += 1
            return PlainTextResponse("this source is not allowed\n", 403)
        return await self._take_in(request, self._read)

    async def _take_in(
        self, request: Request, read: Callable[[Request, str], Awaitable[Posted]]
    ) -> Response:
        source = request.client.host if request.client else "unknown"
        self.tally.received += 1
        try:
            async with asyncio.timeout(self.rules.read_timeout_s):
                posting = await read(request, source)
            async with asyncio.timeout(self.rules.store_timeout_s):
                self.tally.count(await self._intake.put(posting))
        except Exception as failed:  # noqa: BLE001 - whatever it was, the platform must send again
            self.tally.failed += 1
            log.error("a callback was not stored: %s", type(failed).__name__)  # noqa: TRY400 - the error may hold the body
            return PlainTextResponse("not stored; send it again\n", 503)
        return PlainTextResponse("stored\n")

    async def health(self, _request: Request) -> Response:
        """Whether a callback could be stored now."""
        if await self._database_answers():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the database does not answer\n", 503)

    async def metrics(self, _request: Request) -> Response:
        """Counts of all processes since the start, and of the inbox by status."""
        try:
            async with asyncio.timeout(self.rules.store_timeout_s):
                backlog = await run_in_threadpool(self.inbox.backlog)
        except Exception as failed:  # noqa: BLE001 - the counts of the process are there all the same
            log.warning("the inbox cannot be counted: %s", type(failed).__name__)
            backlog = None
        tally = self.board.total() if self.board else self.tally
        return Response(exposition(tally, backlog), media_type=_METRICS_TYPE)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._intake.close)
            if self.signup:
                self._desk.registrar = await stack.enter_async_context(self.signup())
            yield

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(self.rules.store_timeout_s):
                await run_in_threadpool(self.inbox.ping)
        except Exception as failed:  # noqa: BLE001 - the answer to the question asked
            log.warning("the database does not answer: %s", type(failed).__name__)
            return False
        return True

    async def _read(self, request: Request, source: str) -> Posted:
        """The whole body is read, so that the sender gets its answer; its beginning is kept."""
        digest, kept, size = hashlib.sha256(), bytearray(), 0
        async for chunk in request.stream():
            digest.update(chunk)
            kept += chunk[: self.rules.max_body_bytes - len(kept)]
            size += len(chunk)
        path = str(request.scope["path"]).replace("\0", "")[:_MAX_PATH]
        return Posted(source[:_MAX_ADDRESS], path, bytes(kept), size, digest.hexdigest())

    async def _read_tribe(self, request: Request, source: str) -> Posted:
        posting = await self._read(request, source)
        gate = self.tribe or TribeGate(None)
        is_whole = not posting.is_cut
        verdict = gate.verdict(posting.body, request.headers) if is_whole else "invalid"
        return replace(posting, tribe=verdict)

    def _is_allowed(self, source: str) -> bool:
        if not self.rules.allowed:
            return True
        address = _address(source)
        return address is not None and any(address in network for network in self.rules.allowed)

    def _is_named(self, request: Request) -> bool:
        if not self._names:
            return True
        shown: frozenset[str] = getattr(request.state, STATE_KEY, frozenset())
        return not self._names.isdisjoint(shown)


def _address(source: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(source)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
