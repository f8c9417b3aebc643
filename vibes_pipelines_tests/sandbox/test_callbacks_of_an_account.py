"""Callbacks about participants, lists, devices, passes and events, sent over real HTTP."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from vibes_pipelines.sandbox.acts import act
from vibes_pipelines.sandbox.imports import process_kind
from vibes_pipelines_tests.sandbox.callback_parts import CallingStandIn, calling_platform
from vibes_pipelines_tests.sandbox.receiver import Receiver, receiving
from vibes_pipelines_tests.sandbox.stand_in import ADA_KEY, ADA_MDN, BEA_KEY, BEA_MDN

CAMPAIGN = {"campaign_id": "777"}


@pytest.fixture
def api() -> Iterator[CallingStandIn]:
    with calling_platform() as running:
        yield running


def told(api: CallingStandIn, there: Receiver) -> list[dict[str, Any]]:
    api.settle()
    return there.bodies


def test_an_invitation_and_its_answer_are_told(api: CallingStandIn) -> None:
    with receiving() as there:
        for kind in ("ack_participant_added", "ack_participant_changed"):
            api.register(kind, there, CAMPAIGN)
        api.register("company_participant_added", there)
        api.register("subscription_added", there, {"list_id": "1234"})
        body = {"person_key": BEA_KEY}
        assert api.call("POST", "/campaigns/acquisition/777/participants", body).status == 201
        act(api.account, "texts/reply", {**CAMPAIGN, "mdn": BEA_MDN, "word": "Y"})
        bodies = told(api, there)
    assert [body["callback_type"] for body in bodies] == [
        "ack_participant_added",
        "company_participant_added",
        "ack_participant_changed",
        "subscription_added",
    ]
    added, _, changed, _ = bodies
    assert (added["participant"]["status"], changed["participant"]["status"]) == (
        "PENDING",
        "CONFIRMED",
    )
    assert added["participant"]["person"]["mobile_phone"] == {"mdn": BEA_MDN}
    assert added["participant"]["acquisition_campaign"]["keyword"] == "OFFERS"


def test_other_campaigns_are_not_told(api: CallingStandIn) -> None:
    with receiving() as there:
        api.register("ack_participant_added", there, {"campaign_id": "778"})
        api.call("POST", "/campaigns/acquisition/777/participants", {"person_key": BEA_KEY})
        assert told(api, there) == []


def test_files_of_subscriptions_and_of_opt_outs_are_told_row_by_row_in_a_burst(
    api: CallingStandIn,
) -> None:
    numbers = [f"+1312555{number}" for number in range(2000, 2100)]
    rows = "".join(f"{mdn},1234\n" for mdn in numbers)
    kinds = {"subscriptions": "subscription_added", "opt_outs": "subscription_removed"}
    with receiving() as there:
        for kind in kinds.values():
            api.register(kind, there, {"list_id": "1234"})
        api.set_manner(connections=8)
        for ending in kinds:
            process_kind(api.account, f"a.{ending}", f"mdn,subscription_list_id\n{rows}".encode())
        bodies = told(api, there)
    people = [body["subscription"]["person"]["mobile_phone"]["mdn"] for body in bodies]
    assert Counter(body["callback_type"] for body in bodies) == dict.fromkeys(kinds.values(), 100)
    assert Counter(people) == dict.fromkeys(numbers, 2)
    assert len({body["event_id"] for body in bodies}) == 200


def test_a_moved_device_is_removed_and_added(api: CallingStandIn) -> None:
    with receiving() as there:
        for kind in ("device_added", "device_removed"):
            api.register(kind, there, {"app_id": "APP1"})
        done = act(api.account, "devices/open-app", {"app_id": "APP1", "os": "ANDROID"})
        device = api.account.devices.get(str(done["vibes_device_id"]))
        api.account.devices.assign(device, person_key=ADA_KEY, external_person_id=None)
        bodies = told(api, there)
    kinds = [body["callback_type"] for body in bodies]
    assert kinds == ["device_added", "device_removed", "device_added"]
    assert bodies[-1]["person"]["external_id"] == "CRM-1"
    assert bodies[-1]["push_device"]["device_os"] == "ANDROID"


def test_a_pass_that_comes_and_goes_is_told_without_a_person(api: CallingStandIn) -> None:
    card = {"token": "r3zhm8", "uuid": "card-1"}
    with receiving() as there:
        for kind in ("wallet_item_install", "wallet_item_remove"):
            api.register(kind, there, {"campaign_token": "r3zhm8"})
        act(api.account, "wallet/install", {**card, "provider": "google_wallet"})
        assert act(api.account, "wallet/remove", card) == {"changed": True}
        assert act(api.account, "wallet/remove", card) == {"changed": False}
        install, remove = told(api, there)
    assert install["wallet_item"]["uuid"] == "card-1"
    assert install["wallet_instance"]["unregistered_at"] is None
    assert remove["wallet_instance"]["unregistered_at"] is not None
    assert "person" not in install


def test_events_are_told_as_each_registration_asks(api: CallingStandIn) -> None:
    with receiving() as everything, receiving() as failures, receiving() as other:
        api.register("event_processed", everything, {})
        api.register("event_processed", failures, {"callbacks_to_send": "only_failures"})
        api.register("event_processed", other, {"event_type": "day_of_delivery"})
        for event_id, mdn in (("E1", ADA_MDN), ("E2", BEA_MDN)):
            body = {"event_id": event_id, "event_type": "ORDER_SHIPPED", "event_data": {"mdn": mdn}}
            assert api.call("POST", "/events", body).status == 202
        assert [b["event_processed"]["event_id"] for b in told(api, everything)] == ["E1", "E2"]
        (failed,) = told(api, failures)
        assert told(api, other) == []
    assert failed["event_processed"]["action"]["status_reason"] == "person_not_subscribed"


def test_a_message_with_a_code_waits_for_codes_in_its_pool(api: CallingStandIn) -> None:
    with receiving() as there:
        api.register("event_processed", there, {})
        body = {"event_type": "coupon_earned", "event_data": {"mdn": BEA_MDN}}
        assert api.call("POST", "/events", {"event_id": "E1", **body}).status == 202
        assert not api.account.activity.messages
        process_kind(api.account, "1.incentives", b"AB1\n")
        assert api.call("POST", "/events", {"event_id": "E2", **body}).status == 202
        actions = [body["event_processed"]["action"] for body in told(api, there)]
    names = ("type", "status", "status_reason")
    said = [tuple(action[name] for name in names) for action in actions]
    routed = ("routing", "processing", "accepted_by_event_triggered_message")
    assert said == [routed, ("processing", "failed", "et127_no_incentive_codes"), routed]
    assert len(api.account.activity.messages) == 1
