"""The Callback API over real HTTP: what can be registered, how it is shown, what is refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from vibes_pipelines.sandbox.callbacks_records import KINDS
from vibes_pipelines_tests.sandbox.callback_parts import (
    CONFIG,
    CallingStandIn,
    calling_platform,
    registration,
)
from vibes_pipelines_tests.sandbox.receiver import Receiver, receiving
from vibes_pipelines_tests.sandbox.stand_in import StandIn, served_platform
from vibes_pipelines_tests.support.real_parts import refusing_port

OFFERS = {"list_id": "1234"}
CONFIGS: dict[str, dict[str, str] | None] = {
    kind: dict.fromkeys(rule.required, "1234") if rule.has_config else None
    for kind, rule in KINDS.items()
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def api() -> Iterator[StandIn]:
    with served_platform() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def untouched() -> Iterator[StandIn]:
    """For tests in which nothing is ever registered."""
    with served_platform() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def calling() -> Iterator[CallingStandIn]:
    with calling_platform() as stand_in:
        yield stand_in


def test_a_registration_is_answered_with_the_callback(api: StandIn, receiver: Receiver) -> None:
    reply = api.call("POST", CONFIG, registration("subscription_added", receiver.url, OFFERS))
    assert reply.status == 201
    assert reply.body == {
        "callback_id": "CB000001",
        "callback_type": "subscription_added",
        "event_type": "subscription_added",
        "subscription_added": {"list_id": "1234"},
        "destination": {
            "url": receiver.url,
            "method": "POST",
            "content_type": "application/json",
        },
        "start_date": "2026-01-01T06:00:01Z",
        "url": "/companies/A1b2C3/config/callbacks/CB000001",
        "created_date": "2026-01-01T06:00:01Z",
        "updated_date": "2026-01-01T06:00:01Z",
    }


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_documented_type_can_be_registered(
    calling: CallingStandIn, receiver: Receiver, kind: str
) -> None:
    reply = calling.call("POST", CONFIG, registration(kind, receiver.url, CONFIGS[kind]))
    assert (reply.status, reply.body["callback_type"]) == (201, kind)
    assert reply.body.get(kind) == (CONFIGS[kind] or None)


def test_callbacks_are_listed_shown_altered_and_cancelled(api: StandIn, receiver: Receiver) -> None:
    assert api.call("GET", CONFIG).body == []
    body = registration("subscription_removed", receiver.url, OFFERS)
    first = api.call("POST", CONFIG.rstrip("/"), body).body
    second = api.call("POST", CONFIG, registration("person_added", receiver.url)).body
    assert api.call("GET", CONFIG.rstrip("/")).body == [first, second]
    path = f"{CONFIG}{first['callback_id']}"
    assert api.call("GET", path).body == first

    altered = api.call(
        "PUT",
        path,
        registration("subscription_removed", f"{receiver.url}/2", OFFERS, end_date="2026-02-01"),
    )
    assert altered.status == 200
    assert altered.body["destination"]["url"] == f"{receiver.url}/2"
    assert altered.body["end_date"] == "2026-02-01T00:00:00Z"
    assert altered.body["created_date"] == first["created_date"] < altered.body["updated_date"]

    cancelled = api.call("DELETE", f"{path}/")
    assert (cancelled.status, cancelled.body) == (200, altered.body)
    assert api.call("GET", CONFIG).body == [second]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_callback_is_not_found(
    untouched: StandIn, receiver: Receiver, method: str
) -> None:
    body = registration("person_added", receiver.url) if method == "PUT" else None
    reply = untouched.call(method, f"{CONFIG}CB000009", body)
    assert (reply.status, len(reply.body["errors"])) == (404, 1)


def test_the_deprecated_name_of_the_type_still_works(api: StandIn, receiver: Receiver) -> None:
    body = {"event_type": "person_added", "destination": {"url": receiver.url}}
    reply = api.call("POST", CONFIG, body)
    assert (reply.status, reply.body["callback_type"]) == (201, "person_added")


def with_destination(**values: object) -> dict[str, Any]:
    return {
        "callback_type": "person_added",
        "destination": {"url": "http://127.0.0.1:1/", **values},
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "JSON object"),
        ({}, "callback_type is required"),
        (with_destination() | {"callback_type": "person_removed"}, "callback_type"),
        (with_destination() | {"callback_type": ["person_added"]}, "callback_type"),
        (with_destination() | {"event_type": "person_updated"}, "contradict"),
        (with_destination() | {"subscription_added": OFFERS}, "subscription_added"),
        (with_destination() | {"password": "x"}, "password"),
        ({"callback_type": "person_added"}, "destination is required"),
        ({"callback_type": "person_added", "destination": "http://127.0.0.1/"}, "destination"),
        (with_destination(token="x"), "destination.token"),
        (with_destination(method="GET"), "destination.method"),
        (with_destination(content_type="application/xml"), "destination.content_type"),
        (with_destination(url=None), "destination.url"),
        (with_destination(url=""), "destination.url"),
        (with_destination(url=f"http://127.0.0.1/{'x' * 1008}"), "1024"),
        (with_destination() | {"start_date": "01/02/2026"}, "start_date"),
        (with_destination() | {"start_date": "2026-02-30"}, "exists"),
        (with_destination() | {"end_date": 20260201}, "end_date"),
        (
            with_destination() | {"start_date": "2026-02-01", "end_date": "2026-02-01"},
            "later",
        ),
        (registration("subscription_added", "http://127.0.0.1:1/"), "subscription_added"),
        (registration("subscription_added", "http://127.0.0.1:1/", {}), "list_id"),
        (
            with_destination()
            | {"callback_type": "subscription_added", "subscription_added": {"list_id": 1234}},
            "list_id",
        ),
        (
            registration("subscription_added", "http://127.0.0.1:1/", OFFERS | {"name": "x"}),
            "subscription_added.name",
        ),
        (
            with_destination()
            | {"callback_type": "subscription_removed", "subscription_added": OFFERS},
            "subscription_removed is required",
        ),
        (registration("event_processed", "http://127.0.0.1:1/"), "event_processed"),
        (
            registration("event_processed", "http://127.0.0.1:1/", {"callbacks_to_send": "some"}),
            "callbacks_to_send",
        ),
    ],
)
def test_registrations_that_cannot_be_processed(
    untouched: StandIn, body: object, message: str
) -> None:
    reply = untouched.call("POST", CONFIG, body)
    assert reply.status == 422, reply.raw
    assert message in reply.messages
    assert untouched.call("GET", CONFIG).body == []


def test_all_faults_of_a_registration_come_together(untouched: StandIn) -> None:
    body = with_destination(method="GET", url="https://example.com/") | {"start_date": "x", "a": 1}
    assert len(untouched.call("POST", CONFIG, body).body["errors"]) == 4


def test_a_registration_is_json_and_of_a_known_version(api: StandIn, receiver: Receiver) -> None:
    body = registration("person_added", receiver.url)
    assert api.call("POST", CONFIG, b"{").status == 400
    assert api.call("POST", CONFIG, body, Content_Type="text/plain").status == 415
    assert api.call("POST", CONFIG, body, X_API_Version="3").status == 400
    assert api.call("PATCH", CONFIG, body).status == 405
    assert api.call("PUT", CONFIG, body).status == 405
    assert api.call("GET", "/config/callback_events/test").status == 405
    assert api.call("POST", CONFIG, body, Authorization=None).status == 401
    assert api.call("POST", CONFIG, body, X_API_Version=None).status == 201


def test_a_list_that_does_not_exist_is_refused(api: StandIn, receiver: Receiver) -> None:
    body = registration("subscription_added", receiver.url, {"list_id": "99"})
    reply = api.call("POST", CONFIG, body)
    assert (reply.status, "cannot be found" in reply.messages) == (422, True)


def test_the_same_callback_goes_to_at_most_fifty_urls(api: StandIn, receiver: Receiver) -> None:
    def register(kind: str, number: int) -> int:
        url = f"{receiver.url}/{number}"
        config = OFFERS if kind == "subscription_added" else None
        return api.call("POST", CONFIG, registration(kind, url, config)).status

    assert {register("subscription_added", number) for number in range(50)} == {201}
    assert register("subscription_added", 0) == 422, "registered already for this URL"
    assert register("subscription_added", 50) == 422
    assert register("person_added", 50) == 201, "another callback"
    news = registration("subscription_added", receiver.url, {"list_id": "1235"})
    assert api.call("POST", CONFIG, news).status == 201, "another list"
    again = registration("subscription_added", f"{receiver.url}/0", OFFERS)
    assert api.call("PUT", f"{CONFIG}CB000001", again).status == 200, "its own URL"
    assert api.call("PUT", f"{CONFIG}CB000002", again).status == 422, "that of another"


def test_a_callback_may_be_registered_only_once(receiver: Receiver) -> None:
    with served_platform(callback_registrations="one") as api:
        urls = [receiver.url, f"{receiver.url}/2"]
        statuses = [
            api.call("POST", CONFIG, registration("person_added", url)).status for url in urls
        ]
        assert statuses == [201, 422]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/callbacks",
        "https://10.0.0.1/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://169.254.169.254/latest",
        "http://127.0.0.1.nip.io/",
        "http://localhost.example.com/",
        "http://127.0.0.1@example.com/",
        "http://user:secret@127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:8.8.8.8]/",
        "http://[fe80::1%25lo]/",
        "http://[127.0.0.1/",
    ],
)
def test_urls_beyond_loopback_are_refused(untouched: StandIn, url: str) -> None:
    reply = untouched.call("POST", CONFIG, registration("person_added", url))
    assert reply.status == 422, reply.raw
    assert "destination.url" in reply.messages
    assert "listens" not in reply.messages, "refused without a connection"


def test_a_url_must_be_live_unless_the_switch_says_otherwise(api: StandIn) -> None:
    with refusing_port() as port:
        body = registration("person_added", f"http://127.0.0.1:{port}/")
        refused = api.call("POST", CONFIG, body)
    assert (refused.status, "nothing listens" in refused.messages) == (422, True)
    with served_platform(callback_url_check="none") as other:
        assert other.call("POST", CONFIG, body).status == 201


@pytest.mark.parametrize(
    ("switches", "shown"),
    [
        ({"callback_id_form": "integer"}, {"callback_id": 10_001}),
        ({"callback_stamps": "created_at"}, {"created_at": "2026-01-01T06:00:01Z"}),
    ],
)
def test_both_forms_of_the_entity(
    receiver: Receiver, switches: dict[str, Any], shown: dict[str, object]
) -> None:
    with served_platform(**switches) as api:
        entity = api.call("POST", CONFIG, registration("person_added", receiver.url)).body
        assert shown.items() <= entity.items()
        assert api.call("GET", f"{CONFIG}{entity['callback_id']}").body == entity


def test_a_configuration_may_stand_where_samples_put_it(receiver: Receiver) -> None:
    body = registration("subscription_removed", receiver.url, subscription_added=OFFERS)
    with served_platform(callback_config_key="sample") as api:
        reply = api.call("POST", CONFIG, body)
        assert (reply.status, reply.body["subscription_removed"]) == (201, OFFERS)
        own = registration("subscription_removed", f"{receiver.url}/2", OFFERS)
        assert api.call("POST", CONFIG, own).status == 201
        both = {**own, "subscription_added": OFFERS}
        assert api.call("POST", CONFIG, both).status == 422


TESTS: list[tuple[str, dict[str, Any], str]] = [
    ("subscription_added", {"subscription": {"subscription_list": {"id": "1234"}}}, "subscription"),
    (
        "subscription_removed",
        {"subscription": {"person": {"id": "11"}, "subscription_list": {"id": "1234"}}},
        "subscription",
    ),
    ("person_added", {"person": {"mobile": {"mdn": "+13125550142"}}}, "person"),
    ("person_updated", {}, "person"),
    (
        "subscription_list_added",
        {"subscription_list": {"id": "7", "name": "N"}},
        "subscription_list",
    ),
    ("subscription_list_updated", {}, "subscription_list"),
    (
        "ack_participant_added",
        {"participant": {"acquisition_campaign": {"api_key": "1234"}}},
        "participant",
    ),
    (
        "ack_participant_changed",
        {"participant": {"id": "11", "acquisition_campaign": {"api_key": "1234"}}},
        "participant",
    ),
    ("company_participant_added", {}, "participant"),
    ("company_participant_changed", {}, "participant"),
    ("device_added", {"push_device": {"app_id": "1234"}}, "push_device"),
    ("device_updated", {"push_device": {"app_id": "1234"}}, "push_device"),
    ("device_removed", {"push_device": {"app_id": "1234"}}, "push_device"),
    ("event_processed", {"event_processed": {"event_data": {"a": 1}}}, "event_processed"),
]


@pytest.mark.parametrize(("kind", "given", "payload"), TESTS, ids=[case[0] for case in TESTS])
def test_a_test_event_is_sent_to_the_active_callback(
    calling: CallingStandIn, kind: str, given: dict[str, Any], payload: str
) -> None:
    with receiving() as receiver:
        callback = calling.register(kind, receiver, CONFIGS[kind]).body
        reply = calling.call(
            "POST", "/config/callback_events/test", {"callback_type": kind, **given}
        )
        (body,) = receiver.wait_for(1)
        calling.call("DELETE", f"{CONFIG}{callback['callback_id']}")
    assert (reply.status, set(reply.body)) == (201, {"message", "event_id"})
    assert body["event_id"] == reply.body["event_id"]
    assert body["callback_type"] == body["event_type"] == kind
    assert isinstance(body[payload], dict)
    assert calling.platform.audit.effects() == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"callback_type": "person_updated"}, 404),
        ({"callback_type": "subscription_added"}, 422),
        ({"callback_type": "wallet_item_install"}, 422),
        ({"callback_type": "unmatched_message_received"}, 422),
        ({"callback_type": "person_added", "person": {"name": "Ada"}}, 422),
        ({"callback_type": "person_added", "person": "Ada"}, 422),
        ({"callback_type": "person_added", "person": {"person_id": 11}}, 422),
        ({}, 422),
    ],
)
def test_test_events_that_are_refused(
    api: StandIn, receiver: Receiver, body: object, status: int
) -> None:
    api.call("POST", CONFIG, registration("person_added", receiver.url))
    assert api.call("POST", "/config/callback_events/test", body).status == status


def test_a_test_event_of_another_list_finds_no_callback(api: StandIn, receiver: Receiver) -> None:
    api.call("POST", CONFIG, registration("subscription_added", receiver.url, OFFERS))
    given = {"subscription": {"subscription_list": {"id": "1235"}}}
    body = {"callback_type": "subscription_added", **given}
    assert api.call("POST", "/config/callback_events/test", body).status == 404
