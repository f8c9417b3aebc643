"""HTTP to the Vibes API: version header, login, rate limit, retries. Knows no route.

Rules: the Vibes documentation, Technical Details and Versions and Compatibility. Refusals come
back as replies; only what says nothing about the request itself is tried again.
"""

import asyncio
import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from vibes_pipelines.vibes.rate_limit import RateLimiter

LONGEST_BACKOFF_S = 30.0


class VibesApiError(Exception):
    """The API answered a read in a way that says nothing about the record asked for."""


class VibesAuthError(VibesApiError):
    """The login was refused; every further request would be."""


class VibesUnavailable(VibesApiError):  # noqa: N818 - the name says what is wrong
    """Transient, and every attempt failed. For a write, whether it was applied is unknown."""

    def __init__(self, error_class: str, status: int | None, retry_after_s: float | None = None):
        super().__init__(f"Vibes API: {error_class}, at every attempt; try again later")
        self.error_class = error_class
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of the API: 2xx, or a refusal of this one request."""

    status: int
    content: bytes

    @property
    def is_success(self) -> bool:
        """True for every 2xx; the documentation contradicts itself on which one."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body, or None when there is none or it is not JSON. Some refusals have no body."""
        try:
            return json.loads(self.content) if self.content else None
        except ValueError:
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
    """How hard the API is driven. `backoff_s`: before the second attempt; doubles from there."""

    rate_per_s: float = 100
    concurrency: int = 32
    timeout_s: float = 30
    max_attempts: int = 5
    backoff_s: float = 0.5


class ApiTransport:
    """An open connection pool to one API; use it as an async context manager."""

    def __init__(self, base_url: str, user: str, password: str, limits: Limits) -> None:
        self._base_url = base_url.rstrip("/")
        self._limits = limits
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(),
            "Content-Type": "application/json",
            "X-API-Version": "2",
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._rate = RateLimiter(self._limits.rate_per_s)
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limits.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._limits.timeout_s),
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Sends one request, again after 429, 5xx, timeouts and broken connections.

        Args:
            method: e.g. `PUT`.
            path: path and query below the host, already percent-encoded.
            body: the JSON body, if any.

        Raises:
            VibesAuthError: 401 or 403, at once.
            VibesUnavailable: every attempt failed.
        """
        url = URL(self._base_url + path, encoded=True)
        data = json.dumps(body).encode() if body is not None else None
        async with self._slots:
            return await self._persistently(method, url, data)

    async def _persistently(self, method: str, url: URL, data: bytes | None) -> Reply:
        # A plain loop: a retrying library would cost a third of the CPU of every request.
        attempt = 1
        while True:
            try:
                return await self._once(method, url, data)
            except VibesUnavailable as unavailable:
                if attempt >= self._limits.max_attempts:
                    raise
                wait_s = self._wait_s(attempt, unavailable.retry_after_s or 0.0)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _once(self, method: str, url: URL, data: bytes | None) -> Reply:
        if self._session is None:
            msg = "the API client is not open; use it in `async with`"
            raise VibesApiError(msg)
        await self._rate.acquire()
        try:
            async with self._session.request(
                method, url, data=data, allow_redirects=False
            ) as response:
                content = await response.read()
        except TimeoutError as late:
            raise VibesUnavailable("Timeout", None) from late
        except aiohttp.ClientSSLError as insecure:
            msg = f"Vibes API: no trusted TLS connection to {url.host}; check VIBES_API_URL"
            raise VibesApiError(msg) from insecure
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as broken:
            raise VibesUnavailable("ConnectionLost", None) from broken
        return _judge(response, content)

    def _wait_s(self, attempt: int, asked_s: float) -> float:
        """Exponential backoff with full jitter, but no less than the platform asked for."""
        longest = self._limits.backoff_s * 2 ** (attempt - 1)
        return min(max(asked_s, random.uniform(0, longest)), LONGEST_BACKOFF_S)  # noqa: S311 - jitter


def _judge(response: aiohttp.ClientResponse, content: bytes) -> Reply:
    """A reply, or the error that stops the push (login) or asks for another attempt."""
    status = response.status
    if status in {401, 403}:
        msg = (
            f"Vibes API: HTTP {status}, the login was refused; check VIBES_API_USER and "
            "VIBES_API_PASSWORD (the US and EU instances have their own)"
        )
        raise VibesAuthError(msg)
    if status == 429 or status >= 500:
        retry_after = response.headers.get("Retry-After", "")
        raise VibesUnavailable(
            f"HTTP {status}", status, float(retry_after) if retry_after.isdigit() else None
        )
    return Reply(status, content)


def _has_message(error: object) -> bool:
    return isinstance(error, dict) and bool(error.get("message"))
