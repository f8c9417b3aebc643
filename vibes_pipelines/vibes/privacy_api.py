"""Erasure of a person by API: there is no delete, so that everything known is set to null.

Rules: the Vibes documentation, Nullification of Mobile Database Records. A person may stand under
several company keys: the erasure is to be run with a client for each.
"""

from typing import Any

from vibes_pipelines.vibes.api_calls import Answer, Body, Calls, Record
from vibes_pipelines.vibes.api_transport import VibesApiError, VibesAuthError
from vibes_pipelines.vibes.bodies import shows
from vibes_pipelines.vibes.person_api import Persons


class PrivacyApi:
    """Erases persons, over open calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._persons = Persons(calls)

    async def erase(self, person_key: str) -> Answer:
        """Nulls the number, the external id and every custom field, and reads the person back.

        `accepted` when nothing was left, or the person is not there; `unknown` when it could not
        be read back or still shows something (`NotYetVisible`): run it again.
        """
        try:
            return await self._erase(person_key)
        except VibesAuthError:
            raise
        except VibesApiError as unreadable:
            return Answer(None, "unknown", "Unreadable", str(unreadable))

    async def erase_by_mdn(self, mdn: str) -> Answer:
        """Erases the person that has a number.

        An erasure that was cut after its write has no number to be found by: keep the person key.
        """
        try:
            found = await self._persons.find_by_mdn(mdn)
        except VibesAuthError:
            raise
        except VibesApiError as unreadable:
            return Answer(None, "unknown", "Unreadable", str(unreadable))
        if found is None:
            return Answer(404, "accepted")
        return await self.erase(str(found.get("person_key")))

    async def _erase(self, person_key: str) -> Answer:
        before = await self._persons.get(person_key)
        if before is None:
            return Answer(404, "accepted")
        nulls = erasing_body(before)
        answer = await self._persons.update(person_key, nulls)
        if answer.outcome == "rejected":
            return answer
        after = await self._persons.get(person_key)
        if after is None or shows(after, nulls):
            return Answer(answer.status, "accepted")
        message = "the person still shows what was erased; run the erasure again"
        return Answer(answer.status, "unknown", "NotYetVisible", message)


def erasing_body(person: Record) -> Body:
    """The body that clears everything a client may clear of a person as it was read."""
    custom = person.get("custom_fields")
    fields = custom if isinstance(custom, dict) else {}
    body: dict[str, Any] = {
        "external_person_id": None,
        "mobile_phone": {"mdn": None, "carrier_code": None},
    }
    if fields:
        body["custom_fields"] = {
            name: [] if isinstance(value, list) else None for name, value in fields.items()
        }
    return body
