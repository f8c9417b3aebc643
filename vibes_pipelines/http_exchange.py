"""One HTTP request and its whole answer, or why there is none.

What an answer means, and whether a request is sent again, is for the client of each API to say.
"""

from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL


class NoAnswer(Exception):  # noqa: N818 - the name says what is wrong
    """No answer, or not all of it. `is_late`: none in time; `did_nothing`: nothing ever left."""

    def __init__(self, why: str, *, is_late: bool = False, did_nothing: bool = False) -> None:
        super().__init__(why)
        self.is_late = is_late
        self.did_nothing = did_nothing


class NobodyToAsk(Exception):  # noqa: N818 - as above
    """The address is none, or who answers there cannot be trusted; asking again is no use."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer. `retry_after_s` as its header says, None without a number there."""

    status: int
    content: bytes
    retry_after_s: float | None


async def exchange(
    session: aiohttp.ClientSession, method: str, url: URL, *, repeatable: bool = False, **more: Any
) -> Answered:
    """Sends one request; the HTTP library may send a `repeatable` one twice. Redirects are answers.

    Raises:
        NoAnswer: no answer, or not all of it.
        NobodyToAsk: no trusted TLS connection, or no web address.
    """
    middlewares = () if repeatable else (_sent_once,)
    try:
        async with session.request(
            method, url, allow_redirects=False, middlewares=middlewares, **more
        ) as response:
            content = await response.read()
    except TimeoutError as late:
        raise NoAnswer("no answer in time", is_late=True) from late
    except aiohttp.ClientSSLError as insecure:
        raise NobodyToAsk(f"no trusted TLS connection to {url.host}") from insecure
    except aiohttp.ClientConnectorError as unreachable:
        raise NoAnswer(f"{url.host} cannot be reached", did_nothing=True) from unreachable
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as broken:
        raise NoAnswer("the connection broke") from broken
    except aiohttp.InvalidURL:
        raise NobodyToAsk("no web address to ask") from None
    except aiohttp.ClientError:
        # An answer that is no HTTP. The library's error names the path, and so the person.
        raise NoAnswer("the answer was garbled") from None
    retry_after = response.headers.get("Retry-After", "")
    return Answered(
        response.status, content, float(retry_after) if retry_after.isdecimal() else None
    )


async def _sent_once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keeps the HTTP library from sending a PUT or DELETE again on its own when a line breaks."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as broken:
        raise aiohttp.ClientConnectionError("the line broke after the request left") from broken
