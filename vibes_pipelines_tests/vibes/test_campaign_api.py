"""Every documented answer to an invitation has its own typed result, and none is sent twice."""

from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.vibes.campaign_api import Invitation
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines_tests.vibes.answering import COMPANY, FakePlatform, ask_vibes, refusal

CAMPAIGN = f"{COMPANY}/campaigns/acquisition/777"
MDN = "+13125550142"
PENDING = {
    "person": {"person_id": "4711", "person_key": "p1", "url": "/x"},
    "participation_date": "",
    "expire_date": "2017-01-16T14:30Z",
    "status": "PENDING",
    "brand_new_key": [1],
}


def invite(platform: FakePlatform, **who: Any) -> Invitation:
    async def talk(api: VibesApi) -> Invitation:
        return await api.campaigns.invite("777", **(who or {"mdn": MDN}))

    return ask_vibes(platform, talk, max_attempts=2)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (web.json_response(PENDING, status=201), "invited"),
        (web.json_response(PENDING | {"status": "SUBSCRIBED"}, status=201), "subscribed"),
        (web.json_response(PENDING, status=200), "pending"),
        (web.Response(status=200), "pending"),
        (web.Response(status=201), "invited"),
        (refusal(409, "already subscribed"), "already_subscribed"),
        (web.Response(status=409), "already_subscribed"),
    ],
)
def test_answers_after_which_nothing_is_left_to_send(answer: web.Response, state: str) -> None:
    found = invite(FakePlatform([answer]))
    assert (found.outcome, found.state, found.status) == ("accepted", state, answer.status)


def test_who_was_invited_and_until_when_is_told() -> None:
    found = invite(FakePlatform([web.json_response(PENDING, status=201)]))
    assert (found.person_key, found.expires_at) == ("p1", "2017-01-16T14:30Z")


@pytest.mark.parametrize(
    ("answer", "state", "error_class"),
    [
        (refusal(400, "The MDN is malformed"), "refused", "HTTP 400"),
        (refusal(404), "refused", "HTTP 404"),
        (refusal(422, "MDNHASCONFIRMATIONBLOCK"), "blocked", "MDNHASCONFIRMATIONBLOCK"),
        (refusal(422, "EXTERNALPERSONIDMISMATCH"), "refused", "EXTERNALPERSONIDMISMATCH"),
        (refusal(422, "UNPROCESSABLE ENTITY"), "refused", "UNPROCESSABLE ENTITY"),
        (refusal(422, "number has no provisioned carrier"), "refused", "CarrierNotProvisioned"),
        (refusal(422, "unknown custom field: shoe"), "refused", "HTTP 422"),
        (web.Response(status=422), "refused", "HTTP 422"),
    ],
)
def test_refusals_have_their_class(answer: web.Response, state: str, error_class: str) -> None:
    platform = FakePlatform([answer])
    found = invite(platform)
    assert (found.outcome, found.state, found.error_class) == ("rejected", state, error_class)
    assert len(platform.requests) == 1


@pytest.mark.parametrize(
    "lost", ["reset", "hang", refusal(500), web.Response(status=502), web.Response(text="<html>")]
)
def test_an_invitation_whose_answer_is_lost_is_looked_for(lost: web.Response | str) -> None:
    platform = FakePlatform([lost, web.json_response([PENDING])])
    found = invite(platform)
    assert (found.outcome, found.state, found.person_key) == ("accepted", "pending", "p1")
    assert platform.calls == [
        ("POST", f"{CAMPAIGN}/participants"),
        ("GET", f"{CAMPAIGN}/participants?mdn=%2B13125550142"),
    ]


def test_a_lost_invitation_stays_unknown_when_the_login_is_refused_meanwhile() -> None:
    found = invite(FakePlatform(["reset", refusal(401)]))
    assert (found.outcome, found.state) == ("unknown", "unknown")


def test_with_its_list_a_lost_invitation_is_looked_for_among_the_subscribers() -> None:
    subscriber = web.json_response({"person_key": "p1", "mobile_phone": {"mdn": MDN}})
    platform = FakePlatform(["reset", web.json_response([]), subscriber])
    found = invite(platform, mdn=MDN, list_id="12")
    assert (found.outcome, found.state) == ("accepted", "already_subscribed")
    assert found.person_key == "p1"
    assert platform.calls[2] == (
        "GET",
        f"{COMPANY}/mobiledb/subscription_lists/12/subscribers?mdn=%2B13125550142",
    )


def test_who_is_neither_pending_nor_subscribed_stands_nowhere() -> None:
    platform = FakePlatform([web.json_response([]), web.Response(status=404)])

    async def talk(api: VibesApi) -> Invitation | None:
        return await api.campaigns.standing("777", "12", external_person_id="C-1")

    assert ask_vibes(platform, talk) is None
    assert [method for method, _ in platform.calls] == ["GET", "GET"]


@pytest.mark.parametrize("look", [web.json_response([]), refusal(400), refusal(503), "reset"])
def test_one_that_is_not_found_is_unknown_and_never_sent_again(look: web.Response | str) -> None:
    """It may have been answered already: with Yes, which subscribes, or with No, which bars."""
    platform = FakePlatform(["reset", look])
    found = invite(platform)
    assert (found.outcome, found.state) == ("unknown", "unknown")
    assert [method for method, _ in platform.calls].count("POST") == 1


def test_a_lost_invitation_of_a_key_alone_cannot_be_looked_for() -> None:
    platform = FakePlatform(["reset"])
    assert invite(platform, person_key="p1").outcome == "unknown"
    assert len(platform.requests) == 1


def test_an_invitation_turned_away_by_the_rate_limit_is_sent_again() -> None:
    platform = FakePlatform([refusal(429), web.json_response(PENDING, status=201)])
    assert invite(platform).state == "invited"


def test_the_body_names_the_person_and_carries_fields() -> None:
    platform = FakePlatform([web.json_response(PENDING, status=201)])
    fields = {"first_name": "Ada", "tier": None}
    invite(platform, mdn=MDN, external_person_id="C-1", person_key="p1", custom_fields=fields)
    assert platform.requests[0].body == {
        "person_key": "p1",
        "external_person_id": "C-1",
        "mobile_phone": {"mdn": MDN},
        "custom_fields": fields,
    }


def test_an_invitation_of_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="name the participant by mdn, external_person_id or"):
        invite(FakePlatform([web.Response()]), custom_fields={"first_name": "Ada"})


def test_pending_is_asked_by_exactly_one_identifier() -> None:
    platform = FakePlatform([web.json_response([])])
    with pytest.raises(ValueError, match="exactly one of mdn, external_person_id and person_id"):
        ask_vibes(platform, lambda api: api.campaigns.pending("777", mdn=MDN, person_id="4711"))


@pytest.mark.parametrize("answer", [web.json_response([]), web.Response(status=404)])
def test_a_company_without_campaigns_has_none(answer: web.Response) -> None:
    assert ask_vibes(FakePlatform([answer]), lambda api: api.campaigns.campaigns()) == []
