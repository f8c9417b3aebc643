"""Bodies of requests, as every stand-in reads them."""

from decimal import Decimal

import pytest

from vibes_pipelines.sandbox.request_body import parse_json
from vibes_pipelines_tests.sandbox.stand_in import StandIn

REFUSED = [
    b"",
    b"{",
    '{"a": "Zoë"}'.encode("latin-1"),
    '{"a": 1}'.encode("utf-16"),
    '\ufeff{"a": 1}'.encode(),
    rb'{"a": "Ada \ud83d"}',
    rb'{"\ude00": 1}',
    b'{"a": NaN}',
    b'{"a": 1e400}',
    b'{"a": 1, "a": 2}',
    b"[" * 100_000,
]


def test_what_can_be_written_again_is_read() -> None:
    body = r'{"a": "Ada \ud83d\ude00 Zoë", "b": [1.50, null]}'.encode()
    assert parse_json(body) == {"a": "Ada \U0001f600 Zoë", "b": [1.5, None]}
    assert parse_json(b'{"a": 1.50}', Decimal) == {"a": Decimal("1.50")}


@pytest.mark.parametrize("body", REFUSED)
def test_what_nothing_could_hold_afterwards_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(body)


def test_the_api_answers_such_a_body_with_400(api: StandIn) -> None:
    half = rb'{"event_type": "x", "event_id": "\ud83d", "event_data": {"person_id": "11"}}'
    for body in (half, b"[" * 100_000):
        assert api.call("POST", "/events", body).status == 400
