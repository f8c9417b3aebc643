"""The control API: how tests and the demo drive the sandbox, under /sandbox on the API's port.

No outside system has anything like it. It answers JSON, and errors as `{"error": "..."}` with
status 400.
"""

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vibes_pipelines.sandbox.faults import FaultScriptError

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

    def set_faults(self, script: object) -> None:
        """Replace the fault script; raises FaultScriptError."""

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
    async def next_day(request: Request) -> JSONResponse:
        edits = (await _body(request)).get("edits", True)
        if not isinstance(edits, bool):
            raise ControlError(f"edits is true or false, not {edits!r}")
        day = await run_in_threadpool(sandbox.next_day, edits=edits)
        return JSONResponse({"date": day.isoformat(), "now": sandbox.now().isoformat()})

    async def now(_: Request) -> JSONResponse:
        return JSONResponse({"now": sandbox.now().isoformat()})

    async def audit(_: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(sandbox.audit))

    async def faults(request: Request) -> JSONResponse:
        sandbox.set_faults(await _json(request))
        return JSONResponse({"faults": "set"})

    async def cut_extracts(request: Request) -> JSONResponse:
        kinds = (await _body(request)).get("kinds")
        if not isinstance(kinds, list):
            raise ControlError('kinds is a list, e.g. {"kinds": ["subscriptions"]}')
        sandbox.cut_next_extracts([str(kind) for kind in kinds])
        return JSONResponse({"cut_next": kinds})

    async def complete_extracts(_: Request) -> JSONResponse:
        return JSONResponse({"completed": await run_in_threadpool(sandbox.complete_extracts)})

    return Starlette(
        routes=[
            Route("/sandbox/next-day", next_day, methods=["POST"]),
            Route("/sandbox/now", now),
            Route("/sandbox/audit", audit),
            Route("/sandbox/faults", faults, methods=["POST"]),
            Route("/sandbox/extracts/cut-next", cut_extracts, methods=["POST"]),
            Route("/sandbox/extracts/complete", complete_extracts, methods=["POST"]),
        ],
        exception_handlers={ControlError: _refuse, FaultScriptError: _refuse},
    )


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
