"""HTTP to the Vibes API: version header, login, rate limits, retries. Knows no route.

Rules: the Vibes documentation, Technical Details and Versions and Compatibility. Refusals come
back as replies; only what says nothing about the request itself is tried again, and a request
whose repetition would do harm only when the first certainly did nothing.
"""

import asyncio
import base64
import json
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Self

import aiohttp
from yarl import URL

from vibes_pipelines.http_exchange import Answered, NoAnswer, NobodyToAsk, exchange
from vibes_pipelines.vibes.api_version import ApiVersion
from vibes_pipelines.vibes.error_classes import lookup
from vibes_pipelines.vibes.rate_limit import RateLimiter

LONGEST_BACKOFF_S = 30.0

TURNED_AWAY = frozenset({425, 429})
"""Statuses after which nothing was done."""

_NOT_NOW = TURNED_AWAY | {408}
"""Refusals of the moment, not of the request; a 408 may be of a proxy, and leaves it in doubt."""

CALLS = "calls"
EVENTS = "events"
GOOGLE_WALLET = "google_wallet"
"""Rate lanes. Calls of one app have their own: `app_lane`."""


class VibesApiError(Exception):
    """The API answered a read in a way that says nothing about the record asked for."""


class VibesAuthError(VibesApiError):
    """The login was refused; every further request would be.

    `in_doubt`: what was refused had begun before, and that part may have been applied.
    """

    error_class = "HTTP 401"
    in_doubt = False


class VibesForbidden(VibesAuthError):  # noqa: N818 - the name says what is wrong
    """The login is known and has no right to this record, or to any of its kind.

    An assumption: the documentation knows a 403 of broadcasts alone, which nothing here writes.
    """

    error_class = "HTTP 403"


class VibesUnavailable(VibesApiError):  # noqa: N818 - the name says what is wrong
    """Transient, and every attempt failed. For a write, whether it was applied is unknown.

    `did_nothing`: the last attempt certainly was not applied, because it was turned away (425, 429)
    or never left.
    """

    def __init__(
        self,
        error_class: str,
        status: int | None,
        retry_after_s: float | None = None,
        *,
        did_nothing: bool = False,
    ):
        super().__init__(f"Vibes API: {error_class}, at every attempt; try again later")
        self.error_class = error_class
        self.status = status
        self.retry_after_s = retry_after_s
        self.did_nothing = did_nothing


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of the API: 2xx, or a refusal of this one request.

    `is_repeat`: an earlier attempt of the request may have been applied already.
    """

    status: int
    content: bytes
    is_repeat: bool = False

    @property
    def is_success(self) -> bool:
        """True for every 2xx; the documentation contradicts itself on which one."""
        return 200 <= self.status < 300

    @property
    def is_empty(self) -> bool:
        """True when there is no body, or nothing but blanks in it."""
        return not self.content.strip()

    def json(self) -> Any:
        """The body, or None when there is none or it is not JSON. Some refusals have no body."""
        try:
            return json.loads(self.content) if self.content else None
        except (ValueError, RecursionError):
            return None

    def message(self) -> str | None:
        """The messages of `errors[]`, joined; None without any."""
        body = self.json()
        errors = body.get("errors") if isinstance(body, dict) else None
        if not isinstance(errors, list):
            return None
        texts = [str(error["message"]) for error in errors if _has_message(error)]
        return "; ".join(texts) or None


@dataclass(frozen=True)
class Limits:
    """How hard the API is driven. `backoff_s`: before the second attempt; doubles from there.

    `rate_per_s` is for calls of one company key and for those of each app; events and updates of
    Google Wallet passes have rates of their own. `concurrency` holds in each lane.
    """

    rate_per_s: float = 100
    concurrency: int = 32
    timeout_s: float = 30
    max_attempts: int = 5
    backoff_s: float = 0.5
    events_per_s: float = 300
    google_wallet_per_s: float = 20

    def rate(self, lane: str) -> float:
        """Requests per second allowed in a lane."""
        own = {EVENTS: self.events_per_s, GOOGLE_WALLET: self.google_wallet_per_s}
        return own.get(lane, self.rate_per_s)


def app_lane(app_id: str) -> str:
    """The lane of the calls about one app."""
    return f"app {app_id}"


@dataclass
class _Lane:
    """One kind of requests: those in flight, and their rate. A slow lane never blocks another."""

    slots: asyncio.Semaphore
    rates: list[RateLimiter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Send:
    """One request as it is sent, and whether it may be sent twice."""

    method: str
    url: URL
    data: bytes | None
    repeatable: bool


class ApiTransport:
    """An open connection pool to one API; use it as an async context manager.

    `calls` is the limiter of the company's calls, where several clients share it or its rate
    changes; without it they have `limits.rate_per_s`.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        password: str,
        limits: Limits,
        version: ApiVersion = 2,
        calls: RateLimiter | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._limits = limits
        self._calls = calls
        self.version: ApiVersion = version
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),
            "Content-Type": "application/json",
            "X-API-Version": str(version),
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._lanes: dict[str, _Lane] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the lanes limit it
            timeout=aiohttp.ClientTimeout(total=self._limits.timeout_s),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        lane: str = CALLS,
        repeatable: bool = True,
    ) -> Reply:
        """Sends one request, again after 408, 425, 429, 5xx, timeouts and broken connections.

        Args:
            method: e.g. `PUT`.
            path: path and query below the host, already percent-encoded.
            body: the JSON body, if any.
            lane: whose rate it counts against.
            repeatable: whether a second request does no more than the first. When not, it is
                only sent again after one that certainly did nothing.

        Raises:
            VibesAuthError: 401, at once; `VibesForbidden` for 403.
            VibesUnavailable: every attempt failed, or one whose effect is unknown did.
        """
        url = URL(self._base_url + path, encoded=True)
        data = json.dumps(body).encode() if body is not None else None
        taken = self._lane(lane)
        async with taken.slots:
            return await self._persistently(_Send(method, url, data, repeatable), taken.rates)

    async def pause(self, attempt: int) -> None:
        """Waits as long as before the attempt after this one, counted from 1."""
        await asyncio.sleep(self._wait_s(attempt, 0.0))

    @property
    def max_attempts(self) -> int:
        """How often a request may be sent."""
        return self._limits.max_attempts

    def _lane(self, name: str) -> _Lane:
        if self._session is None:
            msg = "the API client is not open; use it in `async with`"
            raise VibesApiError(msg)
        if name not in self._lanes:
            lane = _Lane(asyncio.Semaphore(self._limits.concurrency))
            own = self._calls if name == CALLS else None
            lane.rates.append(own or RateLimiter(self._limits.rate(name)))
            if name == GOOGLE_WALLET:
                # These are calls of the company too.
                lane.rates += self._lane(CALLS).rates
            self._lanes[name] = lane
        return self._lanes[name]

    async def _persistently(self, send: _Send, rates: list[RateLimiter]) -> Reply:
        # A plain loop: a retrying library would cost a third of the CPU of every request.
        attempt, in_doubt = 1, False
        while True:
            try:
                reply = await self._once(send, rates)
            except VibesAuthError as refused:
                refused.in_doubt = in_doubt and send.method != "GET"
                raise
            except VibesUnavailable as unavailable:
                in_doubt = in_doubt or not unavailable.did_nothing
                if attempt >= self._limits.max_attempts or (in_doubt and not send.repeatable):
                    raise
                wait_s = self._wait_s(attempt, unavailable.retry_after_s or 0.0)
            else:
                return replace(reply, is_repeat=True) if in_doubt else reply
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _once(self, send: _Send, rates: list[RateLimiter]) -> Reply:
        if self._session is None:
            msg = "the API client was closed while a request waited; keep it open until the end"
            raise VibesApiError(msg)
        try:
            async with _turns(rates):
                answered = await exchange(
                    self._session,
                    send.method,
                    send.url,
                    data=send.data,
                    repeatable=send.repeatable,
                )
        except NoAnswer as none:
            lost = "Timeout" if none.is_late else "ConnectionLost"
            raise VibesUnavailable(lost, None, did_nothing=none.did_nothing) from none
        except NobodyToAsk as wrong:
            raise VibesApiError(f"Vibes API: {wrong}; check VIBES_API_URL") from wrong
        return _judge(send, answered)

    def _wait_s(self, attempt: int, asked_s: float) -> float:
        """Exponential backoff with full jitter, but no less than the platform asked for."""
        longest = self._limits.backoff_s * 2 ** (attempt - 1)
        return min(max(asked_s, random.uniform(0, longest)), LONGEST_BACKOFF_S)  # noqa: S311 - jitter


@asynccontextmanager
async def _turns(rates: Sequence[RateLimiter]) -> AsyncIterator[None]:
    """A turn of each limiter."""
    async with AsyncExitStack() as turns:
        for rate in rates:
            await turns.enter_async_context(rate.turn())
        yield


def _judge(send: _Send, answered: Answered) -> Reply:
    """A reply, or the error that stops the push (login) or asks for another attempt."""
    status = answered.status
    if status == 401:
        raise VibesAuthError(f"Vibes API: HTTP 401, {_advice('HTTP 401')}")
    if status == 403:
        asked = f"{send.method} {_resource(send.url)}"
        raise VibesForbidden(f"Vibes API: HTTP 403 to {asked}, {_advice('HTTP 403')}")
    if status in _NOT_NOW or status >= 500:
        raise VibesUnavailable(
            f"HTTP {status}", status, answered.retry_after_s, did_nothing=status in TURNED_AWAY
        )
    return Reply(status, answered.content)


def _advice(error_class: str) -> str:
    """The registry's sentence within one of ours."""
    advice = lookup(error_class).advice
    return advice[0].lower() + advice[1:].removesuffix(".")


def _resource(url: URL) -> str:
    """The kind of resource asked for: neither the company nor whom it was about."""
    below = url.path.partition("/companies/")[2].split("/")[1:3]
    return "/".join(takewhile(re.compile("[a-z_]+").fullmatch, below)) or "the API"


def _has_message(error: object) -> bool:
    return isinstance(error, dict) and bool(error.get("message"))
