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
from vibes_pipelines.http_exchange import Answered, NoAnswer, NobodyToAsk, exchange
from vibes_pipelines.json_text import read_json

__all__ = ["LONGEST_BACKOFF_S", "Limits", "Line", "ask", "judge"]

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
            answered = await ask(self._session, call.method, url, data=data, headers=headers)
        judge(answered)
        return answered.status, answered.content

    def _wait_s(self, attempt: int, asked_s: float | None, backoff_s: float | None) -> float:
        """Exponential backoff with full jitter, but no less than was asked for."""
        longest = (backoff_s or self._limits.backoff_s) * 2 ** (attempt - 1)
        jittered = random.uniform(0, longest)  # noqa: S311 - jitter
        return min(max(asked_s or 0.0, jittered), LONGEST_BACKOFF_S)


async def ask(session: aiohttp.ClientSession, method: str, url: URL, **more: Any) -> Answered:
    """One request and its whole answer.

    Raises:
        ApsisUnavailable: no answer, or not all of it.
        ApsisError: no trusted TLS connection.
    """
    try:
        return await exchange(session, method, url, **more)
    except NoAnswer as none:
        cure = ", check APSIS_API_URL" if none.did_nothing else ""
        raise ApsisUnavailable(f"{none}{cure}", None, did_nothing=none.did_nothing) from none
    except NobodyToAsk as wrong:
        raise ApsisError(f"APSIS One API: {wrong}; check APSIS_API_URL") from wrong


def judge(answered: Answered) -> None:
    """Raises what a status means unless it is a success."""
    status = answered.status
    meaning = meaning_of(status)
    if meaning.verdict is Verdict.RETRY_LATER:
        raise ApsisUnavailable(
            f"HTTP {status}", status, answered.retry_after_s, did_nothing=status == 429
        )
    if meaning.verdict is not Verdict.OK:
        raise _refusal(status, meaning, answered.content)


def _refusal(status: int, meaning: Meaning, content: bytes) -> ApsisRefused:
    """The typed refusal, with what the problem+json body says; some refusals have none."""
    try:
        problem = read_json(content) if content else {}
    except ValueError:
        problem = {}
    known = problem if isinstance(problem, dict) else {}
    title = str(known.get("title") or "without a title")
    return meaning.error(status, title, str(known.get("detail") or ""), meaning.cure)
