"""The access token of APSIS One: fetched once for all requests, renewed in time and after refusals.

Rules: the APSIS One documentation, Authentication: the expiry is read from the token's own `exp`,
the token endpoint takes 10 requests a minute. After 401 and 403 the vendor's clients throw the
token away once.
"""

import asyncio
import base64
import binascii
import json
from typing import Any

from vibes_pipelines.apsis.calls import Call
from vibes_pipelines.apsis.errors import ApsisAnswerError, ApsisLoginError, ApsisRefused
from vibes_pipelines.apsis.kept import KeptAccount
from vibes_pipelines.apsis.line import Line
from vibes_pipelines.settings import ApsisSettings

_EARLY_S = 60
"""A token with less time left is renewed before it is used."""

_DOUBT_S = 60
"""A 403 renews the token at most this often: mostly it is about permissions, and tokens are few."""

_BACKOFF_S = 6.0


class TokenSource:
    """The present token; safe for many requests at once."""

    def __init__(self, line: Line, settings: ApsisSettings, kept: KeptAccount) -> None:
        self._line = line
        self._settings = settings
        self._clock = kept.clock
        self._pace = kept.tokens
        self._lock = asyncio.Lock()
        self._kept = kept.token

    async def current(self) -> str:
        """A token that can be used now.

        Raises:
            ApsisLoginError: the API key is wrong.
            ApsisUnavailable: no token to be had at present.
        """
        async with self._lock:
            if self._kept.usable_until <= self._clock.now().timestamp():
                await self._fetch()
            return self._kept.value

    async def after_refusal(self, refused: str, status: int) -> str | None:
        """Another token than the one refused with 401 or 403; None when it would be no better."""
        async with self._lock:
            now_s = self._clock.monotonic()
            if self._kept.value == refused:
                if status == 403 and now_s - self._kept.doubted_s < _DOUBT_S:
                    return None
                if status == 403:
                    self._kept.doubted_s = now_s
                await self._fetch()
            return self._kept.value

    async def _fetch(self) -> None:
        body = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": self._settings.client_secret.get_secret_value(),
        }
        call = Call("POST", "/oauth/token", body)
        try:
            reply = await self._line.send(call, (self._pace,), backoff_s=_BACKOFF_S)
        except ApsisRefused as refused:
            msg = (
                f"APSIS One API: HTTP {refused.status}, no token; check APSIS_CLIENT_ID and "
                "APSIS_CLIENT_SECRET, the API key may have been deleted"
            )
            raise ApsisLoginError(msg) from refused
        answer = reply.json()
        value = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(value, str) or not value:
            msg = "APSIS One API: a token answer without access_token; is APSIS_API_URL right?"
            raise ApsisAnswerError(msg)
        self._kept.value = value
        self._kept.usable_until = self._expiry(value, answer) - _EARLY_S

    def _expiry(self, token: str, answer: dict[str, Any]) -> float:
        """By the token's `exp`; by the deprecated `expires_in` when the token cannot be read."""
        expires_at = _expiry_of(token)
        if expires_at is not None:
            return expires_at
        stated = answer.get("expires_in")
        lifetime_s = float(stated) if isinstance(stated, int | float) else 3600.0
        return self._clock.now().timestamp() + lifetime_s


def _expiry_of(token: str) -> float | None:
    """The `exp` of a JWT in seconds since 1970; None when the token is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return float(expiry) if isinstance(expiry, int | float) else None
