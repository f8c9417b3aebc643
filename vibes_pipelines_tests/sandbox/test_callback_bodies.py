"""What callbacks say: the body of each event type, in every documented reading."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from vibes_pipelines.sandbox.callbacks_records import Destination, Registration
from vibes_pipelines.sandbox.clock import STEP
from vibes_pipelines_tests.sandbox.callback_parts import CONFIG, calling_platform, registration
from vibes_pipelines_tests.sandbox.receiver import Receiver, receiving
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    CAL_KEY,
    NEW_MDN,
    OFFERS,
)

ON_OFFERS = {"list_id": "1234"}
ADA = f"/mobiledb/persons/{ADA_KEY}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def without_id(body: dict[str, Any]) -> dict[str, Any]:
    assert len(body["event_id"]) == 36
    return {name: value for name, value in body.items() if name != "event_id"}


def test_subscription_removed(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.register("subscription_removed", receiver, ON_OFFERS)
        api.call("DELETE", f"{ADA}/subscriptions/1234")
        (body,) = receiver.wait_for(1)
    assert without_id(body) == {
        "callback_type": "subscription_removed",
        "event_type": "subscription_removed",
        "event_date": "2026-01-01T06:00:02Z",
        "subscription": {
            "person": {
                "id": "11",
                "external_id": "CRM-1",
                "external_person_id": "CRM-1",
                "person_key": ADA_KEY,
                "url": "/companies/A1b2C3/mobiledb/persons/11",
                "mobile_phone": {"mdn": ADA_MDN},
            },
            "subscription_list": {
                "id": "1234",
                "url": "/companies/A1b2C3/mobiledb/subscription_lists/1234",
            },
            "opt_in_date": "2025-03-10T12:30:00Z",
            "opt_out_date": "2026-01-01T06:00:02Z",
            "opt_out_reason": "api_opt_out",
        },
    }


def test_subscription_added(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.register("subscription_added", receiver, ON_OFFERS)
        api.platform.subscribe(BEA_KEY, OFFERS.id, api.platform.clock())
        (body,) = receiver.wait_for(1)
    subscription = body["subscription"]
    assert body["callback_type"] == "subscription_added"
    assert body["event_date"] == subscription["opt_in_date"] == "2026-01-01T06:00:02Z"
    assert set(subscription) == {"person", "subscription_list", "opt_in_date"}
    assert subscription["person"]["external_id"] is None
    assert subscription["person"]["external_person_id"] is None


def test_person_added_and_person_updated(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.register("person_added", receiver)
        api.register("person_updated", receiver)
        new = {"external_person_id": "CRM-9", "mobile_phone": {"mdn": NEW_MDN}}
        api.call("POST", "/mobiledb/persons/", new | {"custom_fields": {"tier": "gold"}})
        api.call("POST", "/mobiledb/persons/", new | {"custom_fields": {"tier": None}})
        added, updated = receiver.wait_for(2)
    gold = {"id": "1", "name": "Gold", "option_key": "gold"}
    assert (added["callback_type"], updated["callback_type"]) == ("person_added", "person_updated")
    assert without_id(added) == {
        "callback_type": "person_added",
        "event_type": "person_added",
        "event_date": "2026-01-01T06:00:03Z",
        "person": {
            "person_id": "14",
            "external_person_id": "CRM-9",
            "mobile_phone": {"mdn": NEW_MDN, "carrier_code": "104"},
            "timezone": None,
            "timezone_source": None,
            "custom_fields": {
                "first_name": None,
                "nickname": None,
                "birthdate": None,
                "score": None,
                "tier": gold,
                "interests": [],
                "zip_code": None,
            },
            "created_at": "2026-01-01T06:00Z",
            "updated_at": "2026-01-01T06:00Z",
            "url": "/companies/A1b2C3/mobiledb/persons/14",
        },
    }
    assert updated["person"]["custom_fields"]["tier"] is None


def test_the_body_is_the_state_at_the_time_of_the_event(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.register("person_updated", receiver)
        api.set_manner(hold=True)
        for name in ("Augusta", "Byron"):
            api.call("PUT", ADA, {"custom_fields": {"first_name": name}})
        assert receiver.bodies == []
        api.set_manner()
        bodies = receiver.wait_for(2)
    names = [body["person"]["custom_fields"]["first_name"] for body in bodies]
    assert names == ["Augusta", "Byron"]


def test_subscription_callbacks_are_about_one_list(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.register("subscription_added", receiver, {"list_id": "1235"})
        now = api.platform.clock()
        api.platform.subscribe(BEA_KEY, "1234", now)
        api.platform.subscribe(BEA_KEY, "1235", now)
        assert api.settle() == {"delivered": 1, "queued": 1}
    assert receiver.bodies[0]["subscription"]["subscription_list"]["id"] == "1235"


def test_several_urls_get_the_same_event(receiver: Receiver) -> None:
    with calling_platform() as api, receiving() as other:
        for one in (receiver, other):
            api.register("person_updated", one)
        api.call("PUT", ADA, {"custom_fields": {"first_name": "Augusta"}})
        api.settle()
        assert receiver.bodies == other.bodies != []


def test_nothing_is_replayed_from_before_the_registration(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.call("DELETE", f"{ADA}/subscriptions/1234")
        api.register("subscription_removed", receiver, ON_OFFERS)
        assert api.settle() == {}


@pytest.mark.parametrize(
    "dates", [{"start_date": "2026-01-02"}, {"start_date": "2025-01-01", "end_date": "2026-01-01"}]
)
def test_a_callback_is_sent_only_between_its_dates(
    receiver: Receiver, dates: dict[str, Any]
) -> None:
    with calling_platform() as api:
        api.register("person_updated", receiver, **dates)
        api.call("PUT", ADA, {"custom_fields": {"first_name": "Augusta"}})
        assert api.settle() == {}
        test = {"callback_type": "person_updated"}
        assert api.call("POST", "/config/callback_events/test", test).status == 404


def test_the_end_of_a_callback_is_not_part_of_it() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    destination = Destination("http://127.0.0.1/")
    entry = Registration(1, "person_added", {}, destination, 2, start, end, start, start)
    instants = (start - STEP, start, end - STEP, end)
    assert [entry.is_active(at) for at in instants] == [False, True, True, False]


def test_the_version_of_the_registration_decides_how_numbers_are_written(
    receiver: Receiver,
) -> None:
    with calling_platform() as api:
        path, body = CONFIG, registration("subscription_removed", receiver.url, ON_OFFERS)
        numbers: list[str] = []
        for method, version in (("POST", None), ("PUT", "2"), ("PUT", "1")):
            reply = api.call(method, path, body, X_API_Version=version)
            path = f"{CONFIG}{reply.body['callback_id']}"
            api.call("DELETE", f"{ADA}/subscriptions/1234")
            api.platform.subscribe(ADA_KEY, OFFERS.id, api.platform.clock())
            sent = receiver.wait_for(len(numbers) + 1)[-1]
            numbers.append(sent["subscription"]["person"]["mobile_phone"]["mdn"])
    assert numbers == ["3125550142", "+13125550142", "3125550142"]


def test_a_removed_number_ends_subscriptions_and_says_so(receiver: Receiver) -> None:
    """An assumption: the documentation is silent."""
    with calling_platform() as api:
        api.register("subscription_removed", receiver, ON_OFFERS)
        api.call("PUT", ADA, {"mobile_phone": {"mdn": None}})
        (body,) = receiver.wait_for(1)
    assert body["subscription"]["person"]["mobile_phone"] == {"mdn": ADA_MDN}


@pytest.mark.parametrize(("reading", "count"), [("write", 2), ("change", 1)])
def test_an_update_that_changes_nothing(receiver: Receiver, reading: str, count: int) -> None:
    with calling_platform(person_updated_on=reading) as api:
        api.register("person_updated", receiver)
        for _ in range(2):
            api.call("PUT", ADA, {"custom_fields": {"first_name": "Augusta"}})
        assert api.settle() == {"delivered": count, "queued": count}


def test_a_refused_write_calls_nobody(receiver: Receiver) -> None:
    with calling_platform() as api:
        api.register("person_updated", receiver)
        api.register("subscription_removed", receiver, {"list_id": "1235"})
        api.call("PUT", ADA, {"mobile_phone": {"mdn": NEW_MDN}})
        api.call("DELETE", f"{ADA}/subscriptions/1235")
        assert api.settle() == {}


def test_the_former_bodies(receiver: Receiver) -> None:
    with calling_platform(callback_body="former") as api:
        api.set_manner(time_scale=0)
        api.register("subscription_removed", receiver, ON_OFFERS)
        receiver.answers.extend([503, 200])
        api.call("DELETE", f"{ADA}/subscriptions/1234")
        first, second = receiver.wait_for(2)
    assert (first.pop("delivery_attempt"), second.pop("delivery_attempt")) == ("1", "2")
    assert first == second
    assert without_id(first) == {
        "callback_id": "CB000001",
        "callback_type": "subscription_removed",
        "event_type": "subscription_removed",
        "event_date": "2026-01-01T06:00:02Z",
        "subscription": {
            "person": {
                "id": "11",
                "external_id": "CRM-1",
                "url": "/companies/A1b2C3/mobiledb/persons/11",
            },
            "subscription_list": {
                "id": "1234",
                "url": "/companies/A1b2C3/mobiledb/subscription_lists/1234",
            },
            "opt_in_date": "2025-03-10T12:30:00Z",
            "opt_out_date": "2026-01-01T06:00:02+0000",
            "opt_out_reason": "api_opt_out",
            "url": "/companies/A1b2C3/mobiledb/persons/11/subscriptions/1234",
        },
    }


def test_event_dates_may_have_milliseconds(receiver: Receiver) -> None:
    with calling_platform(callback_event_date="milliseconds") as api:
        api.register("subscription_removed", receiver, ON_OFFERS)
        api.call("DELETE", f"{ADA}/subscriptions/1234")
        (body,) = receiver.wait_for(1)
    assert body["event_date"] == "2026-01-01T06:00:02.000Z"


def test_unset_identifiers_may_be_left_out(receiver: Receiver) -> None:
    with calling_platform(unset_identifiers="absent") as api:
        api.register("person_updated", receiver)
        api.register("subscription_added", receiver, ON_OFFERS)
        api.call("PUT", f"/mobiledb/persons/{CAL_KEY}", {"external_person_id": None})
        api.platform.subscribe(BEA_KEY, OFFERS.id, api.platform.clock())
        updated, subscribed = receiver.wait_for(2)
    assert set(updated["person"]) == {
        "person_id",
        "custom_fields",
        "created_at",
        "updated_at",
        "url",
    }
    assert set(subscribed["subscription"]["person"]) == {"id", "person_key", "url", "mobile_phone"}
