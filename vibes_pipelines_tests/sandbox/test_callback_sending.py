"""How callbacks are sent: at least once, by the answer of a real receiver, and as scripted."""

from collections.abc import Iterator
from itertools import pairwise
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.sandbox.callbacks_manner import (
    DOWNED_AFTER,
    MAX_RETRIES,
    RETRY_EVERY_S,
    CallbackManner,
)
from vibes_pipelines.sandbox.callbacks_records import Destination, Wish
from vibes_pipelines.sandbox.callbacks_registry import Callbacks
from vibes_pipelines.sandbox.faults import FaultScriptError
from vibes_pipelines_tests.sandbox.callback_parts import (
    CONFIG,
    CallingStandIn,
    calling_platform,
    registration,
    sending,
)
from vibes_pipelines_tests.sandbox.receiver import Receiver, eventually, receiving
from vibes_pipelines_tests.sandbox.stand_in import ADA_KEY, build_platform
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.real_parts import free_port


@pytest.fixture(scope="module")
def served_api() -> Iterator[CallingStandIn]:
    with calling_platform(callback_url_check="none") as stand_in:
        yield stand_in


@pytest.fixture
def api(served_api: CallingStandIn) -> Iterator[CallingStandIn]:
    """A stand-in without registrations; its retries do not wait."""
    served_api.set_manner(time_scale=0)
    served_api.platform.audit.clear()
    yield served_api
    for entry in served_api.callbacks.registrations:
        served_api.callbacks.cancel(entry.number)
    served_api.set_manner(time_scale=0)
    served_api.settle()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def happen(api: CallingStandIn, count: int = 1) -> None:
    for number in range(count):
        api.platform.edit(ADA_KEY, {"first_name": f"Ada {number}"}, api.platform.clock())


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(api: CallingStandIn, receiver: Receiver, status: int) -> None:
    api.register("person_updated", receiver)
    receiver.answers.append(status)
    happen(api)
    assert api.settle() == {"delivered": 1, "queued": 1}
    (request,) = receiver.received
    assert (request.method, request.path) == ("POST", "/callbacks")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == receiver.url.split("/")[2]


def test_method_content_type_and_query_are_those_of_the_registration(
    api: CallingStandIn, receiver: Receiver
) -> None:
    destination = {"url": f"{receiver.url}?a=b", "method": "PUT", "content_type": "text/json"}
    body = {"callback_type": "person_updated", "destination": destination}
    assert api.call("POST", CONFIG, body).status == 201
    happen(api)
    receiver.wait_for(1)
    (request,) = receiver.received
    assert (request.method, request.path) == ("PUT", "/callbacks?a=b")
    assert request.headers["content-type"] == "text/json"


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429])
def test_4xx_loses_the_callback_for_ever(
    api: CallingStandIn, receiver: Receiver, status: int
) -> None:
    api.register("person_updated", receiver)
    receiver.answers.append(status)
    happen(api, 2)
    assert api.settle() == {"delivered": 1, "lost": 1, "queued": 2}
    assert len(set(receiver.ids)) == 2


@pytest.mark.parametrize("status", [301, 307, 500, 503])
def test_3xx_and_5xx_are_sent_again_and_no_redirect_is_followed(
    api: CallingStandIn, receiver: Receiver, status: int
) -> None:
    api.register("person_updated", receiver)
    receiver.answers.extend([status, status, 200])
    happen(api)
    assert api.settle() == {"delivered": 1, "queued": 1, "retried": 2}
    assert len(receiver.ids) == 3
    assert len(set(receiver.ids)) == 1
    assert {request.path for request in receiver.received} == {"/callbacks"}


def test_silence_is_sent_again_so_that_a_slow_receiver_sees_it_twice(
    api: CallingStandIn, receiver: Receiver
) -> None:
    api.set_manner(time_scale=1, timeout_s=0.1)
    api.register("person_updated", receiver)
    receiver.answers.extend([0, 200])
    happen(api)
    receiver.wait_for(1)
    eventually(lambda: api.counts.get("retried") == 1, "the silence to be given up")
    api.set_manner()
    api.callbacks.queue.make_due()
    assert api.settle() == {"delivered": 1, "queued": 1, "retried": 1}
    assert receiver.bodies[0] == receiver.bodies[1]


def test_a_receiver_that_is_away_gets_its_callback_when_it_is_back(api: CallingStandIn) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/callbacks"
    assert api.call("POST", CONFIG, registration("person_updated", url)).status == 201
    api.set_manner(time_scale=1)
    happen(api)
    eventually(lambda: api.counts.get("retried", 0) > 0, "a failed attempt")
    with receiving(port) as receiver:
        api.callbacks.queue.make_due()
        receiver.wait_for(1)
        assert api.settle()["delivered"] == 1


def test_after_the_last_retry_a_callback_is_given_up(
    api: CallingStandIn, receiver: Receiver
) -> None:
    api.register("person_updated", receiver)
    receiver.answers.extend([500] * (MAX_RETRIES + 1))
    happen(api)
    counts = api.settle()
    assert (counts["given_up"], counts["retried"]) == (1, MAX_RETRIES)
    assert len(receiver.ids) == MAX_RETRIES + 1


def test_retries_keep_the_scaled_distance(api: CallingStandIn, receiver: Receiver) -> None:
    api.set_manner(time_scale=0.001)
    api.register("person_updated", receiver)
    receiver.answers.extend([500, 500])
    happen(api)
    api.settle()
    times = [request.at_s for request in receiver.received]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == 2
    assert min(waits) >= RETRY_EVERY_S * 0.001


def test_a_url_that_keeps_failing_is_sent_nothing_for_a_while(
    api: CallingStandIn, receiver: Receiver
) -> None:
    api.set_manner(time_scale=1)
    api.register("person_updated", receiver)
    receiver.otherwise = 503
    happen(api, DOWNED_AFTER + 3)
    eventually(lambda: api.counts.get("downed", 0) == 1, "the downed state")
    with receiving() as other:
        api.register("person_updated", other)
        happen(api)
        other.wait_for(1)
        assert len(receiver.received) == DOWNED_AFTER, "another URL is not held up"
        receiver.otherwise = 200
        api.callbacks.queue.make_due()
        counts = api.settle()
    assert (counts["delivered"], counts["downed"]) == (DOWNED_AFTER + 3 + 2, 1)


def test_scripted_duplicates_are_counted_apart(api: CallingStandIn, receiver: Receiver) -> None:
    api.set_manner(duplicates=2)
    api.register("person_updated", receiver)
    happen(api, 2)
    assert api.settle() == {"delivered": 2, "duplicate": 4, "queued": 2}
    assert len(set(receiver.ids)) == 2
    assert len(receiver.ids) == 6


def test_a_duplicate_is_sent_once_whatever_it_is_answered(
    api: CallingStandIn, receiver: Receiver
) -> None:
    api.set_manner(duplicates=1)
    api.register("person_updated", receiver)
    receiver.answers.extend([200, 500])
    happen(api)
    assert api.settle() == {"delivered": 1, "duplicate": 1, "queued": 1}


@pytest.mark.parametrize("order", ["as_happened", "reversed", "shuffled"])
def test_order(api: CallingStandIn, receiver: Receiver, order: str) -> None:
    api.register("person_updated", receiver)
    api.set_manner(hold=True)
    happen(api, 20)
    assert receiver.received == []
    api.set_manner(order=order)
    api.settle()
    names = [body["person"]["custom_fields"]["first_name"] for body in receiver.bodies]
    happened = [f"Ada {number}" for number in range(20)]
    assert sorted(names) == sorted(happened)
    assert (names == happened, names == happened[::-1]) == (
        order == "as_happened",
        order == "reversed",
    )


def test_callbacks_may_be_late(api: CallingStandIn, receiver: Receiver) -> None:
    api.set_manner(delay_s=0.2)
    api.register("person_updated", receiver)
    happened_at_s = monotonic()
    happen(api)
    receiver.wait_for(1)
    assert receiver.received[0].at_s - happened_at_s >= 0.2


def test_one_by_one_unless_a_burst_is_asked_for(api: CallingStandIn, receiver: Receiver) -> None:
    api.register("person_updated", receiver)
    receiver.pause_s = 0.05
    happen(api, 4)
    api.settle()
    assert receiver.busiest == 1
    api.set_manner(hold=True)
    happen(api, 40)
    api.set_manner(connections=8)
    assert api.settle() == {"delivered": 44, "queued": 44}
    assert 1 < receiver.busiest <= 8


def test_a_cancelled_registration_receives_nothing_more(
    api: CallingStandIn, receiver: Receiver
) -> None:
    api.set_manner(hold=True)
    callback = api.register("person_updated", receiver).body
    happen(api, 3)
    api.call("DELETE", f"{CONFIG}{callback['callback_id']}")
    assert api.counts == {"cancelled": 3, "queued": 3}
    api.set_manner()
    api.settle()
    assert receiver.received == []


def test_an_altered_registration_takes_its_waiting_callbacks_along(
    api: CallingStandIn, receiver: Receiver
) -> None:
    api.set_manner(time_scale=1)
    callback = api.register("person_updated", receiver).body
    receiver.answers.append(503)
    happen(api)
    eventually(lambda: api.counts.get("retried") == 1, "a failed attempt")
    with receiving() as other:
        body = registration("person_updated", other.url)
        assert api.call("PUT", f"{CONFIG}{callback['callback_id']}", body).status == 200
        api.callbacks.queue.make_due()
        assert other.wait_for(1)[0]["event_id"] == receiver.ids[0]


def test_what_one_sender_leaves_the_next_one_sends(receiver: Receiver) -> None:
    platform = build_platform()
    callbacks = Callbacks(platform)
    with sending(callbacks):
        callbacks.queue.set_manner(CallbackManner(timeout_s=60))
        register_directly(callbacks, receiver.url)
        receiver.otherwise = 0
        for number in range(5):
            platform.edit(ADA_KEY, {"first_name": str(number)}, platform.clock())
        receiver.wait_for(1)
    assert len(callbacks.queue) == 5, "the unanswered one, too"
    receiver.otherwise = 200
    with sending(callbacks):
        eventually(lambda: len(callbacks.queue) == 0, "the queue to be empty")
    counts = platform.audit.as_dict()["callbacks"]
    assert counts == {"delivered": 5, "queued": 5}
    assert len(set(receiver.ids)) == 5


def register_directly(callbacks: Callbacks, url: str) -> None:
    callbacks.register(Wish("person_updated", {}, Destination(url)), 2)


@settings(max_examples=examples(30), deadline=None)
@given(
    answers=st.lists(st.sampled_from([200, 204, 302, 400, 404, 500, 503]), max_size=30),
    events=st.integers(1, 5),
    duplicates=st.integers(0, 1),
    order=st.sampled_from(["as_happened", "reversed", "shuffled"]),
    connections=st.integers(1, 3),
)
def test_every_callback_has_exactly_one_end(
    served_api: CallingStandIn,
    answers: list[int],
    events: int,
    duplicates: int,
    order: str,
    connections: int,
) -> None:
    api = served_api
    api.platform.audit.clear()
    api.set_manner(time_scale=0, duplicates=duplicates, order=order, connections=connections)
    with receiving() as receiver:
        callback = api.register("person_updated", receiver).body
        receiver.answers.extend(answers)
        happen(api, events)
        counts = api.settle()
        api.call("DELETE", f"{CONFIG}{callback['callback_id']}")
    ends = ("delivered", "lost", "given_up")
    assert sum(counts.get(end, 0) for end in ends) == counts["queued"] == events
    assert counts.get("duplicate", 0) == events * duplicates
    attempts = events * (1 + duplicates) + counts.get("retried", 0)
    assert len(receiver.received) == attempts
    assert len(set(receiver.ids)) == events, "each one arrived at least once"


@pytest.mark.parametrize(
    "script",
    [
        [],
        "hold",
        {"nonsense": 1},
        {"hold": 1},
        {"order": "random"},
        {"order": []},
        {"duplicates": -1},
        {"duplicates": True},
        {"duplicates": 1.5},
        {"delay_s": "long"},
        {"delay_s": float("nan")},
        {"connections": 0},
        {"connections": 9},
        {"time_scale": -1},
        {"timeout_s": 0},
    ],
)
def test_a_manner_that_cannot_be_meant_is_refused(script: object) -> None:
    with pytest.raises(FaultScriptError):
        CallbackManner.from_mapping(script)


def test_the_manner_is_the_assumed_one_unless_scripted() -> None:
    manner = CallbackManner.from_mapping(None)
    assert (manner.retry_after_s, manner.timeout_s, manner.connections) == (300, 2, 1)
