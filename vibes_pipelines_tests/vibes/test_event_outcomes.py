"""What a callback says became of an event; one of no known form is told apart, never lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.vibes.event_outcomes import UNREADABLE, EventOutcome, read_outcome

ROUTED = {
    "type": "routing",
    "status": "processing",
    "status_reason": "accepted_by_event_triggered_message",
}


def body(**told: Any) -> bytes:
    return json.dumps({"callback_type": "event_processed", "event_processed": told}).encode()


def test_the_documented_sample() -> None:
    assert read_outcome(body(event_id="e1", event_type="x", action=ROUTED)) == EventOutcome(
        "e1", "routing", "processing", "accepted_by_event_triggered_message"
    )


def test_words_that_are_not_documented_are_kept() -> None:
    action = {"type": "carrier_dlr", "status": "Delivered!"}
    assert read_outcome(body(event_id="e1", action=action)) == EventOutcome(
        "e1", "carrier_dlr", "Delivered!"
    )
    assert read_outcome(body(event_id="e1", action={"type": "x"})).state == "unknown"


@pytest.mark.parametrize(
    ("given_body", "event_id"),
    [
        (b"garbage", None),
        (b"{}", None),
        (body(action=ROUTED), None),
        (body(event_id="e1"), "e1"),
        (body(event_id="e1", action="routing"), "e1"),
        (body(event_id=["e1"], action=ROUTED), None),
    ],
)
def test_what_has_not_the_form_says_so(given_body: bytes, event_id: str | None) -> None:
    assert read_outcome(given_body) == EventOutcome(event_id, UNREADABLE, UNREADABLE)


@given(st.binary(max_size=100) | st.text().map(lambda text: body(event_id=text, action=ROUTED)))
def test_no_body_makes_the_reading_fail(given_body: bytes) -> None:
    outcome = read_outcome(given_body)
    assert outcome.event_id is None or 0 < len(outcome.event_id) <= 255
