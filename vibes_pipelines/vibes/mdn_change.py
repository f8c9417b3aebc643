"""The change of a person's number: two writes, made one operation that can be resumed anywhere.

Rules: the Vibes documentation, Person API: a number cannot be changed to another, it can only be
removed (null). That it may then be set is an assumption; the documentation only refuses a change.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vibes_pipelines.vibes.api_calls import Answer, Calls, Record, begun, one_record
from vibes_pipelines.vibes.api_transport import VibesApiError, VibesAuthError, VibesUnavailable
from vibes_pipelines.vibes.bodies import mdn_of

FindByMdn = Callable[[str], Awaitable[Record | None]]

_SAME_PERSON = ("person_key", "person_id")


@dataclass(frozen=True)
class MdnChange:
    """One person's change to `mdn`. `person` is the person's path.

    Every step begins with what the platform shows, so that a second run does only what is left:
    nothing, when the person has the number already. Nothing is removed while another person has
    the new number, or when the person has neither `old_mdn` nor none (`ChangedMeanwhile`).
    """

    calls: Calls
    person: str
    mdn: str
    old_mdn: str | None

    async def run(self, find_by_mdn: FindByMdn) -> Answer:
        """Does what is left of the change. `accepted` only when the new number was read back.

        A refusal of the second write leaves the person without a number; the message says so.

        Raises:
            VibesAuthError: the login is refused; `in_doubt` once the old number may be removed.
        """
        try:
            return await self._run(find_by_mdn)
        except VibesUnavailable as unavailable:
            return Answer(unavailable.status, "unknown", unavailable.error_class, str(unavailable))
        except VibesAuthError:
            raise
        except VibesApiError as unreadable:
            return Answer(None, "unknown", "Unreadable", str(unreadable))

    async def _run(self, find_by_mdn: FindByMdn) -> Answer:
        before = await self._read()
        if before is None:
            return Answer(404, "rejected", "HTTP 404", "there is no such person")
        if mdn_of(before) == self.mdn:
            return Answer(200, "accepted", body=before)
        refusal = await self._refusal(before, find_by_mdn)
        if refusal is not None:
            return refusal
        if mdn_of(before) is not None:
            removed = await self._put_and_expect(None)
            if removed.outcome != "accepted":
                return removed
            with begun():
                return _without_number(await self._put_and_expect(self.mdn))
        return _without_number(await self._put_and_expect(self.mdn))

    async def _refusal(self, before: Record, find_by_mdn: FindByMdn) -> Answer | None:
        if self.old_mdn is not None and mdn_of(before) not in {None, self.old_mdn}:
            message = "the person has another number than the change was decided on"
            return Answer(None, "rejected", "ChangedMeanwhile", message)
        owner = await find_by_mdn(self.mdn)
        if owner is None or _is_same(owner, before):
            return None
        message = "another person has the new number; the old one was left in place"
        return Answer(409, "rejected", "PersonErrors::MobilePhoneAlreadyAssigned", message)

    async def _put_and_expect(self, mdn: str | None) -> Answer:
        """Writes the number (None removes it) and reads it back."""
        answer = await self.calls.write("PUT", self.person, {"mobile_phone": {"mdn": mdn}})
        if answer.outcome == "rejected":
            return answer
        with begun():
            after = await self._read()
        if after is None or mdn_of(after) != mdn:
            message = "the write was answered but cannot be seen yet; run the change again"
            return Answer(answer.status, "unknown", "NotYetVisible", message)
        return Answer(answer.status, "accepted", body=after)

    async def _read(self) -> Record | None:
        return one_record(await self.calls.read(self.person))


def _is_same(one: Record, other: Record) -> bool:
    return any(one.get(key) is not None and one.get(key) == other.get(key) for key in _SAME_PERSON)


def _without_number(answer: Answer) -> Answer:
    if answer.outcome != "rejected":
        return answer
    message = f"{answer.message or answer.error_class}; the person has no number now"
    return Answer(answer.status, "rejected", answer.error_class, message)
