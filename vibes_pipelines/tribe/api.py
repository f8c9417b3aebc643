"""HTTP to Tribe's API: token, limit, retries. Knows no entity.

Rules: Tribe documentation, Rate limits and Authentication. Only what may be sent twice is sent
here: reads, and writes that set a state.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import aiohttp
from yarl import URL

from vibes_pipelines.json_text import read_json
from vibes_pipelines.settings import TribeSettings
from vibes_pipelines.tribe.clock import Clock
from vibes_pipelines.tribe.errors import (
    TribeAnswerError,
    TribeAuthError,
    TribeError,
    TribeForbiddenError,
    TribeRefusedError,
    TribeUnansweredError,
    TribeUnavailableError,
)
from vibes_pipelines.tribe.odata import shown_path
from vibes_pipelines.tribe.token import TokenSource
from vibes_pipelines.tribe.window import WINDOW_S, shared_window

Method = Literal["GET", "PUT", "POST", "DELETE"]

NOT_FOUND = 404

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long Tribe is waited for. `backoff_s`: before the second attempt; doubles from there.

    After HTTP 429 nobody calls for a minute, then two, as Tribe's documentation asks.
    """

    timeout_s: float = 60.0
    max_attempts: int = 5
    backoff_s: float = 0.5
    longest_backoff_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer: 2xx, or 404 with nothing in it. `path`: as errors show it."""

    path: str
    status: int
    content: bytes

    @property
    def is_found(self) -> bool:
        """False when Tribe knows no such record."""
        return self.status != NOT_FOUND

    def document(self) -> dict[str, Any]:
        """The JSON object of the body.

        Raises:
            TribeAnswerError: there is none.
        """
        try:
            body = read_json(self.content)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            msg = f"Tribe {self.path}: the answer is no JSON object; check TRIBE_API_URL"
            raise TribeAnswerError(msg)
        return body


class TribeApi:
    """An open connection pool to one application's API; use it as an async context manager."""

    def __init__(self, settings: TribeSettings, clock: Clock, patience: Patience) -> None:
        self._settings = settings
        self._clock = clock
        self._patience = patience
        self._window = shared_window(
            settings.api_url, settings.client_id, settings.calls_per_min, clock
        )
        self._session: aiohttp.ClientSession | None = None
        self._tokens: TokenSource | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the window limits it
            timeout=aiohttp.ClientTimeout(total=self._patience.timeout_s),
            headers={"Accept": "application/json"},
        )
        self._tokens = TokenSource(self._settings, self._session, self._clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = self._tokens = None

    async def get(self, path: str) -> Reply:
        """Reads; `path` with its query, already percent-encoded."""
        return await self.request("GET", path)

    async def again(self, step: Callable[[], Awaitable[T]]) -> T:
        """Takes a step that reads before it writes, anew from its reading until Tribe answers.

        Its write is sent by `request(..., once=True)`: what was read must not grow old meanwhile.

        Raises:
            TribeUnavailableError: every attempt failed.
        """
        attempt = 1
        while True:
            try:
                return await step()
            except TribeUnansweredError:
                if attempt >= self._patience.max_attempts:
                    raise
            await self._clock.sleep(self._backoff_s(attempt))
            attempt += 1

    async def request(
        self,
        method: Method,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        once: bool = False,
    ) -> Reply:
        """Sends one request, unless `once` again after 429, 5xx, timeouts and broken connections.

        Raises:
            TribeAuthError: 401 with a new token too, or 403.
            TribeRefusedError: any other 4xx but 404.
            TribeUnavailableError: every attempt failed.
        """
        url = self._url(path)
        shown = shown_path(url.raw_path)
        data = json.dumps(body).encode() if body is not None else None
        has_new_token = False
        attempt = 1
        while True:
            token = await self._open_tokens().token()
            try:
                reply = await self._once(method, url, data, token)
            except TribeUnavailableError as failed:
                if once:
                    raise TribeUnansweredError(
                        str(failed), did_nothing=failed.did_nothing
                    ) from failed
                if attempt >= self._patience.max_attempts:
                    raise
                await self._clock.sleep(self._backoff_s(attempt))
                attempt += 1
                continue
            match reply.status:
                case 401 if not has_new_token:
                    self._open_tokens().forget(token)
                    has_new_token = True
                case 429 if once:
                    self._window.close_for(WINDOW_S)
                    msg = f"Tribe {method} {shown}: HTTP 429; lower TRIBE_CALLS_PER_MIN"
                    raise TribeUnansweredError(msg, did_nothing=True)
                case 429 if attempt < self._patience.max_attempts:
                    self._window.close_for(WINDOW_S * 2 ** (attempt - 1))
                    attempt += 1
                case _:
                    return _judge(reply, method, shown)

    async def _once(self, method: Method, url: URL, data: bytes | None, token: str) -> Reply:
        session = self._open_session()
        headers = {"Authorization": f"Bearer {token}"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        shown = shown_path(url.raw_path)
        async with self._window.call():
            try:
                async with session.request(
                    method, url, data=data, headers=headers, allow_redirects=False
                ) as response:
                    content = await response.read()
            except aiohttp.ClientSSLError as insecure:
                msg = f"Tribe {shown}: no trusted TLS connection; check TRIBE_API_URL"
                raise TribeError(msg) from insecure
            except (TimeoutError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as cut:
                msg = (
                    f"Tribe {method} {shown}: no answer ({type(cut).__name__}) at any attempt; "
                    "check TRIBE_API_URL, or try again later"
                )
                never_left = isinstance(cut, aiohttp.ClientConnectorError)
                raise TribeUnavailableError(msg, did_nothing=never_left) from cut
        if response.status >= 500:
            msg = f"Tribe {method} {shown}: HTTP {response.status} at every attempt; try later"
            raise TribeUnavailableError(msg)
        return Reply(shown, response.status, content)

    def _url(self, path: str) -> URL:
        return URL(self._settings.api_url.rstrip("/") + path, encoded=True)

    def _backoff_s(self, attempt: int) -> float:
        """Exponential backoff with full jitter."""
        longest = self._patience.backoff_s * 2 ** (attempt - 1)
        return min(random.uniform(longest / 2, longest), self._patience.longest_backoff_s)  # noqa: S311 - jitter

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            msg = "the Tribe client is not open; use it in `async with`"
            raise TribeError(msg)
        return self._session

    def _open_tokens(self) -> TokenSource:
        self._open_session()
        if self._tokens is None:  # opened and closed with the session
            msg = "the Tribe client is not open; use it in `async with`"
            raise TribeError(msg)
        return self._tokens


def _judge(reply: Reply, method: Method, path: str) -> Reply:
    """The reply, or the error that it means."""
    status = reply.status
    if 200 <= status < 300 or status == NOT_FOUND:
        return reply
    if status in {401, 403}:
        cure = (
            "check TRIBE_CLIENT_ID and TRIBE_CLIENT_SECRET"
            if status == 401
            else "give the application the right to it in Tribe (Configuration > API)"
        )
        refusal = TribeAuthError if status == 401 else TribeForbiddenError
        raise refusal(f"Tribe {method} {path}: HTTP {status}; {cure}")
    if status == 429:
        msg = (
            f"Tribe {method} {path}: HTTP 429 at every attempt; another process uses this "
            "application: give it one of its own, or lower TRIBE_CALLS_PER_MIN"
        )
        raise TribeUnavailableError(msg, did_nothing=True)
    code = _code(reply.content)
    msg = (
        f"Tribe {method} {path}: HTTP {status}{f' ({code})' if code else ''}; Tribe does not take "
        "this request: check the fields and labels that sync.yaml names"
    )
    raise TribeRefusedError(msg, status)


def _code(content: bytes) -> str | None:
    """The error's code; its message may hold values of a person."""
    try:
        body = read_json(content)
        code = body["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(code)[:60] if code else None
