"""The body of a request, received and read by every stand-in alike; what it asks for is theirs."""

import json
from collections.abc import Callable
from typing import Any

from starlette.types import Receive

_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str)


async def receive_body(receive: Receive) -> bytes:
    """The whole body."""
    body = b""
    while True:
        message = await receive()
        chunk: bytes = message.get("body", b"")
        body += chunk
        if not message.get("more_body", False):
            return body


def parse_json(body: bytes, parse_float: Callable[[str], object] = float) -> Any:
    """The JSON document of a body, read as strictly as RFC 8259 allows.

    Raises ValueError for what is no JSON in UTF-8, has a member twice or is nested too deeply; and
    for what no answer, callback or database could hold afterwards: half a character, or a number
    beyond all bounds.
    """
    try:
        document = json.loads(body.decode(), parse_float=parse_float, object_pairs_hook=_each_once)
        _STRICT.encode(document).encode()
    except RecursionError as error:
        raise ValueError("the body is nested too deeply") from error
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found
