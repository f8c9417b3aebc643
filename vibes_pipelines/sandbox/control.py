"""The control API: how tests and the demo drive the sandbox, under /sandbox on the API's port.

No outside system has anything like it. It answers JSON, and errors as `{"error": "..."}` with
status 400.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vibes_pipelines.sandbox.acts import ACTS, ActError
from vibes_pipelines.sandbox.audit_log import Entry
from vibes_pipelines.sandbox.faults import FaultScriptError
from vibes_pipelines.sandbox.texts import IDENTIFIERS, TextError, TextWord

PREFIX = "/sandbox/"


class ControlError(ValueError):
    """A control request cannot be followed; the message says what would be right."""


class Controlled(Protocol):
    """What the control API can do to a sandbox."""

    def next_day(self, *, edits: bool = True) -> date:
        """Have the next morning, after a night of edits or a quiet one."""

    def now(self) -> datetime:
        """Tell the present instant."""

    def audit(self) -> dict[str, object]:
        """Tell what was done to the platform."""

    def audit_log(self, kind: str | None, count: int) -> list[Entry]:
        """Tell the latest entries of the audit one by one."""

    def set_faults(self, script: object) -> None:
        """Replace the fault script; raises FaultScriptError."""

    def set_callback_manner(self, script: object) -> None:
        """Replace the manner in which callbacks are sent; raises FaultScriptError."""

    def text(self, word: TextWord, identifier: Mapping[str, str], list_id: str) -> bool:
        """Let a person send a text; False when it changes nothing; raises TextError."""

    def act(self, name: str, wish: Mapping[str, object]) -> dict[str, object]:
        """Let somebody outside the platform do something; raises ActError, TextError."""

    def cut_next_extracts(self, kinds: Sequence[str]) -> None:
        """Spoil the next morning's extracts; raises ControlError."""

    def complete_extracts(self) -> list[str]:
        """Deliver what was spoilt, whole."""


def with_control(sandbox: Controlled, api: ASGIApp) -> ASGIApp:
    """The platform's API and, beside it, the control API, whose requests the former never sees."""
    control = _build_control(sandbox)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope["type"] == "http" and scope["path"].startswith(PREFIX)
        await (control if is_control else api)(scope, receive, send)

    return dispatch


def _build_control(sandbox: Controlled) -> Starlette:
    control = _Control(sandbox)
    return Starlette(
        routes=[
            Route("/sandbox/next-day", control.next_day, methods=["POST"]),
            Route("/sandbox/now", control.now),
            Route("/sandbox/audit", control.audit),
            Route("/sandbox/audit/log", control.audit_log),
            Route("/sandbox/faults", control.faults, methods=["POST"]),
            Route("/sandbox/callbacks", control.callbacks, methods=["POST"]),
            Route("/sandbox/texts/stop", control.stop_text, methods=["POST"]),
            Route("/sandbox/texts/join", control.join_text, methods=["POST"]),
            *(Route(PREFIX + name, control.act, methods=["POST"]) for name in ACTS),
            Route("/sandbox/extracts/cut-next", control.cut_extracts, methods=["POST"]),
            Route("/sandbox/extracts/complete", control.complete_extracts, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys(
            (ControlError, FaultScriptError, TextError, ActError), _refuse
        ),
    )


@dataclass(frozen=True)
class _Control:
    """The requests of the control API."""

    sandbox: Controlled

    async def next_day(self, request: Request) -> JSONResponse:
        edits = (await _body(request)).get("edits", True)
        if not isinstance(edits, bool):
            raise ControlError(f"edits is true or false, not {edits!r}")
        day = await run_in_threadpool(self.sandbox.next_day, edits=edits)
        return JSONResponse({"date": day.isoformat(), "now": self.sandbox.now().isoformat()})

    async def now(self, _: Request) -> JSONResponse:
        return JSONResponse({"now": self.sandbox.now().isoformat()})

    async def audit(self, _: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(self.sandbox.audit))

    async def audit_log(self, request: Request) -> JSONResponse:
        count = request.query_params.get("count", "100")
        if not (count.isascii() and count.isdecimal()):
            raise ControlError(f"count is a whole number, not {count!r}")
        kind = request.query_params.get("kind")
        return JSONResponse({"entries": self.sandbox.audit_log(kind, int(count))})

    async def faults(self, request: Request) -> JSONResponse:
        self.sandbox.set_faults(await _json(request))
        return JSONResponse({"faults": "set"})

    async def callbacks(self, request: Request) -> JSONResponse:
        self.sandbox.set_callback_manner(await _json(request))
        return JSONResponse({"callbacks": "set"})

    async def stop_text(self, request: Request) -> JSONResponse:
        return await self._text("stop", request)

    async def join_text(self, request: Request) -> JSONResponse:
        return await self._text("join", request)

    async def _text(self, word: TextWord, request: Request) -> JSONResponse:
        identifier, list_id = _sender_and_list(await _body(request))
        changed = await run_in_threadpool(self.sandbox.text, word, identifier, list_id)
        return JSONResponse({"changed": changed})

    async def act(self, request: Request) -> JSONResponse:
        name = request.url.path.removeprefix(PREFIX)
        done = await run_in_threadpool(self.sandbox.act, name, await _body(request))
        return JSONResponse(done)

    async def cut_extracts(self, request: Request) -> JSONResponse:
        kinds = (await _body(request)).get("kinds")
        if not isinstance(kinds, list):
            raise ControlError('kinds is a list, e.g. {"kinds": ["subscriptions"]}')
        self.sandbox.cut_next_extracts([str(kind) for kind in kinds])
        return JSONResponse({"cut_next": kinds})

    async def complete_extracts(self, _: Request) -> JSONResponse:
        return JSONResponse({"completed": await run_in_threadpool(self.sandbox.complete_extracts)})


def _sender_and_list(body: Mapping[str, object]) -> tuple[dict[str, str], str]:
    """Who sends a text, by one identifier, and to which list."""
    texts = {key: value for key, value in body.items() if isinstance(value, str)}
    list_id = texts.pop("list_id", None)
    if list_id is None or len(body) != 2 or len(texts) != 1 or not set(texts) <= set(IDENTIFIERS):
        raise ControlError(
            f"a text takes list_id and one of {', '.join(IDENTIFIERS)}, both as strings"
        )
    return texts, list_id


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _json(request: Request) -> object:
    content = await request.body()
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise ControlError(f"the body is not JSON: {error}") from error


async def _body(request: Request) -> dict[str, object]:
    content = await _json(request)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ControlError("the body is a JSON object")
    return content
