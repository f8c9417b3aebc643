"""Version 1 of the API writes ten digits, version 2 E.164; callers of the client see only E.164."""

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.vibes.api_version import (
    NotInVersion1,
    read_answer,
    read_mdn,
    sent_body,
    sent_mdn,
)
from vibes_pipelines.vibes.event_api import Event
from vibes_pipelines_tests.vibes.answering import ROOT, FakePlatform, ask_vibes

MDN = "+12995551234"
BODY = {
    "mobile_phone": {"mdn": MDN, "carrier_code": None},
    "custom_fields": {"mdn": "+1 anything"},
}


@given(st.integers(2_000_000_000, 9_999_999_999))
def test_a_number_survives_version_1(national: int) -> None:
    mdn = f"+1{national}"
    assert read_mdn(sent_mdn(mdn, 1), 1) == mdn
    assert read_mdn(sent_mdn(mdn, 2), 2) == mdn


@pytest.mark.parametrize("mdn", ["+442079460000", "2995551234", "+1299555123"])
def test_version_1_has_no_form_for_other_numbers(mdn: str) -> None:
    with pytest.raises(NotInVersion1, match="version 1 of the API cannot name this number"):
        sent_mdn(mdn, 1)


def test_custom_fields_are_left_alone() -> None:
    assert sent_body(BODY, 1) == {
        "mobile_phone": {"mdn": "2995551234", "carrier_code": None},
        "custom_fields": {"mdn": "+1 anything"},
    }
    assert sent_body(BODY, 2) is BODY


def test_only_the_number_of_the_person_is_rewritten() -> None:
    """The rest of an event is the account's own, and a removed number stays removed."""
    event = {"event_data": {"mdn": MDN, "order": {"mdn": "+442079460000"}}}
    assert sent_body(event, 1) == {
        "event_data": {"mdn": "2995551234", "order": {"mdn": "+442079460000"}}
    }
    removal: dict[str, object] = {"mobile_phone": {"mdn": None}, "external_person_id": "C-1"}
    assert sent_body(removal, 1) == removal


def test_numbers_are_read_wherever_they_stand_in_an_answer() -> None:
    answer = [{"person": {"mobile_phone": {"mdn": "2995551234"}}, "count": 1}]
    assert read_answer(answer, 1) == [{"person": {"mobile_phone": {"mdn": MDN}}, "count": 1}]
    assert read_answer(None, 1) is None


def test_a_client_of_version_1_says_so_and_writes_national_numbers() -> None:
    answer = {"mobile_phone": {"mdn": "2995551234"}, "custom_fields": {"mdn": "2995551234"}}
    platform = FakePlatform([web.json_response(answer)])
    found = ask_vibes(platform, lambda api: api.persons.find_by_mdn(MDN), version=1)
    assert platform.calls == [("GET", f"{ROOT}/persons?mdn=2995551234")]
    assert platform.requests[0].headers["X-API-Version"] == "1"
    assert found == {"mobile_phone": {"mdn": MDN}, "custom_fields": {"mdn": "2995551234"}}


def test_writes_events_and_invitations_of_version_1_are_national_too() -> None:
    platform = FakePlatform([web.json_response({"mobile_phone": {"mdn": "2995551234"}})])
    answer = ask_vibes(platform, lambda api: api.persons.upsert("C-1", BODY), version=1)
    assert answer.body == {"mobile_phone": {"mdn": MDN}}
    ask_vibes(platform, lambda api: api.campaigns.invite("7", mdn=MDN), version=1)
    ask_vibes(platform, lambda api: api.events.send(Event("1", "a", {"mdn": MDN})), version=1)
    bodies = [seen.body for seen in platform.requests]
    assert bodies[0]["mobile_phone"]["mdn"] == "2995551234"
    assert bodies[1]["mobile_phone"]["mdn"] == "2995551234"
    assert bodies[2]["event_data"]["mdn"] == "2995551234"
