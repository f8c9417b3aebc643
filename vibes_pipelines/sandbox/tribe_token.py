"""The token endpoint of a stand-in of Tribe: client credentials in the body, bearer tokens."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from vibes_pipelines.sandbox.tribe_switches import TribeSwitches

SCOPES = frozenset({"read", "write", "offline"})
_FORM = {"grant_type", "client_id", "client_secret", "scope", "organization_id"}


@dataclass(frozen=True)
class Application:
    """A registered application."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Grant:
    ends_at: float
    scopes: frozenset[str]


class Tokens:
    """Gives tokens to one application and knows those that hold."""

    def __init__(
        self, application: Application, switches: TribeSwitches, now_s: Callable[[], float]
    ) -> None:
        self._application = application
        self._switches = switches
        self._now_s = now_s
        self._grants: dict[str, _Grant] = {}

    def answer(self, content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and body for a request of a token."""
        form = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
        media_type = content_type.partition(";")[0].strip()
        if media_type != "application/x-www-form-urlencoded" or set(form) - _FORM:
            return _refuse(400, "invalid_request", "the body is a form of known parameters")
        if form.get("grant_type") != "client_credentials":
            return _refuse(400, "unsupported_grant_type", "only client_credentials is granted here")
        if not self._is_application(form):
            return _refuse(401, "invalid_client", "client authentication failed")
        scopes = frozenset(form.get("scope", "").split())
        if not scopes or not scopes <= SCOPES:
            return _refuse(400, "invalid_scope", "the requested scope is missing or unknown")
        wanted = self._switches.organization_id
        if wanted is not None and form.get("organization_id") != wanted:
            return _refuse(400, "invalid_request", "organization_id is missing or unknown")
        return 200, self._grant(scopes)

    def admit(self, authorization: str | None, method: str) -> int:
        """0 when the request's token gives the right to it, else 401 or 403."""
        scheme, _, token = (authorization or "").partition(" ")
        grant = self._grants.get(token)
        if scheme != "Bearer" or grant is None or grant.ends_at <= self._now_s():
            return 401
        return 0 if ("read" if method == "GET" else "write") in grant.scopes else 403

    def revoke(self) -> None:
        """Let every token end now."""
        self._grants.clear()

    def _is_application(self, form: Mapping[str, str]) -> bool:
        given = (form.get("client_id", ""), form.get("client_secret", ""))
        wanted = (self._application.client_id, self._application.client_secret)
        pairs = zip(given, wanted, strict=True)
        return all(secrets.compare_digest(one.encode(), other.encode()) for one, other in pairs)

    def _grant(self, scopes: frozenset[str]) -> dict[str, Any]:
        token, lasts_s = secrets.token_urlsafe(24), self._switches.token_ttl_s
        self._grants[token] = _Grant(self._now_s() + lasts_s, scopes)
        answer: dict[str, Any] = {"access_token": token, "token_type": "bearer"}
        if self._switches.expires_in == "answered":
            answer["expires_in"] = lasts_s
        return answer | {"scope": " ".join(sorted(scopes))}


def _refuse(status: int, error: str, description: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": error, "error_description": description}
