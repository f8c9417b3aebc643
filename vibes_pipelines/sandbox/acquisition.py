"""Acquisition campaigns: how people come on a list by asking, and by answering when asked back.

A double opt-in campaign asks by text; the answer Y subscribes, N or a stop word bars the number
from further invitations by API until its owner texts the keyword (Vibes documentation, Add a
Participant; Acquisition Callbacks).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from vibes_pipelines.sandbox.activity import Activity, Message, number_after
from vibes_pipelines.sandbox.api_bodies import person_url, show_minute
from vibes_pipelines.sandbox.catalogue import PARTICIPATION, AcquisitionCampaign
from vibes_pipelines.sandbox.platform import OMITTED, Person, PersonPatch, Platform
from vibes_pipelines.sandbox.platform_mdn import ApiVersion, render_mdn
from vibes_pipelines.sandbox.platform_records import Notice
from vibes_pipelines.sandbox.platform_refusals import (
    AlreadySubscribedError,
    ConfirmationBlockError,
    ExternalPersonIdTakenError,
    NotFoundError,
    UnprocessableError,
)
from vibes_pipelines.sandbox.shelf import Shelf

Status = Literal["PENDING", "SUBSCRIBED", "CONFIRMED", "REJECTED"]

YES_WORDS = frozenset({"Y", "YES"})
NO_WORDS = frozenset({"N", "NO", "STOP", "STOPALL", "END", "QUIT", "CANCEL", "UNSUBSCRIBE"})


@dataclass(frozen=True, slots=True)
class Participation:
    """A person's latest participation in a campaign."""

    campaign_id: str
    person_key: str
    mdn: str
    at: datetime
    expires_at: datetime
    status: Status


class Acquisition:
    """Participations and barred numbers of one company's campaigns; used under the platform's lock.

    Args:
        platform: The mobile database in which participants and subscriptions arise.
        campaigns: The campaigns set up.
        activity: Where texts sent are recorded.
    """

    def __init__(
        self, platform: Platform, campaigns: Iterable[AcquisitionCampaign], activity: Activity
    ) -> None:
        self.campaigns = {campaign.id: campaign for campaign in campaigns}
        self.participations: Shelf[str, Participation] = Shelf("participations")
        self.blocks: Shelf[str, datetime] = Shelf("confirmation_blocks")
        self._platform = platform
        self._activity = activity

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return self.participations, self.blocks

    def campaign(self, campaign_id: str) -> AcquisitionCampaign:
        """A campaign; raises NotFoundError."""
        if campaign_id not in self.campaigns:
            raise NotFoundError("the acquisition campaign cannot be found")
        return self.campaigns[campaign_id]

    def pending(self, campaign_id: str, person: Person) -> Participation | None:
        """The participation that waits for an answer, unless it has expired."""
        found = self.participations.get(_key(campaign_id, person.person_key))
        is_pending = found is not None and found.status == "PENDING"
        return found if found and is_pending and self._now() < found.expires_at else None

    def add(
        self,
        campaign_id: str,
        patch: PersonPatch,
        *,
        person_key: str | None = None,
        person_id: str | None = None,
    ) -> tuple[Participation, bool]:
        """Invite a person, creating or updating the record; the flag says whether it is new.

        Raises NotFoundError, AlreadySubscribedError, ConfirmationBlockError, UnprocessableError,
        ExternalPersonIdTakenError and NoCarrierError; then nothing has changed.
        """
        campaign = self.campaign(campaign_id)
        person = self._match(patch, person_key, person_id)
        mdn = patch.mdn if isinstance(patch.mdn, str) else person.mdn if person else None
        if mdn is None:
            raise UnprocessableError("the participant has no mobile phone")
        if campaign.status != "active":
            raise UnprocessableError(f"the campaign is {campaign.status}")
        if person is not None and self._is_subscribed(person, campaign.list_id):
            raise AlreadySubscribedError
        waiting = None if person is None else self.pending(campaign_id, person)
        if person is not None and waiting is not None:
            self._write(person, patch)
            self._platform.audit.repeat("api_participant", person.person_key)
            return waiting, False
        if _key(campaign_id, mdn) in self.blocks:
            raise ConfirmationBlockError
        self._platform.carrier_lookup(mdn)
        return self._begin(campaign, self._write(person, patch), mdn), True

    def reply(self, campaign_id: str, person: Person, word: str) -> Status | None:
        """The person answers a question by text; `None` when nothing was asked or understood."""
        campaign, waiting = self.campaign(campaign_id), self.pending(campaign_id, person)
        answer = word.strip().upper()
        if waiting is None or answer not in YES_WORDS | NO_WORDS:
            return None
        status: Status = "CONFIRMED" if answer in YES_WORDS else "REJECTED"
        answered = replace(waiting, status=status)
        self.participations[_key(campaign_id, person.person_key)] = answered
        self._tell("changed", campaign, answered)
        if status == "REJECTED":
            self.blocks[_key(campaign_id, waiting.mdn)] = self._now()
        elif not self._is_subscribed(person, campaign.list_id):
            self._subscribe(campaign, person)
        return status

    def stop(self, list_id: str, person: Person) -> bool:
        """A stop word also answers what the list's campaigns have asked; False when nothing was."""
        replies = [
            self.reply(campaign.id, person, "STOP")
            for campaign in self.campaigns.values()
            if campaign.list_id == list_id
        ]
        return any(replies)

    def lift(self, list_id: str, mdn: str) -> None:
        """The keyword texted by the number lifts what bars it from the list's campaigns."""
        for campaign in self.campaigns.values():
            if campaign.list_id == list_id and _key(campaign.id, mdn) in self.blocks:
                del self.blocks[_key(campaign.id, mdn)]

    def _match(
        self, patch: PersonPatch, person_key: str | None, person_id: str | None
    ) -> Person | None:
        """The one person whom all identifiers name; `None` when the record is to be created."""
        platform = self._platform
        named = platform.find(person_key=person_key, person_id=person_id)
        if named is None and (person_key is not None or person_id is not None):
            raise UnprocessableError("the person cannot be found")
        external = patch.external_person_id if isinstance(patch.external_person_id, str) else None
        mdn = patch.mdn if isinstance(patch.mdn, str) else None
        by_external, by_mdn = platform.find(external_person_id=external), platform.find(mdn=mdn)
        person = named or by_external or by_mdn
        if person is None:
            return None
        others = {found.person_key for found in (by_external, by_mdn) if found is not None}
        if others - {person.person_key}:
            raise ExternalPersonIdTakenError
        if external is not None and person.external_person_id not in {None, external}:
            raise ExternalPersonIdTakenError
        if mdn is not None and person.mdn not in {None, mdn}:
            raise UnprocessableError("the person has another mdn")
        return person

    def _write(self, person: Person | None, patch: PersonPatch) -> Person:
        """Apply what the request says about the person beyond naming them."""
        if person is None:
            return self._platform.add(patch).person
        says_more = (
            bool(patch.custom)
            or patch.external_person_id not in {OMITTED, person.external_person_id}
            or patch.mdn not in {OMITTED, person.mdn}
        )
        if not says_more:
            return person
        return self._platform.update(person.person_key, patch).person

    def _begin(self, campaign: AcquisitionCampaign, person: Person, mdn: str) -> Participation:
        status: Status = "PENDING" if campaign.opt_in == "double" else "SUBSCRIBED"
        now = self._now()
        begun = Participation(campaign.id, person.person_key, mdn, now, now + PARTICIPATION, status)
        self.participations[_key(campaign.id, person.person_key)] = begun
        self._platform.audit.effect("api_participant", person.person_key)
        self._tell("added", campaign, begun)
        if status == "PENDING":
            self._text(campaign, person, mdn, "Reply Y to join")
        else:
            self._subscribe(campaign, person)
        return begun

    def _subscribe(self, campaign: AcquisitionCampaign, person: Person) -> None:
        now = self._now()
        self._platform.subscribe(person.person_key, campaign.list_id, now, activity_id=campaign.id)
        self._text(campaign, person, person.mdn or "", "Welcome")

    def _text(self, campaign: AcquisitionCampaign, person: Person, mdn: str, text: str) -> None:
        messages = self._activity.messages
        messages[number_after(messages)] = Message(
            self._now(),
            person.person_key,
            person.external_person_id,
            mdn,
            person.carrier_code,
            text,
            "ACQUISITION",
            campaign.id,
        )

    def _tell(
        self, what: Literal["added", "changed"], campaign: AcquisitionCampaign, one: Participation
    ) -> None:
        """Report by callback, to those who ask for the campaign and for the whole company.

        How the company-wide callbacks show a participant is an assumption: like the others.
        """
        now = self._now()

        def show(version: ApiVersion) -> dict[str, Any]:
            return {"participant": self._show_participant(campaign, one, version)}

        kinds = ((f"ack_participant_{what}", {"campaign_id": campaign.id}),)
        for kind, config in (*kinds, (f"company_participant_{what}", {})):
            self._platform.on_notice(Notice(kind, now, config, show))

    def _show_participant(
        self, campaign: AcquisitionCampaign, one: Participation, version: ApiVersion
    ) -> dict[str, Any]:
        person = self._platform.persons[one.person_key]
        return {
            "person": {
                "id": person.person_id,
                "external_id": person.external_person_id,
                "mobile_phone": {"mdn": render_mdn(one.mdn, version)},
                "url": person_url(self._platform, person.person_id),
            },
            "acquisition_campaign": {
                "id": campaign.id,
                "description": campaign.description,
                "url": campaign_url(self._platform, campaign.id),
                "keyword": campaign.keywords[0] if campaign.keywords else "",
            },
            "participation_date": show_minute(one.at),
            "expire_date": show_minute(one.expires_at),
            "status": one.status,
        }

    def _is_subscribed(self, person: Person, list_id: str) -> bool:
        stays = self._platform.subscriptions_of(person.person_key)
        return any(stay.list_id == list_id for stay in stays)

    def _now(self) -> datetime:
        return self._platform.clock()


def campaign_url(platform: Platform, campaign_id: str) -> str:
    """The address of an acquisition campaign."""
    return f"/companies/{platform.company_key}/campaigns/acquisition/{campaign_id}"


def _key(campaign_id: str, second: str) -> str:
    return f"{campaign_id}/{second}"
