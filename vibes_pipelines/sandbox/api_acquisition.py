"""The calls about acquisition campaigns and their participants."""

from typing import Any

from vibes_pipelines.sandbox.acquisition import Participation, campaign_url
from vibes_pipelines.sandbox.api_bodies import person_url, read_patch, show_minute
from vibes_pipelines.sandbox.api_calls import Answer, Call, Route
from vibes_pipelines.sandbox.catalogue import AcquisitionCampaign
from vibes_pipelines.sandbox.platform_mdn import parse_mdn
from vibes_pipelines.sandbox.platform_refusals import (
    InvalidBodyError,
    MalformedMdnError,
    NotFoundError,
)

_NAMES = ("person_key", "person_id")
"""Identifiers that a participant has beside those of a person body."""


def show_campaign(call: Call, campaign: AcquisitionCampaign) -> dict[str, Any]:
    """A campaign as the published API description types it; its type's code is an assumption."""
    return {
        "acquisition_id": campaign.id,
        "description": campaign.description,
        "campaign_type": {"code": f"{campaign.opt_in}_opt_in"},
        "status": campaign.status,
        "start_date": show_minute(campaign.start),
        "end_date": "" if campaign.end is None else show_minute(campaign.end),
        "created_date": show_minute(campaign.start),
        "updated_date": show_minute(campaign.start),
        "acquisition_campaign": {"keywords": list(campaign.keywords)},
        "url": campaign_url(call.platform, campaign.id),
    }


def _show_participation(call: Call, one: Participation) -> dict[str, Any]:
    person = call.platform.persons[one.person_key]
    shown = {
        "person_id": person.person_id,
        "person_key": person.person_key,
        "url": person_url(call.platform, person.person_key),
    }
    if person.external_person_id is not None:
        shown["external_person_id"] = person.external_person_id
    return {
        "person": shown,
        "participation_date": show_minute(one.at),
        "expire_date": show_minute(one.expires_at),
        "status": one.status,
    }


def _campaigns(call: Call) -> Answer:
    """All campaigns; none at all is 404 (published API description)."""
    shown = [show_campaign(call, entry) for entry in call.account.acquisition.campaigns.values()]
    if not shown:
        raise NotFoundError("no acquisition campaigns can be found")
    return Answer(200, shown)


def _campaign(call: Call) -> Answer:
    return Answer(200, show_campaign(call, call.account.acquisition.campaign(call.path[0])))


def _campaigns_of_list(call: Call) -> Answer:
    """The active campaigns that feed a list."""
    if call.path[0] not in call.platform.lists:
        raise NotFoundError("the subscription list cannot be found")
    campaigns = call.account.acquisition.campaigns.values()
    active = [c for c in campaigns if c.list_id == call.path[0] and c.status == "active"]
    return Answer(200, [show_campaign(call, campaign) for campaign in active])


def _pending(call: Call) -> Answer:
    """Who of the campaign is still to answer: one person, empty when nothing is pending."""
    acquisition = call.account.acquisition
    campaign = acquisition.campaign(call.path[0])
    person = call.platform.find(
        person_id=call.query.get("person_id"),
        external_person_id=call.query.get("external_person_id"),
        mdn=call.mdn(),
    )
    waiting = None if person is None else acquisition.pending(campaign.id, person)
    return Answer(200, [] if waiting is None else [_show_participation(call, waiting)])


def _add(call: Call) -> Answer:
    """Invite a participant; a malformed number is 400 here, not 422 (published description)."""
    body = call.body()
    _check_mdn(call, body)
    named = {name: body.pop(name) for name in _NAMES if name in body}
    for name, value in named.items():
        if not isinstance(value, str) or not value:
            raise InvalidBodyError(f"{name} takes a string")
    patch = read_patch(body, call.platform.field_by_name, call.version)
    if not named and not any(
        isinstance(identifier, str) for identifier in (patch.external_person_id, patch.mdn)
    ):
        raise InvalidBodyError(
            "a participant needs person_key, external_person_id, person_id or mobile_phone.mdn"
        )
    one, is_new = call.account.acquisition.add(call.path[0], patch, **named)
    return Answer(201 if is_new else 200, _show_participation(call, one))


def _check_mdn(call: Call, body: dict[str, Any]) -> None:
    phone = body.get("mobile_phone")
    mdn = phone.get("mdn") if isinstance(phone, dict) else None
    if mdn is None:
        return
    if not isinstance(mdn, str):
        raise MalformedMdnError("mobile_phone.mdn takes a string")
    parse_mdn(mdn, call.version)


_CAMPAIGNS = "/campaigns/acquisition"

ACQUISITION_ROUTES: tuple[Route, ...] = (
    Route(_CAMPAIGNS, {"GET": _campaigns}),
    Route(f"{_CAMPAIGNS}/*", {"GET": _campaign}),
    Route(f"{_CAMPAIGNS}/*/participants", {"GET": _pending, "POST": _add}),
    Route(
        "/mobiledb/subscription_lists/*/acquisition_campaigns",
        {"GET": _campaigns_of_list},
    ),
)
"""The calls of the Acquisition API, from the operations that Vibes publishes."""
