"""The access token: OAuth2 client credentials in the body of the request, renewed in time.

Rules: Tribe documentation, Authentication.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from vibes_pipelines.settings import TribeSettings
from vibes_pipelines.tribe.clock import Clock
from vibes_pipelines.tribe.errors import TribeAnswerError, TribeAuthError, TribeUnavailableError

PATH = "/oauth2/token"
SCOPE = "read write offline"

RENEW_BEFORE_S = 60.0
"""A token with less left is renewed first; one that is short-lived, in the middle of its life."""

LIFETIME_S = 3600.0
"""Taken for a token that does not tell its own (an assumption: the documentation is silent)."""

MAX_ATTEMPTS = 5
BACKOFF_S = 1.0


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at: float


class TokenSource:
    """Hands out the token of one application; asks for another when it is about to end."""

    def __init__(
        self, settings: TribeSettings, session: aiohttp.ClientSession, clock: Clock
    ) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock
        self._gate = asyncio.Lock()
        self._token: _Token | None = None

    async def token(self) -> str:
        """A token that holds for another minute.

        Raises:
            TribeAuthError: the credentials are refused.
            TribeUnavailableError: no answer at any attempt.
            TribeAnswerError: an answer without a token.
        """
        async with self._gate:
            if self._token is None or self._clock.now() > self._token.renew_at:
                self._token = await self._ask_persistently()
            return self._token.text

    def forget(self, token: str) -> None:
        """Drops a token that Tribe refused; one that replaced it meanwhile stays."""
        if self._token is not None and self._token.text == token:
            self._token = None

    async def _ask_persistently(self) -> _Token:
        for attempt in range(1, MAX_ATTEMPTS):
            try:
                return await self._ask()
            except TribeUnavailableError:
                await self._clock.sleep(BACKOFF_S * 2 ** (attempt - 1))
        return await self._ask()

    async def _ask(self) -> _Token:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": self._settings.client_secret.get_secret_value(),
            "scope": SCOPE,
        }
        if self._settings.organization_id:
            form["organization_id"] = self._settings.organization_id
        asked_at = self._clock.now()
        url = self._settings.auth_url.rstrip("/") + PATH
        try:
            async with self._session.post(url, data=form, allow_redirects=False) as response:
                status, content = response.status, await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as broken:
            msg = f"Tribe {PATH}: no answer ({type(broken).__name__}); check TRIBE_AUTH_URL"
            raise TribeUnavailableError(msg, did_nothing=True) from broken
        return _read(status, content, asked_at)


def _read(status: int, content: bytes, asked_at: float) -> _Token:
    body = _json(content)
    if status == 429 or status >= 500:
        msg = f"Tribe {PATH}: HTTP {status} at every attempt; try again later"
        raise TribeUnavailableError(msg, did_nothing=True)
    if status != 200:
        said = body.get("error_description") or body.get("error") or "no reason given"
        msg = (
            f"Tribe {PATH}: HTTP {status}, the application was refused ({said}); check "
            "TRIBE_CLIENT_ID, TRIBE_CLIENT_SECRET and TRIBE_ORGANIZATION_ID"
        )
        raise TribeAuthError(msg)
    text, lasts_s = body.get("access_token"), body.get("expires_in", LIFETIME_S)
    if not isinstance(text, str) or not text or not isinstance(lasts_s, int | float):
        msg = f"Tribe {PATH}: the answer holds no access_token; check TRIBE_AUTH_URL"
        raise TribeAnswerError(msg)
    return _Token(text, asked_at + max(lasts_s - RENEW_BEFORE_S, lasts_s / 2))


def _json(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
