"""What a request of APSIS One is: its path, body, headers and limits. Nothing is sent here.

It imports no HTTP library, which is slow to import: so that whoever only needs the records of this
room does not pay for it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from vibes_pipelines.apsis.errors import ApsisAnswerError, ApsisError, ApsisTooLarge
from vibes_pipelines.apsis.statuses import meaning_of
from vibes_pipelines.json_text import read_json

MAX_BODY_BYTES = 100_000
"""The documentation says 100 kB; taken as the smaller of the two readings."""

_JSON = "application/json"
_PROBLEM = "application/problem+json"
_CONTENT_TYPES = {"PATCH": "application/merge-patch+json"}
_ACCEPTS = {"PATCH": _PROBLEM, "DELETE": _PROBLEM}


@dataclass(frozen=True)
class Limits:
    """How hard the API is driven; the defaults are the documented limits of an account.

    `backoff_s`: before the second attempt; doubles from there. `poll_s`: between two looks at an
    import. Seconds are those of the clock, `timeout_s` those of the machine.
    """

    calls_per_s: int = 100
    calls_per_key_per_s: int = 10
    tokens_per_min: int = 10
    imports_per_min: int = 10
    imports_at_once: int = 3
    import_bytes: int = 50_000_000
    concurrency: int = 32
    timeout_s: float = 30
    upload_timeout_s: float = 600
    max_attempts: int = 5
    backoff_s: float = 0.5
    poll_s: float = 5
    import_patience_s: float = 86_400


@dataclass(frozen=True, slots=True)
class Reply:
    """A success. `is_repeat`: an earlier attempt may have been applied already."""

    status: int
    content: bytes
    is_repeat: bool = False

    def json(self) -> Any:
        """The body; None without any.

        Raises:
            ApsisAnswerError: the body is not JSON.
        """
        try:
            return read_json(self.content) if self.content else None
        except ValueError as malformed:
            msg = f"APSIS One API: an answer {self.status} is not JSON; is APSIS_API_URL right?"
            raise ApsisAnswerError(msg) from malformed


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the API, e.g. `Call("GET", path("audience", "keyspaces"))`.

    `profile` is the (keyspace, key) that the request is about, for its limit. `repeatable`: a
    second request does no more than the first.
    """

    method: str
    path: str
    body: Any = None
    query: Sequence[tuple[str, str]] = ()
    profile: tuple[str, str] | None = None
    repeatable: bool = True

    def data(self) -> bytes | None:
        """The body as it is sent.

        Raises:
            ApsisTooLarge: more than 100 kB.
        """
        if self.body is None:
            return None
        data = json.dumps(self.body, ensure_ascii=False, allow_nan=False).encode()
        if len(data) > MAX_BODY_BYTES:
            cure = meaning_of(413).cure
            raise ApsisTooLarge(413, f"a body of {len(data):,} bytes, not sent", "", cure)
        return data

    def headers(self) -> dict[str, str]:
        """Content types by method, as the vendor's clients send them."""
        headers = {"Accept": _ACCEPTS.get(self.method, _JSON)}
        if self.body is not None:
            headers["Content-Type"] = _CONTENT_TYPES.get(self.method, _JSON)
        return headers


def can_stand_in_path(segment: str) -> bool:
    """Whether it names one thing there: neither empty, nor one that means another folder."""
    return segment not in {"", ".", ".."}


def path(*segments: str) -> str:
    """A path of encoded segments; a profile key may hold any character, e.g. `@` and `/`.

    Raises:
        ApsisError: an empty segment, or one that means another folder; either would name another
            thing.
    """
    if not all(map(can_stand_in_path, segments)):
        msg = "APSIS One API: an empty name or '.' cannot stand in a path; check keys and config"
        raise ApsisError(msg)
    return "/" + "/".join(quote(segment, safe="") for segment in segments)
