"""Push devices, wallet items, events, broadcasts by API, and the acts that let them arise."""

from typing import Any

import pytest

from vibes_pipelines.sandbox.acts import ActError, act
from vibes_pipelines.sandbox.api_limits import RateLimit
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    ApiClient,
    Reply,
    StandIn,
    served_platform,
)

ITEMS = "/campaigns/wallet/r3zhm8/items"


def app_call(api: StandIn, method: str, path: str, body: object = None, app: str = "APP1") -> Reply:
    client = ApiClient(api.client.port, app, prefix="/mobile_apps")
    return client.call(method, path, body)


def open_app(api: StandIn) -> tuple[str, str]:
    done = act(api.account, "devices/open-app", {"app_id": "APP1", "os": "IOS"})
    return str(done["vibes_device_id"]), str(done["person_key"])


def install(api: StandIn, uuid: str = "card-1", provider: str = "passbook") -> None:
    wish = {"token": "r3zhm8", "uuid": uuid, "provider": provider, "tokens": {"tier": "gold"}}
    act(api.account, "wallet/install", wish)


def event(api: StandIn, body: object, **headers: Any) -> Reply:
    return api.call("POST", "/events", body, **headers)


def test_a_first_app_open_makes_a_device_and_a_person_without_identifiers(api: StandIn) -> None:
    device_id, person_key = open_app(api)
    person = api.platform.persons[person_key]
    assert (person.external_person_id, person.mdn) == (None, None)
    shown = app_call(api, "GET", f"/devices/{device_id}")
    assert shown.status == 200
    assert (shown.body["vibes_device_id"], shown.body["OS"]) == (device_id, "IOS")
    by_person = api.call("GET", f"/mobiledb/persons/{person_key}/push_devices")
    assert by_person.body == shown.body


def test_devices_belong_to_one_app_and_to_persons_who_have_some(api: StandIn) -> None:
    device_id, _ = open_app(api)
    assert app_call(api, "GET", f"/devices/{device_id}", app="APP2").status == 404
    assert app_call(api, "GET", "/devices/none").status == 404
    assert api.call("GET", f"/mobiledb/persons/{ADA_KEY}/push_devices").status == 404
    assert api.call("GET", "/mobiledb/persons/external/none/push_devices").status == 404
    with pytest.raises(ActError, match="the app cannot be found"):
        act(api.account, "devices/open-app", {"app_id": "APP2", "os": "IOS"})


def test_a_device_moves_to_a_known_person(api: StandIn) -> None:
    device_id, _ = open_app(api)
    path = f"/devices/{device_id}/assign"
    assigned = app_call(api, "POST", path, {"external_person_id": "CRM-1"})
    assert (assigned.status, assigned.body["person_key"]) == (200, ADA_KEY)
    assert api.call("GET", "/mobiledb/persons/external/CRM-1/push_devices").status == 200
    assert app_call(api, "POST", path, {"person_key": ADA_KEY}).status == 200
    assert api.platform.audit.effects("api_assign") == 1
    assert api.platform.audit.repeats("api_assign") == 1


def test_the_person_key_wins_over_the_external_id(api: StandIn) -> None:
    device_id, _ = open_app(api)
    body = {"person_key": BEA_KEY, "external_person_id": "CRM-1"}
    assigned = app_call(api, "POST", f"/devices/{device_id}/assign", body)
    assert assigned.body["person_key"] == BEA_KEY


def test_an_unknown_external_id_is_given_to_the_devices_person(api: StandIn) -> None:
    device_id, person_key = open_app(api)
    path = f"/devices/{device_id}/assign"
    assert app_call(api, "POST", path, {"external_person_id": "CRM-9"}).body["person_key"] == (
        person_key
    )
    assert app_call(api, "POST", path, {"external_person_id": "CRM-10"}).status == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"person_key": "nobody"}, 404),
        ({}, 422),
        ({"person_key": 5}, 422),
        ({"x": "y"}, 422),
        ({"external_person_id": "x" * 129}, 422),
    ],
)
def test_refused_assignments(api: StandIn, body: object, status: int) -> None:
    device_id, _ = open_app(api)
    assert app_call(api, "POST", f"/devices/{device_id}/assign", body).status == status


def test_older_pages_wrap_the_device() -> None:
    with served_platform(push_device_body="wrapped") as api:
        device_id, _ = open_app(api)
        assert app_call(api, "GET", f"/devices/{device_id}").body["device"]["os"] == "IOS"


def test_wallet_items_are_listed_filtered_and_shown(api: StandIn) -> None:
    install(api)
    install(api, "card-2", "google_wallet")
    assert [item["wallet_item_id"] for item in api.call("GET", ITEMS).body] == ["card-1", "card-2"]
    filtered = api.call("GET", f"{ITEMS}?provider=google_wallet&tier=gold").body
    assert [item["wallet_item_id"] for item in filtered] == ["card-2"]
    assert api.call("GET", f"{ITEMS}?tier=silver").body == []
    assert api.call("GET", f"{ITEMS}/card-1").body["tokens"] == {"tier": "gold"}
    assert api.call("GET", f"{ITEMS}/none").status == 404
    assert api.call("GET", "/campaigns/wallet/none/items").status == 404
    assert [entry["wallet_id"] for entry in api.call("GET", "/campaigns/wallet").body] == ["r3zhm8"]
    assert api.call("GET", "/campaigns/wallet/r3zhm8").body["type"] == "loyalty"


def test_a_wallet_item_changes_and_keeps_what_is_not_mentioned(api: StandIn) -> None:
    install(api)
    changed = api.call("PUT", f"{ITEMS}/card-1", {"tokens": {"balance": "7"}})
    assert (changed.status, changed.body["tokens"]) == (200, {"tier": "gold", "balance": "7"})
    api.call("PUT", f"{ITEMS}/card-1", {"tokens": {"balance": "7"}})
    assert api.platform.audit.effects("api_wallet") == api.platform.audit.repeats("api_wallet") == 1
    assert api.call("PUT", f"{ITEMS}/card-1", {"tokens": {"balance": 7}}).status == 422
    assert api.call("PUT", f"{ITEMS}/card-1", {"colour": "red"}).status == 422


def test_google_takes_twenty_changes_a_second_and_apple_any_number(api: StandIn) -> None:
    install(api)
    install(api, "card-2", "google_wallet")
    api.account.wallet._google_limit = RateLimit(20, now_s=lambda: 0.0)

    def statuses(uuid: str) -> list[int]:
        bodies = ({"tokens": {"balance": str(number)}} for number in range(25))
        return [api.call("PUT", f"{ITEMS}/{uuid}", body).status for body in bodies]

    assert statuses("card-1") == [200] * 25
    assert statuses("card-2") == [200] * 20 + [429] * 5


def test_an_event_is_accepted_and_may_send_a_message(api: StandIn) -> None:
    body = {"event_type": "Order_Shipped", "event_data": {"mdn": ADA_MDN}, "event_id": "E1"}
    accepted = event(api, body)
    assert (accepted.status, accepted.body) == (202, {"event_id": "E1"})
    (message,) = api.account.activity.messages.values()
    assert (message.person_key, message.activity_type) == (ADA_KEY, "EventTriggeredMessage")


def test_an_event_id_counts_once(api: StandIn) -> None:
    body = {"event_type": "order_shipped", "event_data": {"mdn": ADA_MDN}, "event_id": "E1"}
    assert [event(api, body).status for _ in range(2)] == [202, 202]
    assert len(api.account.activity.messages) == 1
    assert api.platform.audit.effects("api_event") == api.platform.audit.repeats("api_event") == 1
    with served_platform(event_id_reused="refused") as strict:
        assert [event(strict, body).status for _ in range(2)] == [202, 422]


def test_events_without_an_id_get_one_each(api: StandIn) -> None:
    body = {"event_type": "order_shipped", "event_data": {"person_id": ADA_KEY}}
    first, second = event(api, body).body, event(api, body).body
    assert first != second
    assert len(api.account.activity.messages) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"external_person_id": "nobody"},
        {"person_key": BEA_KEY},
    ],
)
def test_202_promises_no_message(api: StandIn, data: dict[str, str]) -> None:
    """Nobody of that name; somebody who is not on the campaign's list."""
    assert event(api, {"event_type": "order_shipped", "event_data": data}).status == 202
    assert not api.account.activity.messages


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"event_type": "has blanks"}, 422, "event_type"),
        ({"event_type": None}, 422, "event_type"),
        ({"event_data": []}, 422, "event_data"),
        ({"event_data": {"order": "1"}}, 422, "event_data needs one of"),
        ({"event_data": {"mdn": "3125550142"}}, 400, "E.164"),
        ({"event_id": "x" * 41}, 422, "1 to 40"),
        ({"debug_data": "x"}, 422, "debug_data"),
        ({"colour": "red"}, 422, "colour"),
        ({"event_data": {"mdn": ADA_MDN, "long": "x" * 16_384}}, 422, "16384"),
    ],
)
def test_refused_events(api: StandIn, change: dict[str, object], status: int, message: str) -> None:
    body = {"event_type": "order_shipped", "event_data": {"mdn": ADA_MDN}, **change}
    refused = event(api, body)
    assert (refused.status, message in refused.messages) == (status, True), refused.raw
    assert api.platform.audit.effects("api_event") == 0


def test_version_1_events_take_national_numbers(api: StandIn) -> None:
    body = {"event_type": "order_shipped", "event_data": {"mdn": ADA_MDN}}
    assert event(api, body, X_API_Version=None).status == 400


def test_events_have_three_times_the_rate_of_everything_else() -> None:
    with served_platform(rate_per_s=4) as api:
        body = {"event_type": "order_shipped", "event_data": {"mdn": ADA_MDN}}
        assert [event(api, body).status for _ in range(13)] == [202] * 12 + [429]
        lists = "/mobiledb/subscription_lists"
        assert [api.call("GET", lists).status for _ in range(5)] == [200] * 4 + [429]


def test_broadcasts_and_source_codes_are_read_only(api: StandIn) -> None:
    broadcasts = "/mobiledb/broadcasts"
    assert [entry["broadcast_id"] for entry in api.call("GET", broadcasts).body] == ["501", "502"]
    scheduled = api.call("GET", f"{broadcasts}?status=scheduled").body
    assert [entry["broadcast_id"] for entry in scheduled] == ["502"]
    assert api.call("GET", f"{broadcasts}?status=lost").status == 400
    assert api.call("GET", f"{broadcasts}/501").body["targeting"]["source_lists"] == ["1234"]
    assert api.call("GET", f"{broadcasts}/9").status == 404
    assert api.call("POST", f"{broadcasts}/", {"name": "x"}).status == 405
    assert api.call("GET", "/sourcecodes").body[0]["sourcecode"] == "12345"


def test_a_deactivated_number_ends_its_subscriptions_and_takes_no_invitation(api: StandIn) -> None:
    assert act(api.account, "numbers/deactivate", {"mdn": ADA_MDN}) == {"changed": True}
    assert act(api.account, "numbers/deactivate", {"mdn": ADA_MDN}) == {"changed": False}
    path = f"/mobiledb/persons/{ADA_KEY}/subscriptions?active_only=false"
    assert api.call("GET", path).body[-1]["opt_out_reason"] == "disconnect"
    body = {"mobile_phone": {"mdn": ADA_MDN}}
    invited = api.call("POST", "/campaigns/acquisition/777/participants", body)
    assert (invited.status, "carrier" in invited.messages) == (422, True)


def test_a_recycled_number_is_another_persons(api: StandIn) -> None:
    act(api.account, "numbers/deactivate", {"mdn": ADA_MDN})
    wish = {"mdn": ADA_MDN, "carrier_code": "105", "list_id": "1234"}
    owner = act(api.account, "numbers/recycle", wish)["person_key"]
    assert owner not in {ADA_KEY, None}
    found = api.call("GET", "/mobiledb/persons?mdn=%2B13125550142").body
    assert (found["person_key"], found["mobile_phone"]["carrier_code"]) == (owner, "105")
    assert found["external_person_id"] is None
    assert api.call("GET", f"/mobiledb/persons/{ADA_KEY}").body["mobile_phone"] is None


def test_a_recycled_number_may_stay_with_its_person() -> None:
    with served_platform(recycled_number="same_person") as api:
        act(api.account, "numbers/recycle", {"mdn": ADA_MDN, "carrier_code": "105"})
        phone = api.call("GET", f"/mobiledb/persons/{ADA_KEY}").body["mobile_phone"]
        assert phone == {"mdn": ADA_MDN, "carrier_code": "105"}


def test_a_carrier_look_up_may_fail_for_the_moment(api: StandIn) -> None:
    act(api.account, "numbers/fail-lookups", {"times": 1})
    body = {"mobile_phone": {"mdn": "+13125550199"}}
    statuses = [api.call("POST", "/mobiledb/persons/", body).status for _ in range(2)]
    assert statuses == [503, 201]
