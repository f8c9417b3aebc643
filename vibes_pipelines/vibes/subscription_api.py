"""The Subscription and Subscription List APIs: who is on which list, and the end of it.

Rules: the Vibes documentation, Subscription API. There is no call that subscribes: opt-in goes
through an acquisition campaign (`campaign_api`).
"""

from vibes_pipelines.vibes.api_calls import (
    Answer,
    Calls,
    Record,
    all_records,
    one_record,
    query,
    segment,
)
from vibes_pipelines.vibes.api_transport import VibesApiError, VibesAuthError, VibesUnavailable


class SubscriptionApi:
    """Subscriptions of persons, and the company's lists, over open calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

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
        person = self._calls.person(person_key, external_person_id)
        path = f"{person}/subscriptions/{segment(list_id)}"
        answer = await self._calls.write("DELETE", path)
        if answer.status != 404 or answer.outcome != "rejected":
            return answer
        try:
            found = await self._calls.read(person)
        except VibesUnavailable as unavailable:
            return Answer(unavailable.status, "unknown", unavailable.error_class, str(unavailable))
        except VibesAuthError:
            raise
        except VibesApiError:
            return answer
        return answer if found is None else Answer(404, "accepted")

    async def subscriptions(
        self,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
        active_only: bool = True,
    ) -> list[Record] | None:
        """A person's subscriptions, with the ended ones unless `active_only`."""
        ended = query({"active_only": None if active_only else "false"})
        person = self._calls.person(person_key, external_person_id)
        found = await self._calls.read(f"{person}/subscriptions{ended}")
        return None if found is None else all_records(found)

    async def subscription(
        self,
        list_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> list[Record]:
        """The person's subscriptions to one list; none also for a person who is not there."""
        person = self._calls.person(person_key, external_person_id)
        found = await self._calls.read(f"{person}/subscriptions/{segment(list_id)}")
        return [] if found is None else all_records(found)

    async def lists(self) -> list[Record]:
        """The company's subscription lists."""
        return all_records(await self._calls.read(f"{self._lists}/") or [])

    async def subscription_list(self, list_id: str) -> Record | None:
        """One list."""
        return one_record(await self._calls.read(f"{self._lists}/{segment(list_id)}"))

    async def subscriber(
        self,
        list_id: str,
        *,
        mdn: str | None = None,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> Record | None:
        """The person, when it is on the list; the platform has no way to ask for all of them.

        Raises:
            ValueError: not exactly one identifier is given.
        """
        given = [name for name in (mdn, person_key, external_person_id) if name is not None]
        if len(given) != 1:
            msg = "name the subscriber by exactly one of mdn, person_key and external_person_id"
            raise ValueError(msg)
        keys = query({"person_key": person_key, "external_person_id": external_person_id})
        asked = keys or f"?mdn={self._calls.mdn(mdn or '')}"
        path = f"{self._lists}/{segment(list_id)}/subscribers{asked}"
        return one_record(await self._calls.read(path))

    async def campaigns_of(self, list_id: str) -> list[Record]:
        """The acquisition campaigns that feed a list; none also for a list that is not there."""
        path = f"{self._lists}/{segment(list_id)}/acquisition_campaigns/"
        return all_records(await self._calls.read(path) or [])

    @property
    def _lists(self) -> str:
        return f"{self._calls.mobiledb}/subscription_lists"
