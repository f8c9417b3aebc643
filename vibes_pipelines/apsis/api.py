"""The open connection to one APSIS One account: token, account-wide and per-profile limits.

What a call means is in `definitions`, `profiles`, `consents`, `tags` and `imports`.
"""

import asyncio
from typing import Any, Self

import aiohttp

from vibes_pipelines.apsis.calls import Call, Reply
from vibes_pipelines.apsis.errors import (
    ApsisError,
    ApsisForbidden,
    ApsisLoginError,
    ApsisUnauthorized,
)
from vibes_pipelines.apsis.kept import KeptAccount
from vibes_pipelines.apsis.line import Line
from vibes_pipelines.apsis.pace import Pace
from vibes_pipelines.apsis.token import TokenSource
from vibes_pipelines.settings import ApsisSettings


class ApsisApi:
    """A connection pool to one account; use it as an async context manager."""

    def __init__(self, settings: ApsisSettings, kept: KeptAccount) -> None:
        self.limits = kept.limits
        self.clock = kept.clock
        self.kept = kept
        self.url = settings.url
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limits = self.limits
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the slots limit it
            timeout=aiohttp.ClientTimeout(total=limits.timeout_s),
        )
        self._line = Line(self._session, self.url, limits, self.clock)
        self._tokens = TokenSource(self._line, self._settings, self.kept)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, for uploads that go elsewhere and carry no token."""
        if self._session is None:
            msg = "the APSIS One client is not open; use it in `async with`"
            raise ApsisError(msg)
        return self._session

    async def call(self, call: Call, *more_paces: Pace) -> Reply:
        """Sends one call within all limits; after 401 and 403 once more with a fresh token.

        Raises:
            ApsisRefused: the typed refusal of this call.
            ApsisLoginError: the API key is not, or no longer, valid.
            ApsisUnavailable: transient, and every attempt failed.
        """
        _ = self.session
        paces = [*more_paces, self.kept.calls]
        if call.profile:
            paces.insert(0, self.kept.profiles.of(call.profile))
        async with self._slots:
            token = await self._tokens.current()
            try:
                return await self._line.send(call, paces, _bearer(token))
            except (ApsisUnauthorized, ApsisForbidden) as refused:
                fresh = await self._tokens.after_refusal(token, refused.status)
                if fresh is None:
                    raise
            try:
                return await self._line.send(call, paces, _bearer(fresh))
            except ApsisUnauthorized as refused:
                msg = f"{refused}; a fresh token was refused as well"
                raise ApsisLoginError(msg) from refused

    async def get(self, path: str, **more: Any) -> Any:
        """The JSON of a read."""
        return (await self.call(Call("GET", path, **more))).json()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
