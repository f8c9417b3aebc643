"""The Person API: writes with receipts, reads of single records, the change of a number.

Routes and answers: the Vibes documentation, Person API. Where it contradicts itself both readings
are accepted. Bodies are built and compared in `bodies`; what is common to all calls is `api_calls`.
"""

from typing import Self

from vibes_pipelines.vibes.api_calls import Answer, Body, Calls, Record, begun, one_record
from vibes_pipelines.vibes.api_transport import (
    TURNED_AWAY,
    ApiTransport,
    Limits,
    VibesApiError,
    VibesAuthError,
    VibesUnavailable,
)
from vibes_pipelines.vibes.bodies import mdn_of, shows
from vibes_pipelines.vibes.mdn_change import MdnChange
from vibes_pipelines.vibes.rate_limit import RateLimiter
from vibes_pipelines.vibes.subscription_api import SubscriptionApi

__all__ = ["Answer", "PersonApi", "Persons", "VibesApiError", "VibesAuthError", "VibesUnavailable"]


class Persons:
    """The company's persons, over open calls.

    Every call raises `VibesAuthError` when the login is refused. Reads return None for a record
    that is not there (404, which a wrong company key also gives) and raise `VibesUnavailable` or
    `VibesApiError` for anything else.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def add(self, body: Body) -> Answer:
        """Creates a person, or updates the one that the body's identifiers match.

        When no answer comes the person is read back: the add is sent again only while what it
        asks for is not there, and stays unknown when that cannot be read.
        """
        answer = await self._add_once(body)
        for attempt in range(1, self._calls.http.max_attempts):
            # Turned away, the transport has used up its attempts; nothing is in doubt.
            if answer.outcome != "unknown" or answer.status in TURNED_AWAY:
                return answer
            await self._calls.http.pause(attempt)
            with begun():
                is_readable, found = await self._read_back(body)
                if not is_readable:
                    return answer
                if found is not None and shows(found, body):
                    return Answer(200, "accepted", body=found, is_repeat=True)
                answer = await self._add_once(body)
        return answer

    async def update(self, person_key: str, body: Body) -> Answer:
        """Changes what the body names of an existing person."""
        return await self._calls.write("PUT", self._calls.person(person_key, None), body)

    async def upsert(self, external_person_id: str, body: Body) -> Answer:
        """Changes the person with this external id, creating it when there is none."""
        return await self._calls.write("PUT", self._calls.person(None, external_person_id), body)

    async def get(self, person_key: str) -> Record | None:
        """The person with this key."""
        return one_record(await self._calls.read(self._calls.person(person_key, None)))

    async def get_external(self, external_person_id: str) -> Record | None:
        """The person with this external id."""
        return one_record(await self._calls.read(self._calls.person(None, external_person_id)))

    async def find_by_mdn(self, mdn: str) -> Record | None:
        """The person with this number (E.164).

        Raises:
            VibesApiError: also when several persons have the number.
        """
        asked = f"{self._calls.mobiledb}/persons?mdn={self._calls.mdn(mdn)}"
        return one_record(await self._calls.read(asked))

    async def replace_mdn(
        self,
        mdn: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
        old_mdn: str | None = None,
    ) -> Answer:
        """Gives a person another number: the old one is removed, then the new one is set.

        One operation that may be cut anywhere and run again. Consent does not follow the number.
        See `MdnChange` for what is checked; `old_mdn` is the number that the change was decided
        on, None for whichever the person has.
        """
        person = self._calls.person(person_key, external_person_id)
        change = MdnChange(self._calls, person, mdn, old_mdn)
        return await change.run(self.find_by_mdn)

    async def _add_once(self, body: Body) -> Answer:
        path = f"{self._calls.mobiledb}/persons/"
        return await self._calls.write("POST", path, body, repeatable=False)

    async def _read_back(self, body: Body) -> tuple[bool, Record | None]:
        """Whether the body's person can be looked up, and the person when it is there."""
        external, mdn = body.get("external_person_id"), mdn_of(body)
        if external is None and mdn is None:
            return False, None
        try:
            if external is not None:
                return True, await self.get_external(external)
            return True, await self.find_by_mdn(mdn or "")
        except VibesAuthError:
            raise
        except VibesApiError:
            return False, None


class PersonApi(Persons, SubscriptionApi):
    """Persons and subscriptions of one company over a connection of their own.

    Use it as an async context manager. All other resources are in `vibes_api.VibesApi`. `calls` is
    the limiter to share with other clients, or of a rate that changes, instead of `rate_per_s`.
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
        calls: RateLimiter | None = None,
    ) -> None:
        limits = Limits(rate_per_s, concurrency, timeout_s, max_attempts, backoff_s)
        http = ApiTransport(base_url, user, password, limits, calls=calls)
        super().__init__(Calls(http, company_key))

    async def __aenter__(self) -> Self:
        await self._calls.http.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._calls.http.__aexit__(*raised)
