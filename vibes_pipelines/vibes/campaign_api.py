"""The Acquisition Campaign and Participant APIs: how a person is invited to a list.

Rules: the Vibes documentation, Participant API. An invitation sends a text to a phone, so that one
whose answer is lost is never sent again: the pending participants are read instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vibes_pipelines.vibes.api_calls import (
    Answer,
    Calls,
    Outcome,
    Record,
    all_records,
    one_record,
    query,
    segment,
    text_of,
)
from vibes_pipelines.vibes.api_transport import VibesApiError
from vibes_pipelines.vibes.subscription_api import SubscriptionApi

InvitationState = Literal[
    "invited", "subscribed", "pending", "already_subscribed", "blocked", "refused", "unknown"
]
"""What an invitation led to.

`invited`: the confirmation text was sent. `subscribed`: at once, by a single opt-in campaign.
`pending`: the person was invited before and has not answered. `already_subscribed`: to the list.
`blocked`: the person answered No to this campaign; only a keyword text lifts that.
"""

_BLOCK = "MDNHASCONFIRMATIONBLOCK"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What became of one invitation; `expires_at` as the platform writes it.

    `accepted` is every state in which nothing is left to send: also `pending` and
    `already_subscribed`. After `unknown` ask `CampaignApi.standing` before anything is sent again.
    """

    status: int | None
    outcome: Outcome
    state: InvitationState
    error_class: str | None = None
    message: str | None = None
    person_key: str | None = None
    expires_at: str | None = None


class CampaignApi:
    """The company's acquisition campaigns, over open calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._root = f"{calls.company}/campaigns/acquisition"

    async def campaigns(self) -> list[Record]:
        """All acquisition campaigns; a company without any answers 404."""
        return all_records(await self._calls.read(self._root) or [])

    async def campaign(self, campaign_id: str) -> Record | None:
        """One campaign."""
        return one_record(await self._calls.read(f"{self._root}/{segment(campaign_id)}"))

    async def pending(
        self,
        campaign_id: str,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
        person_id: str | None = None,
    ) -> list[Record]:
        """The participations of one person that wait for an answer; the platform lists no others.

        Raises:
            ValueError: not exactly one identifier is given. `person_key` is none of them.
            VibesApiError: also for a malformed number.
        """
        given = [name for name in (mdn, external_person_id, person_id) if name is not None]
        if len(given) != 1:
            msg = "ask by exactly one of mdn, external_person_id and person_id"
            raise ValueError(msg)
        keys = query({"external_person_id": external_person_id, "person_id": person_id})
        asked = keys or f"?mdn={self._calls.mdn(mdn or '')}"
        return all_records(await self._calls.read(self._participants(campaign_id) + asked) or [])

    async def invite(
        self,
        campaign_id: str,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
        person_key: str | None = None,
        custom_fields: Mapping[str, Any] | None = None,
        list_id: str | None = None,
    ) -> Invitation:
        """Adds a participant, which sends the confirmation text unless the campaign has none.

        The person is updated with what is given, and created when there is none; nothing of that
        happens when the platform refuses. When the answer is lost the person is looked for among
        the pending participants and, with `list_id` (the campaign's list), among its subscribers.

        Raises:
            ValueError: no identifier is given.
        """
        body = _participant(mdn, external_person_id, person_key, custom_fields or {})
        path = self._participants(campaign_id)
        answer = await self._calls.write("POST", path, body, repeatable=False)
        if answer.outcome != "unknown":
            return _invitation(answer)
        if mdn is None and external_person_id is None:
            return _invitation(answer)
        external = external_person_id if mdn is None else None
        try:
            found = await self.standing(campaign_id, list_id, mdn=mdn, external_person_id=external)
        except VibesApiError:
            # A refused login too: the invitation may have left, so that it stays unknown.
            found = None
        return found or _invitation(answer)

    async def standing(
        self,
        campaign_id: str,
        list_id: str | None,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
    ) -> Invitation | None:
        """Where a person stands with a campaign: pending, already subscribed to its list, or None.

        To be asked before an invitation is sent whose forerunner may have been. None also for a
        person who said No, whom the platform protects from a second text.

        Raises:
            ValueError: not exactly one identifier is given.
            VibesApiError: it cannot be told.
        """
        one: dict[str, str | None] = {"mdn": mdn, "external_person_id": external_person_id}
        pending = await self.pending(campaign_id, **one)
        if pending:
            return _accepted(200, "pending", pending[0])
        if list_id is None:
            return None
        subscriber = await SubscriptionApi(self._calls).subscriber(list_id, **one)
        if subscriber is None:
            return None
        return _accepted(200, "already_subscribed", {"person": subscriber})

    def _participants(self, campaign_id: str) -> str:
        return f"{self._root}/{segment(campaign_id)}/participants"


def campaign_id_of(campaign: Record) -> str:
    """The id of a campaign's record; empty when it has none."""
    return text_of(campaign, "acquisition_id", "id") or ""


def _participant(
    mdn: str | None,
    external_person_id: str | None,
    person_key: str | None,
    custom_fields: Mapping[str, Any],
) -> dict[str, Any]:
    named = {"person_key": person_key, "external_person_id": external_person_id}
    body: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if mdn is not None:
        body["mobile_phone"] = {"mdn": mdn}
    if not body:
        msg = "name the participant by mdn, external_person_id or person_key"
        raise ValueError(msg)
    return body | ({"custom_fields": dict(custom_fields)} if custom_fields else {})


def _invitation(answer: Answer) -> Invitation:
    if answer.outcome == "accepted":
        return _accepted(answer.status, _state(answer), answer.body or {})
    if answer.outcome == "unknown":
        state: InvitationState = "unknown"
    elif answer.status == 409:
        return Invitation(409, "accepted", "already_subscribed", message=answer.message)
    else:
        state = "blocked" if answer.error_class == _BLOCK else "refused"
    return Invitation(answer.status, answer.outcome, state, answer.error_class, answer.message)


def _state(answer: Answer) -> InvitationState:
    """From the status of the participation where there is one, else from the HTTP status."""
    said = str((answer.body or {}).get("status") or "").upper()
    if said == "SUBSCRIBED":
        return "subscribed"
    return "invited" if answer.status == 201 else "pending"


def _accepted(status: int | None, state: InvitationState, record: Mapping[str, Any]) -> Invitation:
    person = record.get("person")
    key = text_of(person, "person_key") if isinstance(person, Mapping) else None
    expires_at = text_of(record, "expire_date")
    return Invitation(status, "accepted", state, person_key=key, expires_at=expires_at)
