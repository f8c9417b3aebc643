"""How a scripted fault strikes a request: answers late, wrong or never, broken connections."""

import asyncio
import socket
import struct
from http import HTTPStatus

from starlette.types import Receive, Send

from vibes_pipelines.sandbox.api_calls import Answer
from vibes_pipelines.sandbox.faults import Fault

NO_ANSWER = Answer(0)
"""Stands for a connection that is to be broken with `reset` instead of answered."""

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing the socket sends a TCP reset instead of an orderly end."""


class NoTransportError(RuntimeError):
    """The web server gives no way to break its connection; serve the sandbox with uvicorn."""


async def suffer_before(fault: Fault | None, receive: Receive) -> Answer | None:
    """Let a fault strike before the call is processed; `None` when it is to be processed."""
    if fault is None or fault.when == "after":
        return None
    if fault.action == "delay":
        await asyncio.sleep(fault.delay_s)
        return None
    return await _strike(fault, receive)


async def suffer_after(fault: Fault | None, answer: Answer, receive: Receive) -> Answer:
    """Let a fault strike between a processed call and its answer; not those within the answer."""
    if fault is None or fault.when == "before" or fault.action in {"partial", "stall"}:
        return answer
    if fault.action == "delay":
        await asyncio.sleep(fault.delay_s)
        return answer
    return await _strike(fault, receive)


async def _strike(fault: Fault, receive: Receive) -> Answer:
    if fault.action == "status":
        await asyncio.sleep(fault.delay_s)
        phrase = HTTPStatus(fault.status).phrase
        return Answer(fault.status, {"errors": [{"message": phrase, "code": fault.status}]})
    if fault.action == "hang":
        await _until_gone(receive, fault.delay_s)
    return NO_ANSWER


async def _until_gone(receive: Receive, timeout_s: float) -> None:
    """Wait until the client has closed the connection, or the time is up."""
    try:
        async with asyncio.timeout(timeout_s):
            await _disconnected(receive)
    except TimeoutError:
        return


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_body(fault: Fault | None, body: bytes, receive: Receive, send: Send) -> None:
    """Send an answer's body, which a fault may end or interrupt in its middle."""
    if fault is None or fault.action not in {"partial", "stall"}:
        await send({"type": "http.response.body", "body": body})
        return
    middle = len(body) // 2
    await send({"type": "http.response.body", "body": body[:middle], "more_body": True})
    if fault.action == "partial":
        _transport(receive).close()
        await _disconnected(receive)
        return
    await asyncio.sleep(fault.delay_s)
    await send({"type": "http.response.body", "body": body[middle:]})


def _transport(receive: Receive) -> asyncio.Transport:
    """The connection; ASGI has no word for it, so uvicorn's is taken. Raises NoTransportError."""
    transport: asyncio.Transport | None = getattr(
        getattr(receive, "__self__", None), "transport", None
    )
    if transport is None:
        raise NoTransportError(NoTransportError.__doc__)
    return transport


async def reset(receive: Receive) -> None:
    """Break the connection at once."""
    transport = _transport(receive)
    if not transport.is_closing():
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        transport.abort()
    await _disconnected(receive)
