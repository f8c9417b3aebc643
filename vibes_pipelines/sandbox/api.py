"""The stand-in's HTTP face: transport, authentication, request limit, faults and audit.

What a call means is in `api_routes`. The hot path is one plain ASGI endpoint without a framework;
Starlette holds it, so that a control API can live beside it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.api_calls import Answer, Call, Handler
from vibes_pipelines.sandbox.api_events import EVENTS
from vibes_pipelines.sandbox.api_faults import (
    NO_ANSWER,
    reset,
    send_body,
    suffer_after,
    suffer_before,
)
from vibes_pipelines.sandbox.api_limits import Credentials, RateLimit
from vibes_pipelines.sandbox.api_routes import Found, find_app_route, find_route
from vibes_pipelines.sandbox.callbacks_registry import Callbacks
from vibes_pipelines.sandbox.faults import Fault, Faults
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_mdn import ApiVersion
from vibes_pipelines.sandbox.platform_refusals import (
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RefusalError,
    TooManyRequestsError,
    UnauthorizedError,
)
from vibes_pipelines.sandbox.request_body import receive_body
from vibes_pipelines.sandbox.switches import Switches

UNKNOWN_ROUTE = "unknown"
"""The audit's name for every path that is no call of the API."""

_VERSIONS: dict[str | None, ApiVersion] = {None: 1, "1": 1, "2": 2}


def build_api(
    platform: Platform,
    credentials: Credentials,
    switches: Switches | None = None,
    faults: Faults | None = None,
    *,
    callbacks: Callbacks | None = None,
    account: Account | None = None,
    rate_per_s: int | None = 100,
) -> Starlette:
    """The API of one company under `/companies` and of its apps under `/mobile_apps`.

    `rate_per_s` is the documented limit of all calls of a company together, and of an app; events
    have three times that for themselves (300 when it is 100). `None` lifts all limits. Without
    `callbacks` they can be registered all the same, but nobody sends them; without `account` the
    default catalogue is set up.
    """
    switches = switches or Switches()
    callbacks = callbacks or Callbacks(platform, switches)
    account = account or Account(platform, switches=switches)
    parts = (account, callbacks, credentials, switches, faults or Faults())
    limits = {
        EVENTS: RateLimit(None if rate_per_s is None else 3 * rate_per_s),
        "": RateLimit(rate_per_s),
    }
    company = _Api(*parts, frozenset({platform.company_key}), find_route, limits)
    app_api = _Api(*parts, account.devices.apps, find_app_route, {"": RateLimit(rate_per_s)})
    app = Starlette(
        routes=[Mount("/companies", app=company), Mount("/mobile_apps", app=app_api)],
        exception_handlers={HTTPException: _show_http_error},
    )
    app.router.redirect_slashes = False
    return app


async def _show_http_error(_: Request, error: Exception) -> JSONResponse:
    """An answer of the framework itself, e.g. for a path outside `/companies`, in our form."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse(_errors(status, HTTPStatus(status).phrase), status_code=status)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    owner: str
    segments: tuple[str, ...]
    headers: dict[bytes, bytes]
    query: bytes

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()


@dataclass(frozen=True)
class _Api:
    """The ASGI endpoint below `/companies`, whose owners are companies, or `/mobile_apps`.

    `limits` has the request limit of single routes by template, and under "" that of all others.
    """

    account: Account
    callbacks: Callbacks
    credentials: Credentials
    switches: Switches
    faults: Faults
    owners: frozenset[str]
    find_route: Callable[[tuple[str, ...]], Found]
    limits: Mapping[str, RateLimit]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        request = _read_request(scope, path)
        found = self.find_route(request.segments)
        fault = self.faults.take(request.method, path.decode("latin-1"))
        answer = await suffer_before(fault, receive)
        if answer is None:
            answer = self._answer(request, found, await receive_body(receive))
            answer = await suffer_after(fault, answer, receive)
        template = found[0].template if found else UNKNOWN_ROUTE
        self.account.platform.audit.request(request.method, template, answer.status)
        if answer is NO_ANSWER:
            await reset(receive)
        else:
            await _send(send, receive, answer, fault)

    def _answer(self, request: _Request, found: Found, body: bytes) -> Answer:
        try:
            handler, call = self._admit(request, found, body)
            with self.account.platform.lock:
                answer = handler(call)
                if request.method != "GET":
                    self.account.save()
                return answer
        except RefusalError as refusal:
            is_about_persons = found is not None and found[0].is_about_persons
            is_empty = self.switches.empty_error_body and is_about_persons
            if is_empty and refusal.status in {404, 409}:
                return Answer(refusal.status)
            return Answer(refusal.status, _errors(refusal.code, *refusal.messages))

    def _admit(self, request: _Request, found: Found, body: bytes) -> tuple[Handler, Call]:
        """The call that a request makes; raises refusals in the order of a gateway."""
        if not self.credentials.admit(request.header(b"authorization")):
            raise UnauthorizedError("the user name or the password is wrong")
        if request.owner not in self.owners:
            raise NotFoundError("the company or the app cannot be found")
        template = found[0].template if found else ""
        if not self.limits.get(template, self.limits[""]).admit():
            raise TooManyRequestsError("429 Too Many Requests")
        if found is None:
            raise NotFoundError("there is no such call")
        route, variables = found
        if request.method not in route.handlers:
            raise MethodNotAllowedError(f"this call takes {', '.join(sorted(route.handlers))}")
        version = _VERSIONS.get(request.header(b"x-api-version"))
        if version is None:
            raise MalformedRequestError("X-API-Version takes 1 or 2")
        call = Call(
            account=self.account,
            callbacks=self.callbacks,
            switches=self.switches,
            version=version,
            owner=request.owner,
            path=variables,
            query=_first_of_each(request.query),
            content_type=request.header(b"content-type") or "",
            raw_body=body,
        )
        return route.handlers[request.method], call


def _read_request(scope: Scope, path: bytes) -> _Request:
    """The parts of a request; the path is split before decoding, so that `%2F` is no border."""
    segments = [unquote(part) for part in path.decode("latin-1").split("/")[2:]]
    if segments and not segments[-1]:
        segments.pop()
    return _Request(
        method=scope["method"],
        owner=segments[0] if segments else "",
        segments=tuple(segments[1:]),
        headers=dict(scope["headers"]),
        query=scope["query_string"],
    )


def _first_of_each(query: bytes) -> dict[str, str]:
    """The query's parameters; a `+` that is not encoded as `%2B` means a blank."""
    if not query:
        return {}
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return dict(reversed(pairs))


async def _send(send: Send, receive: Receive, answer: Answer, fault: Fault | None) -> None:
    body = b"" if answer.payload is None else json.dumps(answer.payload).encode()
    headers = [] if answer.status == 204 else [(b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", b"application/json"))
    if answer.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Vibes"'))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send_body(fault, body, receive, send)


def _errors(code: int, *messages: str) -> dict[str, Any]:
    """The body of every refusal (Vibes documentation, Technical Details)."""
    return {"errors": [{"message": message, "code": code} for message in messages]}
