"""Who may call the APSIS One stand-in, and how often: tokens, and the documented limits."""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt

from vibes_pipelines.sandbox.api_limits import RateLimit
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_records import ProblemError
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches

_KEY_LIMITS_KEPT = 20_000


@dataclass(frozen=True)
class ApsisCredentials:
    """The sandbox's one API key."""

    client_id: str
    client_secret: str = field(repr=False)


class Tokens:
    """Issues JSON web tokens and knows which are valid now."""

    def __init__(
        self,
        credentials: ApsisCredentials,
        switches: ApsisSwitches,
        clock: RunningClock,
        ttl_s: float = 86_400,
    ) -> None:
        self.ttl_s = ttl_s
        self.issued = 0
        self._credentials = credentials
        self._switches = switches
        self._clock = clock
        self._signing_key = secrets.token_bytes(32)
        self._revoked_up_to = 0

    def issue(self, body: dict[str, Any]) -> dict[str, Any]:
        """A token for the API key in a body; raises ProblemError."""
        if body.get("grant_type") != "client_credentials":
            raise ProblemError(400, "Bad Request", "grant_type takes client_credentials")
        pair = f"{body.get('client_id')}:{body.get('client_secret')}"
        expected = f"{self._credentials.client_id}:{self._credentials.client_secret}"
        if not hmac.compare_digest(pair.encode(), expected.encode()):
            raise ProblemError(401, "Unauthorized", "no such API key")
        self.issued += 1
        expires_at = self._clock.now() + timedelta(seconds=self.ttl_s)
        claims = {"exp": int(expires_at.timestamp()), "serial": self.issued}
        token = jwt.encode(claims, self._signing_key, algorithm="HS256")
        answer: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
        if self._switches.stated_lifetime == "present":
            answer["expires_in"] = int(self.ttl_s)
        return answer

    def revoke(self) -> None:
        """Let every token issued so far be worth nothing."""
        self._revoked_up_to = self.issued

    def admit(self, authorization: str) -> None:
        """Raise ProblemError unless a request's header holds a valid token."""
        scheme, _, token = authorization.partition(" ")
        try:
            claims = jwt.decode(
                token,
                self._signing_key,
                algorithms=["HS256"],
                options={"verify_exp": False},  # by the sandbox's clock, below
            )
        except jwt.InvalidTokenError as error:
            raise ProblemError(401, "Unauthorized", "no valid token") from error
        is_over = claims["exp"] <= self._clock.now().timestamp()
        if scheme != "Bearer" or is_over or claims["serial"] <= self._revoked_up_to:
            status = self._switches.expired_token
            raise ProblemError(status, {401: "Unauthorized", 403: "Forbidden"}[status])


@dataclass(frozen=True)
class ApsisLimits:
    """The documented limits; `None` for `calls_per_s` lifts it and the one of each profile key."""

    calls_per_s: int | None = 100
    calls_per_key_per_s: int = 10
    tokens_per_min: int = 10
    imports_per_min: int = 10


class Gates:
    """The limits in force, each over a sliding window of the sandbox's clock."""

    def __init__(self, limits: ApsisLimits, clock: RunningClock) -> None:
        self._limits = limits
        self._seconds = clock.seconds
        self._calls = RateLimit(limits.calls_per_s, clock.seconds)
        minutes: Callable[[], float] = lambda: clock.seconds() / 60  # noqa: E731 - typed
        self._tokens = RateLimit(limits.tokens_per_min, minutes)
        self._imports = RateLimit(limits.imports_per_min, minutes)
        self._keys: dict[tuple[str, str], RateLimit] = {}

    def call(self) -> None:
        """Count a call of the account; raises ProblemError."""
        _pass(self._calls, "100 requests a second")

    def token(self) -> None:
        """Count a token request; raises ProblemError."""
        _pass(self._tokens, "10 tokens a minute")

    def imports(self) -> None:
        """Count an import request; raises ProblemError."""
        _pass(self._imports, "10 imports a minute")

    def profile(self, keyspace: str, key: str) -> None:
        """Count a call about one profile key; raises ProblemError."""
        if self._limits.calls_per_s is None:
            return
        if len(self._keys) >= _KEY_LIMITS_KEPT:
            self._keys.clear()
        limit = self._keys.get((keyspace, key))
        if limit is None:
            limit = RateLimit(self._limits.calls_per_key_per_s, self._seconds)
            self._keys[keyspace, key] = limit
        _pass(limit, "10 requests a second for one profile key")


def _pass(limit: RateLimit, what: str) -> None:
    if not limit.admit():
        raise ProblemError(429, "Too Many Requests", f"more than {what}")
