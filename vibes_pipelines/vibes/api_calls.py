"""Calls of one company: a write with its answer, a read with its record. Knows no resource.

What is common to every resource of the Vibes API: how a refusal becomes a class, how a missing
record looks, how a person is named in a path. The resources are in the files `*_api.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from vibes_pipelines.vibes.api_transport import (
    CALLS,
    ApiTransport,
    Reply,
    VibesApiError,
    VibesAuthError,
    VibesUnavailable,
)
from vibes_pipelines.vibes.api_version import read_answer, sent_body, sent_mdn
from vibes_pipelines.vibes.error_classes import api_error_class, without_personal_data

Body = Mapping[str, Any]
Record = dict[str, Any]
Outcome = Literal["accepted", "rejected", "unknown"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one write.

    `rejected` will not change by sending it again. `unknown`: every attempt failed on the way, or
    the answer is none that the API gives, so that it may or may not have been applied; `status` is
    then that of the last answer, if any.
    `is_repeat`: an earlier attempt of this write may have been applied before this answer came.
    """

    status: int | None
    outcome: Outcome
    error_class: str | None = None
    message: str | None = None
    body: Record | None = None
    is_repeat: bool = False


class Calls:
    """The company's part of an open transport. Every call raises `VibesAuthError` when refused."""

    def __init__(self, http: ApiTransport, company_key: str) -> None:
        self.http = http
        self.company = f"/companies/{segment(company_key)}"
        self.mobiledb = f"{self.company}/mobiledb"

    def person(self, person_key: str | None, external_person_id: str | None) -> str:
        """The path of a person.

        Raises:
            ValueError: not exactly one of the two is given.
        """
        if (person_key is None) == (external_person_id is None):
            msg = "name the person by exactly one of person_key and external_person_id"
            raise ValueError(msg)
        if person_key is not None:
            return f"{self.mobiledb}/persons/{segment(person_key)}"
        return f"{self.mobiledb}/persons/external/{segment(external_person_id or '')}"

    def mdn(self, mdn: str) -> str:
        """An E.164 number as a query value of the transport's version."""
        return segment(sent_mdn(mdn, self.http.version))

    async def write(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        lane: str = CALLS,
        repeatable: bool = True,
    ) -> Answer:
        """Sends a write; see `ApiTransport.request` for when it is sent again."""
        sent = None if body is None else sent_body(body, self.http.version)
        try:
            reply = await self.http.request(method, path, sent, lane=lane, repeatable=repeatable)
        except VibesUnavailable as unavailable:
            why = str(unavailable) if repeatable else _look_first(unavailable.error_class)
            return Answer(unavailable.status, "unknown", unavailable.error_class, why)
        if not reply.is_success:
            return _rejection(reply)
        if reply.is_empty:
            return Answer(reply.status, "accepted", is_repeat=reply.is_repeat)
        found = reply.json()
        if not isinstance(found, dict):
            # E.g. the page of a proxy: what stands before the platform is not its word.
            return Answer(reply.status, "unknown", "UnreadableAnswer", _NOT_ITS_WORD)
        record = read_answer(found, self.http.version)
        return Answer(reply.status, "accepted", body=record, is_repeat=reply.is_repeat)

    async def read(self, path: str, *, lane: str = CALLS) -> Any:
        """The JSON of a record, or None when the platform does not know it (404).

        Raises:
            VibesUnavailable: every attempt failed.
            VibesApiError: the answer says nothing about the record.
        """
        reply = await self.http.request("GET", path, lane=lane)
        if reply.status == 404:
            return None
        found = reply.json()
        if not reply.is_success or found is None:
            refusal = _rejection(reply)
            why = "no JSON" if reply.is_success else refusal.message or refusal.error_class
            msg = f"Vibes API: a read was answered with HTTP {reply.status}: {why}"
            raise VibesApiError(msg)
        return read_answer(found, self.http.version)


@contextmanager
def begun() -> Iterator[None]:
    """What is refused within comes after a write of the same operation: `in_doubt`."""
    try:
        yield
    except VibesAuthError as refused:
        refused.in_doubt = True
        raise


def one_record(found: Any) -> Record | None:
    """One record, whether the API answers with an object or with an array of one."""
    records = [] if found is None else all_records(found)
    if len(records) > 1:
        msg = f"Vibes API: {len(records)} persons have this number; decide which one is meant"
        raise VibesApiError(msg)
    return records[0] if records else None


def all_records(found: Any) -> list[Record]:
    """The records of an answer, whether it is an array or, for one record, an object."""
    records = found if isinstance(found, list) else [found]
    if not all(isinstance(record, dict) for record in records):
        msg = "Vibes API: a read was answered with JSON that holds no record"
        raise VibesApiError(msg)
    return records


def text_of(record: Mapping[str, Any], *keys: str) -> str | None:
    """The first of these keys that has a value, as text: the platform mixes numbers and text."""
    found = (record[key] for key in keys if record.get(key) is not None)
    value = next(found, None)
    return None if value is None else str(value)


def query(parameters: Mapping[str, str | None]) -> str:
    """`?a=1&b=2` of the parameters that are given, or nothing; values are encoded."""
    given = [f"{name}={segment(value)}" for name, value in parameters.items() if value is not None]
    return "?" + "&".join(given) if given else ""


def segment(text: str) -> str:
    """Text as one path segment or query value; `+` must be sent as %2B."""
    return quote(text, safe="")


_NOT_ITS_WORD = "Vibes API: a write was answered with a body that is no JSON object"


def _look_first(error_class: str) -> str:
    return f"Vibes API: {error_class}; it may have been applied, look before it is sent again"


def _rejection(reply: Reply) -> Answer:
    message = reply.message()
    error_class = api_error_class(reply.status, message)
    safe = without_personal_data(message) if message else None
    return Answer(reply.status, "rejected", error_class, safe, is_repeat=reply.is_repeat)
