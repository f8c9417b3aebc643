"""Tribe over HTTP: the token endpoint, OData under `/v1/odata`, webhooks under `/v1/webhooks`.

Stricter than the documentation: whatever it does not name is refused. Errors have OData's form (an
assumption: the documentation is silent).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from vibes_pipelines.sandbox.api_calls import Answer
from vibes_pipelines.sandbox.api_faults import (
    NO_ANSWER,
    reset,
    send_body,
    suffer_after,
    suffer_before,
)
from vibes_pipelines.sandbox.api_limits import RateLimit
from vibes_pipelines.sandbox.faults import Fault, Faults
from vibes_pipelines.sandbox.request_body import parse_json, receive_body
from vibes_pipelines.sandbox.tribe_options import (
    Options,
    OptionsError,
    read_options,
    sorted_rows,
)
from vibes_pipelines.sandbox.tribe_schema import SERVED, metadata_xml
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.sandbox.tribe_token import Tokens
from vibes_pipelines.sandbox.tribe_webhooks import WebhookError, Webhooks
from vibes_pipelines.sandbox.tribe_world import Record, TribeWorld, WorldError

ODATA = "/v1/odata/"
_GUID = r"([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
_SET = re.compile(r"([A-Za-z_0-9]+)")
_ONE = re.compile(rf"([A-Za-z_0-9]+)\({_GUID}\)")
_ENTITIES_OF = re.compile(rf"Label\({_GUID}\)/Entities")
_LABEL_OF = re.compile(rf"Relation_Person\({_GUID}\)/Labels\({_GUID}\)/\$ref")
_CODES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}
_WRITABLE = ("Relation_Person", "Label")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: bytes
    host: str
    content_type: str
    body: bytes

    def document(self) -> dict[str, Any]:
        """The JSON object of a write."""
        if self.content_type.partition(";")[0].strip() != "application/json":
            raise _RefusedError(415, "the Content-Type must be application/json")
        try:
            body = parse_json(self.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _RefusedError(400, "the body is a JSON object")
        return body


@dataclass
class TribeServer:
    """The ASGI application of one environment."""

    world: TribeWorld
    tokens: Tokens
    webhooks: Webhooks
    switches: TribeSwitches
    limit: RateLimit
    faults: Faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, unless a fault strikes it."""
        if scope["type"] != "http":
            return
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1")
        fault = self.faults.take(scope["method"], path)
        answer = await suffer_before(fault, receive)
        if answer is None:
            headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
            body = await receive_body(receive)
            request = _Request(
                scope["method"],
                path,
                scope["query_string"],
                headers.get("host", ""),
                headers.get("content-type", ""),
                body,
            )
            answer = self._answer(request, headers.get("authorization"))
            answer = await suffer_after(fault, answer, receive)
        self.world.audit.request(scope["method"], _template(path), answer.status)
        if answer is NO_ANSWER:
            await reset(receive)
        else:
            await _send(send, receive, answer, fault)

    def _answer(self, request: _Request, authorization: str | None) -> Answer:
        try:
            if request.path == "/oauth2/token" and request.method == "POST":
                return Answer(*self.tokens.answer(request.content_type, request.body))
            self._admit(request, authorization)
            with self.world.lock:
                return self._handler(request.path)(request)
        except _RefusedError as refused:
            return _error(refused.status, str(refused))
        except (OptionsError, WorldError, WebhookError) as refused:
            return _error(400, str(refused))

    def _admit(self, request: _Request, authorization: str | None) -> None:
        status = self.tokens.admit(authorization, request.method)
        if status:
            raise _RefusedError(status, "the token is missing, has ended, or has no right")
        if not self.limit.admit():
            raise _RefusedError(429, "too many requests")

    def _handler(self, path: str) -> Callable[[_Request], Answer]:
        if path == f"{ODATA}$metadata":
            return self._metadata
        if path == "/v1/webhooks" or path.startswith("/v1/webhooks/"):
            return self._webhooks
        if path.startswith(ODATA):
            rest = path.removeprefix(ODATA)
            for pattern, handler in (
                (_LABEL_OF, self._label_of),
                (_ENTITIES_OF, self._entities_of),
                (_ONE, self._one),
                (_SET, self._set),
            ):
                if pattern.fullmatch(rest):
                    return handler
        raise _RefusedError(404, "there is no such resource")

    def _metadata(self, request: _Request) -> Answer:
        _only(request, "GET")
        return Answer(200, metadata_xml())

    def _set(self, request: _Request) -> Answer:
        name = request.path.removeprefix(ODATA)
        if name not in SERVED:
            raise _RefusedError(404, f"there is no entity set {name}")
        _only(request, "GET", *(("POST",) if name in _WRITABLE else ()))
        if request.method == "POST":
            return self._post(name, request.document())
        return self._list(request, name, list(self.world.rows(name)))

    def _post(self, name: str, document: dict[str, Any]) -> Answer:
        """A new record; with the ID of one that exists, a change of that one."""
        identifier = document.pop("ID", None)
        if identifier is None:
            record = self.world.create(name, document)  # type: ignore[arg-type]  # one of _WRITABLE
            return Answer(201, self._whole(name, record))
        if self.world.find(name, str(identifier)) is None:
            raise _RefusedError(404, "there is no such record")
        record = self.world.update(name, identifier, document)  # type: ignore[arg-type]
        return Answer(200, self._whole(name, record))

    def _list(self, request: _Request, name: str, rows: list[Record]) -> Answer:
        options = read_options(request.query, name, self.switches.top_over_100)
        if options.test is not None:
            rows = [row for row in rows if options.test(row)]
        if options.order and options.order != (("ID", False),):  # they are by ID already
            rows = [
                dict(row)
                for row in sorted_rows(rows, options.order, name, self.switches.guid_order)
            ]
        end = options.skip + min(options.top, self.switches.page_rows)
        answer: dict[str, Any] = {
            "value": [options.shape.show(row) for row in rows[options.skip : end]]
        }
        if options.has_count and self.switches.count == "answered":
            answer["@odata.count"] = len(rows)
        if self.switches.next_link and end < len(rows):
            answer["@odata.nextLink"] = _next_link(request, options, end)
        return Answer(200, answer)

    def _one(self, request: _Request) -> Answer:
        found = _ONE.fullmatch(request.path.removeprefix(ODATA))
        name, identifier = (found[1], found[2]) if found else ("", "")
        if name not in SERVED:
            raise _RefusedError(404, f"there is no entity set {name}")
        _only(request, "GET", *(("PUT", "DELETE") if name in _WRITABLE else ()))
        record = self.world.find(name, identifier)
        if record is None:
            raise _RefusedError(404, "there is no such record")
        match request.method:
            case "PUT":
                document = request.document()
                if str(document.pop("ID", identifier)).lower() != identifier.lower():
                    raise _RefusedError(400, "the ID of a record cannot be changed")
                record = self.world.update(name, identifier, document)  # type: ignore[arg-type]
                if self.switches.put_answer == "nothing":
                    return Answer(204)
                return Answer(200, self._whole(name, record))
            case "DELETE":
                self.world.delete(name, identifier)  # type: ignore[arg-type]
                return Answer(204)
        options = read_options(request.query, name, is_list=False)
        return Answer(200, options.shape.show(record))

    def _entities_of(self, request: _Request) -> Answer:
        """The persons who have a label."""
        _only(request, "GET")
        found = _ENTITIES_OF.fullmatch(request.path.removeprefix(ODATA))
        label = self.world.find("Label", found[1] if found else "")
        if label is None:
            raise _RefusedError(404, "there is no such label")
        rows = [row for row in self.world.rows("Relation_Person") if label in row["Labels"]]
        return self._list(request, "Relation_Person", rows)

    def _label_of(self, request: _Request) -> Answer:
        """One label of one person."""
        if self.switches.label_ref == "refused":
            raise _RefusedError(404, "there is no such resource")
        _only(request, "DELETE")
        found = _LABEL_OF.fullmatch(request.path.removeprefix(ODATA))
        person_id, label_id = (found[1], found[2]) if found else ("", "")
        if self.world.find("Relation_Person", person_id) is None:
            raise _RefusedError(404, "there is no such person")
        self.world.detach(person_id, label_id)
        return Answer(204)

    def _webhooks(self, request: _Request) -> Answer:
        identifier = request.path.removeprefix("/v1/webhooks").lstrip("/")
        if identifier:
            _only(request, "DELETE")
            if self.webhooks.registered.pop(identifier, None) is None:
                raise _RefusedError(404, "there is no such webhook")
            return Answer(204)
        _only(request, "GET", "POST")
        if request.method == "GET":
            return Answer(200, [one.shown() for one in self.webhooks.registered.values()])
        webhook = self.webhooks.register(request.document())
        return Answer(201, {**webhook.shown(), "secret": webhook.secret})

    def _whole(self, name: str, record: Record) -> dict[str, Any]:
        return read_options(b"", name, is_list=False).shape.show(record)


def _next_link(request: _Request, options: Options, skip: int) -> str:
    kept = [
        part
        for part in request.query.decode("latin-1").split("&")
        if part and not part.startswith(("$skip", "%24skip", "$top", "%24top", "$count"))
    ]
    query = "&".join([*kept, f"{quote('$top')}={options.top}", f"{quote('$skip')}={skip}"])
    return f"http://{request.host}{request.path}?{query}"


def _only(request: _Request, *methods: str) -> None:
    if request.method not in methods:
        raise _RefusedError(405, f"this resource takes {', '.join(methods)}")


def _template(path: str) -> str:
    """The path without identifiers, for the audit."""
    return re.sub(_GUID, "*", path)


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"error": {"code": _CODES.get(status, str(status)), "message": message}})


async def _send(send: Send, receive: Receive, answer: Answer, fault: Fault | None) -> None:
    is_xml = isinstance(answer.payload, bytes)
    body = answer.payload if is_xml else json.dumps(answer.payload).encode()
    if answer.payload is None:
        body = b""
    headers = [(b"content-length", str(len(body)).encode())] if answer.status != 204 else []
    if body:
        kind = b"application/xml" if is_xml else b"application/json"
        headers.append((b"content-type", kind))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send_body(fault, body, receive, send)
