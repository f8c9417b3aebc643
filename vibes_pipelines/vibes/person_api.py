"""The Person and Subscription APIs, version 2: writes with receipts, reads of single records.

Routes and answers: the Vibes documentation, Person API and Subscription API. Where it contradicts
itself both readings are accepted. Bodies are built in `bodies`; HTTP itself is `api_transport`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from vibes_pipelines.vibes.api_transport import (
    ApiTransport,
    Limits,
    Reply,
    VibesApiError,
    VibesAuthError,
    VibesUnavailable,
)
from vibes_pipelines.vibes.error_classes import api_error_class, without_personal_data

__all__ = ["Answer", "PersonApi", "VibesApiError", "VibesAuthError", "VibesUnavailable"]

Body = Mapping[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one write.

    `rejected` will not change by sending it again. `unknown`: every attempt failed on the way, so
    that it may or may not have been applied; `status` is then that of the last answer, if any.
    """

    status: int | None
    outcome: Literal["accepted", "rejected", "unknown"]
    error_class: str | None = None
    message: str | None = None
    body: Record | None = None


class PersonApi:
    """A client of one company's persons; use it as an async context manager.

    Every call raises `VibesAuthError` when the login is refused. Reads return None for a record
    that is not there (404, which a wrong company key also gives) and raise `VibesUnavailable` or
    `VibesApiError` for anything else.
    """

    def __init__(  # noqa: PLR0913 - the limits of the platform are all named
        self,
        base_url: str,
        company_key: str,
        user: str,
        password: str,
        *,
        rate_per_s: float = 100,
        concurrency: int = 32,
        timeout_s: float = 30,
        max_attempts: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        limits = Limits(rate_per_s, concurrency, timeout_s, max_attempts, backoff_s)
        self._http = ApiTransport(base_url, user, password, limits)
        self._root = f"/companies/{_segment(company_key)}/mobiledb"

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def add(self, body: Body) -> Answer:
        """Creates a person, or updates the one that the body's identifiers match."""
        return await self._write("POST", f"{self._root}/persons/", body)

    async def update(self, person_key: str, body: Body) -> Answer:
        """Changes what the body names of an existing person."""
        return await self._write("PUT", self._person(person_key, None), body)

    async def upsert(self, external_person_id: str, body: Body) -> Answer:
        """Changes the person with this external id, creating it when there is none."""
        return await self._write("PUT", self._person(None, external_person_id), body)

    async def unsubscribe(
        self,
        list_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> Answer:
        """Ends a subscription. One that is not there counts as ended, if the person is there.

        A 404 says neither which of the two is missing nor that the company key is right, so that
        the person is read back.
        """
        person = self._person(person_key, external_person_id)
        path = f"{person}/subscriptions/{_segment(list_id)}"
        answer = await self._write("DELETE", path, None)
        if answer.status != 404 or answer.outcome != "rejected":
            return answer
        try:
            found = await self._read(person)
        except VibesUnavailable as unavailable:
            return Answer(unavailable.status, "unknown", unavailable.error_class, str(unavailable))
        except VibesAuthError:
            raise
        except VibesApiError:
            return answer
        return answer if found is None else Answer(404, "accepted")

    async def get(self, person_key: str) -> Record | None:
        """The person with this key."""
        return _record(await self._read(self._person(person_key, None)))

    async def get_external(self, external_person_id: str) -> Record | None:
        """The person with this external id."""
        return _record(await self._read(self._person(None, external_person_id)))

    async def find_by_mdn(self, mdn: str) -> Record | None:
        """The person with this number (E.164).

        Raises:
            VibesApiError: also when several persons have the number.
        """
        return _record(await self._read(f"{self._root}/persons?mdn={_segment(mdn)}"))

    async def subscriptions(
        self,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
        active_only: bool = True,
    ) -> list[Record] | None:
        """A person's subscriptions, with the ended ones unless `active_only`."""
        query = "" if active_only else "?active_only=false"
        person = self._person(person_key, external_person_id)
        found = await self._read(f"{person}/subscriptions{query}")
        return None if found is None else _records(found)

    async def lists(self) -> list[Record]:
        """The company's subscription lists."""
        return _records(await self._read(f"{self._root}/subscription_lists/") or [])

    def _person(self, person_key: str | None, external_person_id: str | None) -> str:
        if (person_key is None) == (external_person_id is None):
            msg = "name the person by exactly one of person_key and external_person_id"
            raise ValueError(msg)
        if person_key is not None:
            return f"{self._root}/persons/{_segment(person_key)}"
        return f"{self._root}/persons/external/{_segment(external_person_id or '')}"

    async def _write(self, method: str, path: str, body: Body | None) -> Answer:
        try:
            reply = await self._http.request(method, path, body)
        except VibesUnavailable as unavailable:
            return Answer(unavailable.status, "unknown", unavailable.error_class, str(unavailable))
        if reply.is_success:
            found = reply.json()
            return Answer(reply.status, "accepted", body=found if isinstance(found, dict) else None)
        return _rejection(reply)

    async def _read(self, path: str) -> Any:
        """The JSON of a record, or None when the platform does not know it."""
        reply = await self._http.request("GET", path)
        if reply.status == 404:
            return None
        found = reply.json()
        if not reply.is_success or found is None:
            refusal = _rejection(reply)
            why = "no JSON" if reply.is_success else refusal.message or refusal.error_class
            msg = f"Vibes API: a read was answered with HTTP {reply.status}: {why}"
            raise VibesApiError(msg)
        return found


def _rejection(reply: Reply) -> Answer:
    message = reply.message()
    error_class = api_error_class(reply.status, message)
    safe = without_personal_data(message) if message else None
    return Answer(reply.status, "rejected", error_class, safe)


def _record(found: Any) -> Record | None:
    """One record, whether the API answers with an object or with an array of one."""
    records = [] if found is None else _records(found)
    if len(records) > 1:
        msg = f"Vibes API: {len(records)} persons have this number; decide which one is meant"
        raise VibesApiError(msg)
    return records[0] if records else None


def _records(found: Any) -> list[Record]:
    records = found if isinstance(found, list) else [found]
    if not all(isinstance(record, dict) for record in records):
        msg = "Vibes API: a read was answered with JSON that holds no record"
        raise VibesApiError(msg)
    return records


def _segment(text: str) -> str:
    """Text as one path segment or query value; `+` must be sent as %2B."""
    return quote(text, safe="")
