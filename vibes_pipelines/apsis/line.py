"""HTTP to APSIS One: one request, its limits, retries, and what its status means. No route here.

Only what says nothing about the request itself is tried again (408, 429, 5xx, no answer), and a
request whose repetition could do harm only when the attempts so far certainly did nothing.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from vibes_pipelines.apsis.calls import Call, Limits, Reply
from vibes_pipelines.apsis.clock import Clock
from vibes_pipelines.apsis.errors import ApsisError, ApsisRefused, ApsisUnavailable
from vibes_pipelines.apsis.pace import Pace
from vibes_pipelines.apsis.statuses import Meaning, Verdict, meaning_of
from vibes_pipelines.json_text import read_json

__all__ = ["LONGEST_BACKOFF_S", "Limits", "Line", "exchange", "judge"]

LONGEST_BACKOFF_S = 30.0


class Line:
    """Requests to one host over an open session; `paces` are given by whoever calls."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, limits: Limits, clock: Clock
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._limits = limits
        self._clock = clock

    async def send(
        self,
        call: Call,
        paces: Sequence[Pace],
        headers: Mapping[str, str] | None = None,
        backoff_s: float | None = None,
    ) -> Reply:
        """Sends a call until it is answered for good.

        Raises:
            ApsisRefused: the typed refusal of its status.
            ApsisUnavailable: every attempt failed, or one whose effect is unknown did.
        """
        data, url = call.data(), self._url(call)
        sent_headers = {**call.headers(), **(headers or {})}
        attempts = self._limits.max_attempts
        attempt, in_doubt = 1, False
        while True:
            try:
                status, content = await self._once(call, url, data, sent_headers, paces)
            except ApsisUnavailable as unavailable:
                in_doubt = in_doubt or not unavailable.did_nothing
                if attempt >= attempts or (in_doubt and not call.repeatable):
                    unavailable.did_nothing = not in_doubt
                    raise
                wait_s = self._wait_s(attempt, unavailable.retry_after_s, backoff_s)
            except ApsisRefused as refused:
                refused.is_repeat = in_doubt
                raise
            else:
                return Reply(status, content, is_repeat=in_doubt)
            await self._clock.sleep(wait_s)
            attempt += 1

    def _url(self, call: Call) -> URL:
        query = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in call.query)
        return URL(f"{self._base_url}{call.path}{'?' if query else ''}{query}", encoded=True)

    async def _once(
        self,
        call: Call,
        url: URL,
        data: bytes | None,
        headers: Mapping[str, str],
        paces: Sequence[Pace],
    ) -> tuple[int, bytes]:
        async with AsyncExitStack() as turns:
            for pace in paces:
                await turns.enter_async_context(pace.turn())
            status, retry_after, content = await exchange(
                self._session, call.method, url, data=data, headers=headers
            )
        judge(status, retry_after, content)
        return status, content

    def _wait_s(self, attempt: int, asked_s: float | None, backoff_s: float | None) -> float:
        """Exponential backoff with full jitter, but no less than was asked for."""
        longest = (backoff_s or self._limits.backoff_s) * 2 ** (attempt - 1)
        jittered = random.uniform(0, longest)  # noqa: S311 - jitter
        return min(max(asked_s or 0.0, jittered), LONGEST_BACKOFF_S)


async def exchange(
    session: aiohttp.ClientSession, method: str, url: URL, **more: Any
) -> tuple[int, str, bytes]:
    """One request and its whole answer: status, Retry-After, body.

    Raises:
        ApsisUnavailable: no answer, or not all of it.
        ApsisError: no trusted TLS connection.
    """
    try:
        async with session.request(
            method, url, allow_redirects=False, middlewares=(_sent_once,), **more
        ) as response:
            content = await response.read()
            return response.status, response.headers.get("Retry-After", ""), content
    except TimeoutError as late:
        raise ApsisUnavailable("no answer in time", None) from late
    except aiohttp.ClientSSLError as insecure:
        msg = f"APSIS One API: no trusted TLS connection to {url.host}; check APSIS_API_URL"
        raise ApsisError(msg) from insecure
    except aiohttp.ClientConnectorError as unreachable:
        msg = f"{url.host} cannot be reached, check APSIS_API_URL"
        raise ApsisUnavailable(msg, None, did_nothing=True) from unreachable
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as broken:
        raise ApsisUnavailable("the connection broke", None) from broken
    except aiohttp.InvalidURL:
        raise ApsisError("APSIS One API: no web address to ask; check APSIS_API_URL") from None
    except aiohttp.ClientError:
        # An answer that is no HTTP. The library's error names the path, and so the profile.
        raise ApsisUnavailable("the answer was garbled", None) from None


async def _sent_once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keeps the HTTP library from sending a request again on its own when a line breaks."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as broken:
        raise aiohttp.ClientConnectionError("the line broke after the request left") from broken


def judge(status: int, retry_after: str, content: bytes) -> None:
    """Raises what a status means unless it is a success."""
    meaning = meaning_of(status)
    if meaning.verdict is Verdict.RETRY_LATER:
        asked_s = float(retry_after) if retry_after.isdecimal() else None
        raise ApsisUnavailable(f"HTTP {status}", status, asked_s, did_nothing=status == 429)
    if meaning.verdict is not Verdict.OK:
        raise _refusal(status, meaning, content)


def _refusal(status: int, meaning: Meaning, content: bytes) -> ApsisRefused:
    """The typed refusal, with what the problem+json body says; some refusals have none."""
    try:
        problem = read_json(content) if content else {}
    except ValueError:
        problem = {}
    known = problem if isinstance(problem, dict) else {}
    title = str(known.get("title") or "without a title")
    return meaning.error(status, title, str(known.get("detail") or ""), meaning.cure)
