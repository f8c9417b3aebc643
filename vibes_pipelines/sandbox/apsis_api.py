"""The HTTP face of the APSIS One stand-in: tokens, limits, media types, uploads, faults, audit.

What a call means is in `apsis_routes`.
"""

import json
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from vibes_pipelines.sandbox.api_calls import Answer
from vibes_pipelines.sandbox.api_faults import (
    NO_ANSWER,
    reset,
    send_body,
    suffer_after,
    suffer_before,
)
from vibes_pipelines.sandbox.apsis_access import Gates, Tokens
from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_imports import Imports
from vibes_pipelines.sandbox.apsis_records import ProblemError
from vibes_pipelines.sandbox.apsis_routes import IMPORTS, ApsisCall, ApsisRoute, find_apsis_route
from vibes_pipelines.sandbox.faults import Fault, Faults
from vibes_pipelines.sandbox.request_body import parse_json

MAX_BODY_BYTES = 100_000
_MEDIA_TYPES = {"PATCH": "application/merge-patch+json"}
_ACCEPTED = {"*/*", "application/json", "application/problem+json"}


@dataclass(frozen=True)
class ApsisApi:
    """The ASGI application of one account."""

    account: ApsisAccount
    imports: Imports
    tokens: Tokens
    gates: Gates
    faults: Faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let a fault strike it."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        segments = tuple(unquote(part) for part in raw_path.strip("/").split("/"))
        request = Request(scope, receive)
        fault = self.faults.take(request.method, raw_path)
        answer = await suffer_before(fault, receive)
        if answer is None:
            answer = await self._answer(request, segments)
            answer = await suffer_after(fault, answer, receive)
        found = find_apsis_route(segments)
        template = found[0].template if found else f"/{segments[0]}"
        self.account.audit.request(request.method, template, answer.status)
        if answer is NO_ANSWER:
            await reset(receive)
        else:
            await self._send(send, receive, answer, fault)

    async def _answer(self, request: Request, segments: tuple[str, ...]) -> Answer:
        try:
            if segments[0] == "uploads" and len(segments) == 2 and request.method == "POST":
                return await self._upload(request, segments[1])
            content = await request.body()
            with self.account.lock:
                self.imports.settle()
                if segments == ("oauth", "token"):
                    return self._token(request, content)
                return self._call(request, segments, content)
        except ProblemError as problem:
            return Answer(problem.status, problem.as_body())

    def _token(self, request: Request, content: bytes) -> Answer:
        self.gates.token()
        if request.method != "POST":
            raise ProblemError(405, "Method Not Allowed")
        return Answer(200, self.tokens.issue(_json_object(request, content)))

    def _call(self, request: Request, segments: tuple[str, ...], content: bytes) -> Answer:
        self.tokens.admit(request.headers.get("authorization", ""))
        self.gates.call()
        found = find_apsis_route(segments)
        if found is None:
            raise ProblemError(404, "Not Found", "there is no such call")
        route, variables = found
        if request.method not in route.handlers:
            raise ProblemError(405, "Method Not Allowed")
        self._check_gates(route, request.method, variables)
        body = _json_object(request, content) if _has_body(route, request.method) else {}
        call = ApsisCall(
            self.account,
            self.imports,
            variables,
            parse_qs(request.url.query, keep_blank_values=True),
            body,
            f"http://{request.headers.get('host', '')}",
        )
        return route.handlers[request.method](call)

    def _check_gates(self, route: ApsisRoute, method: str, variables: tuple[str, ...]) -> None:
        if route.is_about_profile:
            self.gates.profile(variables[0], variables[1])
        if route.template == IMPORTS and method == "POST":
            self.gates.imports()

    async def _upload(self, request: Request, import_id: str) -> Answer:
        """A file by form, at the store of files: no token, and no limit of the API."""
        if request.headers.get("authorization"):
            raise ProblemError(400, "Bad Request", "an upload takes no token")
        content_type = request.headers.get("content-type", "")
        fields, content = _read_form(content_type, await request.body())
        with self.account.lock:
            self.imports.settle()
            self.imports.upload(import_id, fields, content)
        return Answer(204)

    async def _send(
        self, send: Send, receive: Receive, answer: Answer, fault: Fault | None
    ) -> None:
        body = b"" if answer.payload is None else json.dumps(answer.payload).encode()
        headers = [] if answer.status == 204 else [(b"content-length", str(len(body)).encode())]
        if body:
            is_problem = answer.status >= 400
            media_type = b"application/problem+json" if is_problem else b"application/json"
            headers.append((b"content-type", media_type))
        if answer.status == 429 and self.account.switches.retry_after == "present":
            headers.append((b"retry-after", b"1"))
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await send(start)
        await send_body(fault, body, receive, send)


def _has_body(route: ApsisRoute, method: str) -> bool:
    return method in {"POST", "PATCH", "PUT"} and not route.template.endswith("/locks")


def _read_form(content_type: str, body: bytes) -> tuple[dict[str, str], bytes | None]:
    """The fields of a form, and its part `file` of type text/csv; raises ProblemError."""
    if not content_type.startswith("multipart/form-data"):
        raise ProblemError(400, "Bad Request", "an upload is multipart/form-data")
    form = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {content_type}\r\n\r\n".encode() + body
    )
    fields: dict[str, str] = {}
    content: bytes | None = None
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            raise ProblemError(400, "Bad Request", "a part of the form is no plain part")
        if name != "file":
            fields[str(name)] = payload.decode(errors="replace")
        elif part.get_content_type() == "text/csv":
            content = payload
    return fields, content


def _json_object(request: Request, content: bytes) -> dict[str, Any]:
    """The JSON object of a write; raises ProblemError for all that is not exactly that."""
    if len(content) > MAX_BODY_BYTES:
        raise ProblemError(413, "Payload Too Large", "at most 100 kB")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPES.get(request.method, "application/json"):
        raise ProblemError(415, "Unsupported Media Type", "see the documentation of this call")
    if request.headers.get("accept", "*/*") not in _ACCEPTED:
        raise ProblemError(406, "Not Acceptable", "answers are JSON")
    try:
        body = parse_json(content)
    except ValueError as error:
        raise ProblemError(400, "Bad Request", "the body is not JSON in UTF-8") from error
    if not isinstance(body, dict):
        raise ProblemError(400, "Bad Request", "the body is an object")
    return body
