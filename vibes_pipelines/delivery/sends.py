"""How one operation becomes calls of the API, kind by kind. No ledger and no pace belong here.

Every kind but one is idempotent and is simply sent again after an unknown outcome. An invitation
is a text to somebody's phone: one that may have left is read back before it is sent again.
"""

from collections.abc import Mapping

from vibes_pipelines.delivery.intents import campaign_of
from vibes_pipelines.delivery.ports import Inviter, PersonWriter, WriteAnswer
from vibes_pipelines.store.records import Operation
from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.bodies import person_body
from vibes_pipelines.vibes.person_api import Answer, VibesApiError, VibesAuthError


class PushError(ValueError):
    """An operation cannot be sent by API; the message says which and why."""


class Sender:
    """Sends single operations; `campaigns` is needed for invitations only."""

    def __init__(
        self, api: PersonWriter, types: Mapping[str, FieldType], campaigns: Inviter | None = None
    ) -> None:
        self._api = api
        self._types = types
        self._campaigns = campaigns

    async def overtaken(self, operation: Operation) -> str | None:  # noqa: ARG002 - a port's name
        """Nothing is looked up before a send here; invitations have their watch."""
        return None

    def may_retry(self, answer: WriteAnswer) -> bool | None:  # noqa: ARG002 - a port's name
        """The registry of error classes tells."""
        return None

    async def send(self, operation: Operation) -> WriteAnswer:
        """Sends one operation and answers what became of it.

        Raises:
            VibesAuthError: the login or its right is refused; the operation had no effect, unless
                the error says `in_doubt`: a part of it went before.
            PushError: the API cannot carry it; it was not sent.
        """
        if operation.kind == "opt_out":
            return await self._unsubscribe(operation)
        if operation.kind == "invite":
            return await self._invite(operation)
        if operation.kind == "mdn_replace":
            return await self._replace_mdn(operation)
        if operation.touches("external_person_id"):
            return await self._adopt(operation)
        mdn = operation.mdn if operation.kind == "add" else None
        return await self._upsert(operation, mdn)

    async def _unsubscribe(self, operation: Operation) -> WriteAnswer:
        if operation.subscription_list_id is None:
            raise PushError(f"opt-out {operation.operation_id} names no list; rebuild the diff set")
        list_id = operation.subscription_list_id
        if operation.person_key is not None:
            return await self._api.unsubscribe(list_id, person_key=operation.person_key)
        external = operation.external_person_id
        return await self._api.unsubscribe(list_id, external_person_id=external)

    async def _invite(self, operation: Operation) -> WriteAnswer:
        """Invites by key and number: the platform refuses when they are not one person's."""
        if self._campaigns is None:
            raise PushError(
                f"invitation {operation.operation_id} needs the campaigns of the API; send its "
                "lane by itself"
            )
        if operation.mdn is None:
            raise PushError(
                f"invitation {operation.operation_id} names no number; rebuild the diff set"
            )
        campaign, list_id = campaign_of(operation), operation.subscription_list_id
        if operation.attempts > 0:
            try:
                found = await self._campaigns.standing(campaign, list_id, mdn=operation.mdn)
            except VibesAuthError:
                raise
            except VibesApiError as unreadable:
                return Answer(None, "unknown", "Unreadable", str(unreadable))
            if found is not None:
                return found
        by_key = operation.person_key is not None
        return await self._campaigns.invite(
            campaign,
            mdn=operation.mdn,
            person_key=operation.person_key,
            external_person_id=None if by_key else operation.external_person_id,
            list_id=list_id,
        )

    async def _replace_mdn(self, operation: Operation) -> WriteAnswer:
        (change,) = operation.changes
        if change.after is None:
            raise PushError(
                f"operation {operation.operation_id} replaces a number by none; rebuild the diff "
                "set"
            )
        if operation.person_key is not None:
            return await self._api.replace_mdn(
                change.after, person_key=operation.person_key, old_mdn=change.before
            )
        external = operation.external_person_id
        return await self._api.replace_mdn(
            change.after, external_person_id=external, old_mdn=change.before
        )

    async def _adopt(self, operation: Operation) -> WriteAnswer:
        """Gives a person its external id; a person gone meanwhile is added instead."""
        if operation.person_key is None:
            raise PushError(
                f"operation {operation.operation_id} adopts a person but names no person_key; "
                "rebuild the diff set"
            )
        changes = [change.as_json() for change in operation.changes]
        answer = await self._api.update(operation.person_key, person_body(changes, self._types))
        if answer.status == 404:
            return await self._upsert(operation, operation.mdn)
        return answer

    async def _upsert(self, operation: Operation, mdn: str | None) -> WriteAnswer:
        if operation.external_person_id is None:
            raise PushError(
                f"operation {operation.operation_id} names no external_person_id; "
                "rebuild the diff set"
            )
        changes = [c.as_json() for c in operation.changes if c.field != "external_person_id"]
        body = person_body(changes, self._types, mdn=mdn)
        answer = await self._api.upsert(operation.external_person_id, body)
        if answer.status == 404 and answer.outcome == "rejected":
            # The documentation contradicts itself on updating an unknown external id.
            identified = {"external_person_id": operation.external_person_id, **body}
            return await self._api.add(identified)
        return answer
