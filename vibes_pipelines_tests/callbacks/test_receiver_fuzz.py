"""Whatever a stranger sends, the receiver answers; with 5XX only for what it could not keep."""

import json
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vibes_pipelines.callbacks.receiver import Rules
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.vibes.callbacks import SHAPES
from vibes_pipelines_tests.support.callbacks import (
    RunningReceiver,
    as_bytes,
    running_receiver,
    stored_rows,
)
from vibes_pipelines_tests.support.examples import examples

EXAMPLES = examples(60)
LIMIT = 3_000
PEOPLE = {"person", "participant", "subscription", "push_device", "event_processed"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=12,
)
envelopes = st.fixed_dictionaries(
    {"callback_type": st.sampled_from(sorted(SHAPES)) | json_values},
    optional={
        "event_id": st.text(max_size=300) | json_values,
        "event_date": st.text(max_size=30) | st.datetimes().map(str),
        **dict.fromkeys(sorted(PEOPLE), json_values),
    },
)
bodies = (
    st.binary(max_size=2 * LIMIT)
    | envelopes.map(lambda body: json.dumps(body).encode())
    | envelopes.map(lambda body: json.dumps(body).encode("utf-16"))
    | st.integers(1, 1_500).map(lambda depth: b'{"a":' * depth)
    | st.integers(1, 1_500).map(lambda depth: b"[" * depth + b"]" * depth)
)
# What the parser takes for a part of the request itself is left out: it would be another request.
header_bytes = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=30
).map(lambda text: text.encode("latin-1"))
headers = st.dictionaries(
    st.sampled_from(
        [
            b"Host",
            b"Content-Type",
            b"Content-Encoding",
            b"X-Forwarded-For",
            b"X-Forwarded-Proto",
            b"Forwarded",
            b"Authorization",
            b"Accept",
            b"Cookie",
            b"Range",
            b"Expect-CT",
        ]
    ),
    header_bytes,
    max_size=5,
)
# A path with a line break in it is no path of the receiver's.
paths = (
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
    .filter(lambda text: "%0a" not in text.lower())
    .map(lambda text: text.encode())
)
methods = st.sampled_from([b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"POST"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('fuzz') / 'ledger.db'}"


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[RunningReceiver]:
    with Inbox(url) as inbox, running_receiver(inbox, Rules(max_body_bytes=LIMIT)) as running:
        yield running


def status_of(
    served: RunningReceiver, method: bytes, path: bytes, given: dict[bytes, bytes], body: bytes
) -> int:
    """The status of one request that is written byte for byte."""
    lines = [b"%s %s HTTP/1.1" % (method, path), *(b"%s: %s" % pair for pair in given.items())]
    if not any(name == b"Host" for name in given):
        lines.append(b"Host: x")
    lines += [b"Content-Length: %d" % len(body), b"Connection: close"]
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = connection.recv(64)
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found, answer
    return int(found[1])


fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@fuzz
@given(bodies, headers, paths)
@example(b"{}", {b"Host": b"["}, b"")
@example(b"{}", {b"Host": b"a]b"}, b"?[")
@example(b"{}", {b"X-Forwarded-For": b","}, b"%00%ff")
@example(b'{"callback_type":"\\ud800"}', {}, b"")
def test_every_callback_is_taken_whatever_it_holds(
    served: RunningReceiver, body: bytes, given: dict[bytes, bytes], path: bytes
) -> None:
    """A bad Content-Length apart, nothing but 200; 400 is what the HTTP parser itself refuses."""
    status = status_of(served, b"POST", b"/callbacks/" + path, given, body)
    assert status in {200, 400}
    if status == 400:
        assert given or path
    assert served.receiver.tally.failed == 0


@fuzz
@given(methods, paths, headers, bodies)
@example(b"GET", b"health", {b"Host": b"["}, b"")
@example(b"GET", b"metrics?x=%", {}, b"")
@example(b"POST", b"signup", {}, b"{}")
@example(b"OPTIONS", b"*", {}, b"")
def test_no_other_request_makes_it_fail(
    served: RunningReceiver,
    method: bytes,
    path: bytes,
    given: dict[bytes, bytes],
    body: bytes,
) -> None:
    assert status_of(served, method, b"/" + path, given, body) < 500


@pytest.mark.parametrize("event_type", sorted(SHAPES))
@pytest.mark.parametrize("name", ["callback_type", "event_type"])
def test_every_type_of_the_contract_is_stored_under_its_name(
    served: RunningReceiver, url: str, event_type: str, name: str
) -> None:
    person = {"external_person_id": "C1", "mobile_phone": {"mdn": "+13125550142"}}
    listed = {"id": "1234", "url": "/companies/A1b2C3/mobiledb/subscription_lists/1234"}
    body = {
        name: event_type,
        "event_id": f"{name} {event_type}",
        "event_date": "2026-01-02T03:04:05.678Z",
        "subscription": {"person": person, "subscription_list": listed},
        "participant": {"person": person, "status": "CONFIRMED"},
        "person": person,
        "subscription_list": listed,
        "event_processed": {"event_id": "e1", "action": {"type": "routing"}},
    }
    assert served.post(as_bytes(body)) == 200
    [row] = [row for row in stored_rows(url) if row["event_id"] == body["event_id"]]
    assert (row["event_type"], row["status"]) == (event_type, "stored")


def test_the_fuzzed_receiver_is_whole_afterwards(served: RunningReceiver, url: str) -> None:
    assert served.request("GET", "/health") == (200, "ok\n")
    assert served.receiver.tally.received >= len(stored_rows(url)) > 0
