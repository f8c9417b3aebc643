"""Acquisition campaigns by API: invitations, answers by text, and who may not be invited again."""

from datetime import timedelta
from typing import Any

import pytest

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.acts import ActError, act
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.texts import TextError, text
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    CAL_KEY,
    LANDLINE,
    NEW_MDN,
    Reply,
    StandIn,
    TickingClock,
    build_platform,
)

CAMPAIGN = "/campaigns/acquisition/777"
PARTICIPANTS = f"{CAMPAIGN}/participants"


def invite(api: StandIn, body: dict[str, Any], campaign: str = "777", **headers: Any) -> Reply:
    return api.call("POST", f"/campaigns/acquisition/{campaign}/participants", body, **headers)


def phone(mdn: str) -> dict[str, Any]:
    return {"mobile_phone": {"mdn": mdn}}


def answer(api: StandIn, word: str, mdn: str = BEA_MDN) -> object:
    return act(api.account, "texts/reply", {"campaign_id": "777", "word": word, "mdn": mdn})[
        "status"
    ]


def on_offers(platform: Platform, person_key: str) -> bool:
    return any(stay.list_id == "1234" for stay in platform.subscriptions_of(person_key))


def test_campaigns_are_listed_and_shown(api: StandIn) -> None:
    listed = api.call("GET", "/campaigns/acquisition").body
    assert [entry["acquisition_id"] for entry in listed] == ["777", "778", "779", "787"]
    shown = api.call("GET", CAMPAIGN)
    assert (shown.status, shown.body) == (200, listed[0])
    assert shown.body["acquisition_campaign"] == {"keywords": ["OFFERS"]}
    assert api.call("GET", "/campaigns/acquisition/1").status == 404


def test_only_active_campaigns_feed_a_list(api: StandIn) -> None:
    path = "/mobiledb/subscription_lists/1234/acquisition_campaigns/"
    assert [entry["acquisition_id"] for entry in api.call("GET", path).body] == ["777", "778"]
    assert api.call("GET", path.replace("1234", "9")).status == 404


def test_a_double_opt_in_waits_for_yes_and_then_subscribes(api: StandIn) -> None:
    invited = invite(api, {"person_key": BEA_KEY})
    assert (invited.status, invited.body["status"]) == (201, "PENDING")
    assert invited.body["person"]["person_key"] == BEA_KEY
    assert not on_offers(api.platform, BEA_KEY)

    assert answer(api, "yes") == "CONFIRMED"
    assert on_offers(api.platform, BEA_KEY)
    assert api.platform.subscriptions_of(BEA_KEY)[0].activity_id == "777"
    assert invite(api, phone(BEA_MDN)).status == 409


def test_a_second_invitation_finds_the_first_still_pending(api: StandIn) -> None:
    first = invite(api, phone(BEA_MDN)).body
    again = invite(api, phone(BEA_MDN))
    assert (again.status, again.body) == (200, first)
    assert api.platform.audit.effects("api_participant") == 1
    assert api.platform.audit.repeats("api_participant") == 1


def test_pending_participants_are_looked_up_by_one_identifier(api: StandIn) -> None:
    assert api.call("GET", f"{PARTICIPANTS}?mdn=%2B13125550143").body == []
    invited = invite(api, phone(BEA_MDN)).body
    assert api.call("GET", f"{PARTICIPANTS}?mdn=%2B13125550143").body == [invited]
    assert api.call("GET", f"{PARTICIPANTS}?person_id=12").body == [invited]
    assert api.call("GET", f"{PARTICIPANTS}?external_person_id=CRM-1").body == []
    assert api.call("GET", f"{PARTICIPANTS}?mdn=13125550143").status == 400


def test_a_single_opt_in_subscribes_at_once(api: StandIn) -> None:
    invited = invite(api, phone(BEA_MDN), "778")
    assert (invited.status, invited.body["status"]) == (201, "SUBSCRIBED")
    assert on_offers(api.platform, BEA_KEY)


def test_an_unknown_number_becomes_a_person(api: StandIn) -> None:
    body = {**phone(NEW_MDN), "external_person_id": "CRM-9", "custom_fields": {"tier": "gold"}}
    assert invite(api, body).status == 201
    person = api.platform.find(mdn=NEW_MDN)
    assert person is not None
    assert (person.external_person_id, person.custom["tier"]) == ("CRM-9", "gold")
    assert api.platform.audit.effects("api_add") == 1


def test_a_participant_may_bring_field_changes_which_null_removes(api: StandIn) -> None:
    body = {"person_key": BEA_KEY, "custom_fields": {"first_name": "Bea", "tier": None}}
    assert invite(api, body).status == 201
    assert api.platform.persons[BEA_KEY].custom["first_name"] == "Bea"


def test_no_bars_the_number_until_its_owner_texts_the_keyword(api: StandIn) -> None:
    invite(api, phone(BEA_MDN))
    assert answer(api, "No") == "REJECTED"
    barred = invite(api, {**phone(BEA_MDN), "custom_fields": {"first_name": "Bea"}})
    assert barred.status == 422
    assert "MDNHASCONFIRMATIONBLOCK" in barred.messages
    assert "first_name" not in api.platform.persons[BEA_KEY].custom, "only a 2xx applies changes"
    assert invite(api, phone(BEA_MDN), "787").status == 201, "the bar is one campaign's"

    assert text(api.account, "join", {"mdn": BEA_MDN}, "1234")
    assert text(api.account, "stop", {"mdn": BEA_MDN}, "1234")
    assert invite(api, phone(BEA_MDN)).status == 201


def test_a_stop_word_answers_the_question_too(api: StandIn) -> None:
    invite(api, phone(BEA_MDN))
    assert text(api.account, "stop", {"mdn": BEA_MDN}, "1234")
    assert "MDNHASCONFIRMATIONBLOCK" in invite(api, phone(BEA_MDN)).messages


def test_an_unanswered_question_expires(api: StandIn) -> None:
    invite(api, phone(BEA_MDN))
    clock = api.platform.clock
    assert isinstance(clock, TickingClock)
    clock.now += timedelta(hours=24)
    assert answer(api, "Y") is None
    assert not on_offers(api.platform, BEA_KEY)
    assert invite(api, phone(BEA_MDN)).status == 201


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (phone("3125550143"), 400, "E.164"),
        (phone("abc"), 400, "E.164"),
        ({"mobile_phone": {"mdn": 5}}, 400, "takes a string"),
        (phone(ADA_MDN), 409, "already subscribed"),
        (phone(LANDLINE), 422, "carrier"),
        ({"external_person_id": "CRM-1", **phone(BEA_MDN)}, 422, "EXTERNALPERSONIDMISMATCH"),
        ({"external_person_id": "CRM-9", **phone(ADA_MDN)}, 422, "EXTERNALPERSONIDMISMATCH"),
        ({"external_person_id": "CRM-1", **phone(NEW_MDN)}, 422, "UNPROCESSABLE ENTITY"),
        ({"person_key": CAL_KEY}, 422, "no mobile phone"),
        ({"person_key": "nobody"}, 422, "cannot be found"),
        ({"external_person_id": "CRM-9"}, 422, "no mobile phone"),
        ({"custom_fields": {"tier": "gold"}}, 422, "a participant needs"),
        ({**phone(BEA_MDN), "custom_fields": {"shoe": "9"}}, 422, "shoe"),
        ({**phone(BEA_MDN), "colour": "red"}, 422, "colour"),
    ],
)
def test_refused_participants_leave_no_trace(
    api: StandIn, body: dict[str, Any], status: int, message: str
) -> None:
    before = repr((api.platform.persons, api.platform.subscriptions))
    refused = invite(api, body)
    assert (refused.status, message in refused.messages) == (status, True), refused.raw
    assert repr((api.platform.persons, api.platform.subscriptions)) == before


def test_past_and_unknown_campaigns_take_nobody(api: StandIn) -> None:
    assert invite(api, phone(BEA_MDN), "779").status == 422
    assert invite(api, phone(BEA_MDN), "1").status == 404


def test_version_1_takes_national_numbers(api: StandIn) -> None:
    assert invite(api, phone(BEA_MDN), X_API_Version=None).status == 400
    assert invite(api, phone("3125550143"), X_API_Version="1").status == 201


def test_replies_need_a_person_with_a_phone_and_known_words(api: StandIn) -> None:
    assert answer(api, "maybe") is None
    with pytest.raises(TextError, match="no person with a phone"):
        answer(api, "Y", mdn="+13125550000")
    with pytest.raises(ActError, match="names the person by one of"):
        act(api.account, "texts/reply", {"campaign_id": "777", "word": "Y"})
    with pytest.raises(ActError, match="not so: colour"):
        act(
            api.account,
            "texts/reply",
            {"campaign_id": "777", "word": "Y", "mdn": BEA_MDN, "colour": "red"},
        )


def test_an_account_has_only_campaigns_of_lists_that_exist() -> None:
    platform = build_platform()
    del platform.lists["1235"]
    assert set(Account(platform).acquisition.campaigns) == {"777", "778", "779"}
