"""The other resources of the API: their routes, both readings of each contradiction, repetition."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.vibes.callback_api import (
    TARGETS,
    CallbackSpec,
    InvalidCallback,
    Registration,
)
from vibes_pipelines.vibes.event_api import Event, InvalidEvent
from vibes_pipelines.vibes.push_api import Device
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines.vibes.wallet_api import ItemChange, WalletItem
from vibes_pipelines_tests.vibes.answering import COMPANY, ROOT, FakePlatform, ask_vibes, refusal

Talk = Callable[[VibesApi], Awaitable[Any]]
EVENT = Event("e-1", "day_of_delivery", {"mdn": "+13125550142", "order": {"id": 7}})
SPEC = CallbackSpec("subscription_added", "https://crm.example.com/in", {"list_id": "1234"})
REGISTERED = {
    "callback_id": 11887,
    "callback_type": "subscription_added",
    "event_type": "subscription_added",
    "destination": {"url": "https://crm.example.com/in", "method": "POST"},
    "subscription_added": {"list_id": 1234},
    "created_date": "2024-01-15T14:30Z",
}
LISTS = f"{ROOT}/subscription_lists"
WALLET = f"{COMPANY}/campaigns/wallet"
CONFIG = f"{COMPANY}/config"


@pytest.mark.parametrize(
    ("talk", "method", "path"),
    [
        (lambda api: api.subscriptions.subscription_list("12"), "GET", f"{LISTS}/12"),
        (
            lambda api: api.subscriptions.subscriber("12", mdn="+1312"),
            "GET",
            f"{LISTS}/12/subscribers?mdn=%2B1312",
        ),
        (
            lambda api: api.subscriptions.subscriber("12", person_key="p1"),
            "GET",
            f"{LISTS}/12/subscribers?person_key=p1",
        ),
        (
            lambda api: api.subscriptions.campaigns_of("12"),
            "GET",
            f"{LISTS}/12/acquisition_campaigns/",
        ),
        (
            lambda api: api.subscriptions.subscription("12", external_person_id="C 1"),
            "GET",
            f"{ROOT}/persons/external/C%201/subscriptions/12",
        ),
        (lambda api: api.campaigns.campaign("777"), "GET", f"{COMPANY}/campaigns/acquisition/777"),
        (lambda api: api.events.send(EVENT), "POST", f"{COMPANY}/events"),
        (lambda api: api.callbacks.registrations(), "GET", f"{CONFIG}/callbacks/"),
        (lambda api: api.callbacks.registration("9"), "GET", f"{CONFIG}/callbacks/9"),
        (lambda api: api.callbacks.register(SPEC), "POST", f"{CONFIG}/callbacks/"),
        (lambda api: api.callbacks.update("9", SPEC), "PUT", f"{CONFIG}/callbacks/9"),
        (lambda api: api.callbacks.cancel("9"), "DELETE", f"{CONFIG}/callbacks/9"),
        (
            lambda api: api.callbacks.test("person_added"),
            "POST",
            f"{CONFIG}/callback_events/test",
        ),
        (lambda api: api.push.devices(person_key="p1"), "GET", f"{ROOT}/persons/p1/push_devices"),
        (lambda api: api.push.device("app", "d1"), "GET", "/mobile_apps/app/devices/d1"),
        (
            lambda api: api.push.assign("app", "d1", person_key="p1"),
            "POST",
            "/mobile_apps/app/devices/d1/assign",
        ),
        (lambda api: api.wallet.campaigns(), "GET", WALLET),
        (lambda api: api.wallet.campaign("r3zhm8"), "GET", f"{WALLET}/r3zhm8"),
        (
            lambda api: api.wallet.items("r3", provider="passbook"),
            "GET",
            f"{WALLET}/r3/items?provider=passbook",
        ),
        (lambda api: api.wallet.item("r3", "u/1"), "GET", f"{WALLET}/r3/items/u%2F1"),
        (
            lambda api: api.wallet.update_item("r3", "u1", ItemChange({"tier": "gold"})),
            "PUT",
            f"{WALLET}/r3/items/u1",
        ),
    ],
)
def test_routes_are_the_documented_ones(talk: Talk, method: str, path: str) -> None:
    platform = FakePlatform([web.json_response({})])
    ask_vibes(platform, talk)
    assert platform.calls == [(method, path)]


@pytest.mark.parametrize(
    ("talk", "expected"),
    [
        (lambda api: api.subscriptions.subscription("12", person_key="p1"), []),
        (lambda api: api.subscriptions.subscriber("12", person_key="p1"), None),
        (lambda api: api.subscriptions.subscription_list("12"), None),
        (lambda api: api.subscriptions.campaigns_of("12"), []),
        (lambda api: api.campaigns.campaign("777"), None),
        (lambda api: api.callbacks.registration("9"), None),
        (lambda api: api.push.devices(person_key="p1"), None),
        (lambda api: api.push.device("app", "d1"), None),
        (lambda api: api.wallet.items("r3"), None),
        (lambda api: api.wallet.item("r3", "u1"), None),
    ],
)
def test_what_is_not_there_is_none(talk: Talk, expected: Any) -> None:
    assert ask_vibes(FakePlatform([web.Response(status=404)]), talk) == expected


@pytest.mark.parametrize("status", [200, 202])
def test_an_event_is_accepted_by_either_documented_status(status: int) -> None:
    platform = FakePlatform([web.json_response({"event_id": "e-1"}, status=status)])
    answer = ask_vibes(platform, lambda api: api.events.send(EVENT))
    assert (answer.outcome, answer.body) == ("accepted", {"event_id": "e-1"})
    assert platform.requests[0].body == {
        "event_id": "e-1",
        "event_type": "day_of_delivery",
        "event_data": {"mdn": "+13125550142", "order": {"id": 7}},
    }


def test_an_event_is_not_accepted_by_a_page_of_somebody_else() -> None:
    platform = FakePlatform([web.Response(status=202, text="<html>")])
    answer = ask_vibes(platform, lambda api: api.events.send(EVENT))
    assert (answer.outcome, answer.error_class) == ("unknown", "UnreadableAnswer")


def test_an_event_is_sent_again_under_the_same_id() -> None:
    platform = FakePlatform(["reset", web.json_response({}, status=202)])
    assert ask_vibes(platform, lambda api: api.events.send(EVENT)).outcome == "accepted"
    assert [seen.body["event_id"] for seen in platform.requests] == ["e-1", "e-1"]


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_repeated_event_that_is_refused_may_have_been_taken(status: int) -> None:
    refused = FakePlatform([refusal(500), refusal(status, "event_id was used")])
    assert ask_vibes(refused, lambda api: api.events.send(EVENT)).outcome == "unknown"
    at_once = FakePlatform([refusal(status, "no such type")])
    assert ask_vibes(at_once, lambda api: api.events.send(EVENT)).outcome == "rejected"


@pytest.mark.parametrize(
    ("event_id", "event_type", "data", "message"),
    [
        ("", "a", {"mdn": "+1"}, "event_id has 0 characters, allowed are 1 to 40"),
        ("x" * 41, "a", {"mdn": "+1"}, "event_id has 41 characters"),
        ("1", "day of", {"mdn": "+1"}, "use letters, digits, - and _ only"),
        ("1", "a", {"first_name": "Ada"}, "event 1: event_data names no person; give one of ext"),
        ("1", "a", {"mdn": "+1", "share": float("nan")}, "event 1: NaN and Infinity are no JSON"),
        ("1", "a", {"mdn": "+1", "text": "x" * 16384}, "event 1: 16461 bytes, allowed are 16384"),
    ],
)
def test_an_event_the_platform_would_refuse_is_not_made(
    event_id: str, event_type: str, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidEvent, match=message):
        Event(event_id, event_type, data)


def test_a_registration_is_read_in_every_documented_form() -> None:
    new = Registration.read(REGISTERED)
    assert (new.callback_id, new.target, new.created_at) == (
        "11887",
        {"list_id": "1234"},
        "2024-01-15T14:30Z",
    )
    old = Registration.read(
        {
            "callback_id": "Hzh39LP3",
            "event_type": "subscription_removed",
            "destination": {"url": "https://crm.example.com/in"},
            "subscription_added": {"list_id": "1234"},
            "created_at": "2020",
        }
    )
    assert (old.callback_type, old.target, old.method) == (
        "subscription_removed",
        {"list_id": "1234"},
        "POST",
    )
    assert Registration.read({}).callback_id == ""


def test_a_registration_whose_answer_is_lost_is_found_and_not_made_twice() -> None:
    others = [REGISTERED | {"callback_id": 1, "subscription_added": {"list_id": "9"}}, REGISTERED]
    platform = FakePlatform(["reset", web.json_response(others)])
    answer = ask_vibes(platform, lambda api: api.callbacks.register(SPEC))
    assert answer.outcome == "accepted"
    assert answer.body == REGISTERED
    assert [method for method, _ in platform.calls] == ["POST", "GET"]


@pytest.mark.parametrize("look", [web.json_response([]), refusal(500)])
def test_a_registration_that_is_not_found_is_unknown(look: web.Response) -> None:
    platform = FakePlatform(["reset", look])
    answer = ask_vibes(platform, lambda api: api.callbacks.register(SPEC), max_attempts=2)
    assert answer.outcome == "unknown"
    assert [method for method, _ in platform.calls].count("POST") == 1


def test_a_registration_that_a_lost_request_ended_counts_as_ended() -> None:
    ended = FakePlatform([refusal(500), refusal(404)])
    assert ask_vibes(ended, lambda api: api.callbacks.cancel("9")).outcome == "accepted"
    unknown = FakePlatform([refusal(404)])
    assert ask_vibes(unknown, lambda api: api.callbacks.cancel("9")).outcome == "rejected"


def test_a_test_of_a_type_that_is_not_registered_says_so() -> None:
    platform = FakePlatform([refusal(404)])
    answer = ask_vibes(platform, lambda api: api.callbacks.test("person_added", {"person": {}}))
    assert (answer.outcome, answer.error_class) == ("rejected", "NoActiveCallback")
    assert platform.requests[0].body == {"callback_type": "person_added", "person": {}}


@pytest.mark.parametrize("callback_type", ["wallet_item_install", "person_deleted"])
def test_what_the_platform_does_not_test_is_not_asked_for(callback_type: str) -> None:
    platform = FakePlatform([web.json_response({})])
    with pytest.raises(InvalidCallback, match="does not test callbacks of type"):
        ask_vibes(platform, lambda api: api.callbacks.test(callback_type))
    assert platform.requests == []


@pytest.mark.parametrize("callback_type", sorted(TARGETS))
def test_every_type_can_be_registered_with_its_target(callback_type: str) -> None:
    target = dict.fromkeys(TARGETS[callback_type], "7")
    body = CallbackSpec(callback_type, "https://crm.example.com/in", target).body()
    nothing = {} if callback_type == "event_processed" else None
    assert body.get(callback_type) == (target or nothing)
    for name in target:
        with pytest.raises(InvalidCallback, match=f"callback {callback_type}: name its {name}"):
            CallbackSpec(callback_type, "https://crm.example.com/in")


@pytest.mark.parametrize(
    ("callback_type", "url", "message"),
    [
        ("person_deleted", "https://crm.example.com", "no callback type 'person_deleted'; one of"),
        ("person_added", "http://crm.example.com", "must begin with https://"),
        ("person_added", "https://crm.example.com/" + "x" * 1024, "longer than 1024 characters"),
    ],
)
def test_a_registration_the_platform_would_refuse_is_not_made(
    callback_type: str, url: str, message: str
) -> None:
    with pytest.raises(InvalidCallback, match=message):
        CallbackSpec(callback_type, url)


@pytest.mark.parametrize(
    "record",
    [
        {"vibes_device_id": "d1", "OS": "IOS", "push_token": "t", "new": 1},
        {"device": {"vibes_device_id": "d1", "os": "IOS", "push_token": "t"}},
    ],
)
def test_a_device_is_read_in_both_documented_forms(record: dict[str, Any]) -> None:
    device = Device.read(record)
    assert (device.vibes_device_id, device.os, device.push_token) == ("d1", "IOS", "t")
    found = ask_vibes(
        FakePlatform([web.json_response([record])]), lambda api: api.push.devices(person_key="p1")
    )
    assert found == [device]


def test_a_device_is_assigned_to_exactly_one_person() -> None:
    platform = FakePlatform([web.json_response({"person_key": "p1"})])
    ask_vibes(platform, lambda api: api.push.assign("app", "d1", external_person_id="C-1"))
    assert platform.requests[0].body == {"external_person_id": "C-1"}
    with pytest.raises(ValueError, match="exactly one of person_key and external_person_id"):
        ask_vibes(
            platform,
            lambda api: api.push.assign("app", "d1", person_key="p", external_person_id="C"),
        )


def test_a_pass_is_read_with_what_it_has() -> None:
    item = WalletItem.read({"wallet_item_id": "u1", "provider": "google_wallet", "active": True})
    assert (item.wallet_item_id, item.provider, item.active, item.tokens) == (
        "u1",
        "google_wallet",
        True,
        {},
    )


def test_a_change_of_a_pass_is_repeated_only_when_nobody_gets_to_read_it() -> None:
    silent = ItemChange({"tier": "gold"}, locations=[{"latitude": 1.5, "longitude": 2}])
    platform = FakePlatform([refusal(500), web.json_response({})])
    answer = ask_vibes(platform, lambda api: api.wallet.update_item("r3", "u1", silent))
    assert answer.outcome == "accepted"
    assert platform.requests[1].body == {
        "tokens": {"tier": "gold"},
        "locations": [{"latitude": 1.5, "longitude": 2}],
    }


@pytest.mark.parametrize("lost", ["reset", refusal(500)])
@pytest.mark.parametrize(
    "talk",
    [
        lambda api: api.wallet.update_item("r3", "u1", ItemChange(notification="Hi")),
        lambda api: api.wallet.update_item("r3", "u1", ItemChange(google_body="Hi"), "passbook"),
    ],
)
def test_what_reaches_a_phone_is_never_sent_twice(talk: Talk, lost: web.Response | str) -> None:
    platform = FakePlatform([lost])
    assert ask_vibes(platform, talk).outcome == "unknown"
    assert len(platform.requests) == 1


def test_an_erasure_nulls_everything_and_is_read_back() -> None:
    person = {
        "person_key": "p1",
        "external_person_id": "C-1",
        "mobile_phone": {"mdn": "+13125550142", "carrier_code": "104"},
        "custom_fields": {"first_name": "Ada", "tags": [{"option_key": "a"}]},
    }
    nulls: dict[str, Any] = {
        "external_person_id": None,
        "mobile_phone": {"mdn": None, "carrier_code": None},
        "custom_fields": {"first_name": None, "tags": []},
    }
    erased = {"person_key": "p1", **nulls}
    answers = [person, person, erased, erased]
    platform = FakePlatform([web.json_response(answer) for answer in answers])
    answer = ask_vibes(platform, lambda api: api.privacy.erase_by_mdn("+13125550142"))
    assert answer.outcome == "accepted"
    assert platform.requests[2].body == nulls
    stuck = FakePlatform([web.json_response(person)])
    answer = ask_vibes(stuck, lambda api: api.privacy.erase("p1"))
    assert (answer.outcome, answer.error_class) == ("unknown", "NotYetVisible")


def test_an_erasure_of_nobody_is_done() -> None:
    platform = FakePlatform([web.Response(status=404)])
    assert ask_vibes(platform, lambda api: api.privacy.erase("p1")).outcome == "accepted"
    assert ask_vibes(platform, lambda api: api.privacy.erase_by_mdn("+1")).outcome == "accepted"
    broken = FakePlatform([refusal(422, "countrynotsupported")])
    assert ask_vibes(broken, lambda api: api.privacy.erase_by_mdn("1")).outcome == "unknown"
