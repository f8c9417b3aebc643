"""The face of the web sign-up: one POST becomes one answer in words that a web form can show.

Only HTTP belongs here: what a form may hold, how often a number may be invited and what is sent to
the platform is decided by the `Registrar`, which `stages.signup` has.
"""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

MAX_FORM_BYTES = 16 * 1024

Result = Literal[
    "confirm",
    "subscribed",
    "pending",
    "already_subscribed",
    "unconfirmed",
    "invalid_form",
    "invalid_number",
    "no_mobile_number",
    "number_in_conflict",
    "blocked",
    "refused",
    "too_many",
    "unavailable",
]


@dataclass(frozen=True, slots=True)
class SignupAnswer:
    """What became of one sign-up; `place` names the field of the form that is at fault, if any."""

    result: Result
    retry_after_s: int | None = None
    place: str | None = None


class Registrar(Protocol):
    """Who takes a form in; `address` is where it came from."""

    async def sign_up(self, form: Mapping[str, object], address: str) -> SignupAnswer:
        """Invites a person, at most once for one wish."""
        ...


OpenSignup = Callable[[], AbstractAsyncContextManager[Registrar]]
"""Opens a registrar for as long as the receiver runs; picklable, for several processes."""

ANSWERS: Mapping[Result, tuple[int, str]] = {
    "confirm": (201, "A text message is on its way; answer it with Y to confirm."),
    "subscribed": (201, "The number is subscribed; a welcome message is on its way."),
    "pending": (200, "The number was invited before; answer the text message with Y to confirm."),
    "already_subscribed": (409, "The number is subscribed already."),
    "unconfirmed": (
        202,
        "Whether the invitation arrived is not known; if no text message comes, try again later.",
    ),
    "invalid_form": (400, "The form is malformed."),
    "invalid_number": (400, "This is no mobile number; write it with its country code."),
    "no_mobile_number": (422, "This number cannot get text messages; is it a landline?"),
    "number_in_conflict": (422, "The number belongs to somebody else's record; ask for help."),
    "blocked": (422, "This number declined before; to join, text the keyword of the programme."),
    "refused": (422, "The platform did not take the sign-up; ask for help."),
    "too_many": (429, "Too many sign-ups; try again later."),
    "unavailable": (503, "Signing up is not possible now, and nothing was sent; try again later."),
}
"""HTTP status and sentence per result. What a person gets to see is up to the form."""

log = logging.getLogger("vibes_pipelines.callbacks")


class SignupDesk:
    """The endpoint. Its registrar is set while the application runs."""

    def __init__(self, registrar: Registrar | None = None) -> None:
        self.registrar = registrar

    async def receive(self, request: Request) -> Response:
        """Reads the form, has it taken in, answers."""
        try:
            form = await _read_form(request)
        except ClientDisconnect:
            return _respond(SignupAnswer("invalid_form"))
        if isinstance(form, SignupAnswer):
            return _respond(form)
        if self.registrar is None:
            return _respond(SignupAnswer("unavailable"))
        source = request.client.host if request.client else "unknown"
        try:
            return _respond(await self.registrar.sign_up(form, source))
        except Exception as failed:  # noqa: BLE001 - the boundary of the process
            log.error("a sign-up failed: %s", type(failed).__name__)  # noqa: TRY400 - the error may hold the form
            return _respond(SignupAnswer("unavailable"))


async def _read_form(request: Request) -> Mapping[str, object] | SignupAnswer:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return SignupAnswer("invalid_form", place=f"body longer than {MAX_FORM_BYTES} bytes")
    try:
        form = json.loads(bytes(body))
    except (ValueError, RecursionError):
        form = None
    if not isinstance(form, dict):
        return SignupAnswer("invalid_form", place="body is no JSON object")
    return form


def _respond(answer: SignupAnswer) -> Response:
    status, sentence = ANSWERS[answer.result]
    content = {"result": answer.result, "message": sentence}
    if answer.place is not None:
        content["place"] = answer.place
    headers = {"Cache-Control": "no-store"}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    return JSONResponse(content, status, headers)
