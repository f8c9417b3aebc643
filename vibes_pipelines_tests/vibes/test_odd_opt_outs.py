"""An opt-out with one odd text is still an opt-out: of whom it tells readably, and of nobody else.

What nobody may act on keeps what could be read of it: that stops invitations.
"""

from typing import Any

import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.vibes.callbacks import Callback, DoubtfulCallback, read_callback
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body

AT = "2024-03-15T15:42:23Z"
MDN = "+13125550142"
UNMATCHED = "unmatched_message_received"


def told(kind: str = REMOVED, **person: Any) -> dict[str, Any]:
    """A body whose person has these facts; `None` takes one away."""
    named = {"external_person_id": "C1", "person_key": "k1", "id": "P1"}
    body = subscription_body(kind, "EV1", AT, **named, mdn=MDN)
    facts = body["subscription"]["person"] | person
    kept = {key: value for key, value in facts.items() if value is not None}
    body["subscription"]["person"] = kept
    return body


def read(body: dict[str, Any]) -> Callback:
    return read_callback(as_bytes(body))


def names(callback: Callback) -> tuple[str | None, ...]:
    who = callback.external_person_id, callback.person_key, callback.person_id, callback.mdn
    return callback.event_type, callback.list, *who


def test_blanks_that_no_identifier_has_say_nothing_of_lists_and_numbers() -> None:
    body = told(mobile_phone={"mdn": f"{MDN}\u3000"})
    body["subscription"]["subscription_list"]["id"] = "1234\u2003"
    assert names(read(body)) == (REMOVED, "1234", "C1", "k1", "P1", MDN)


def external(value: object) -> dict[str, object]:
    return {"external_person_id": value, "external_id": value}


@pytest.mark.parametrize(
    ("odd", "who"),
    [
        (external("C\u0000"), (None, "k1", "P1", MDN)),
        (external("x" * 256), (None, "k1", "P1", MDN)),
        (external(1.5), (None, "k1", "P1", MDN)),
        ({"external_id": "C2"}, (None, "k1", "P1", MDN)),
        ({"person_key": ["k1"]}, ("C1", None, "P1", MDN)),
        ({"id": 12.0}, ("C1", "k1", None, MDN)),
        ({"mobile_phone": {"mdn": {"mdn": MDN}}}, ("C1", "k1", "P1", None)),
        ({**external(None), "person_key": None, "id": 12.0}, (None, None, None, MDN)),
    ],
)
def test_one_readable_name_of_its_person_is_enough(
    odd: dict[str, object], who: tuple[str | None, ...]
) -> None:
    assert names(read(told(**odd))) == (REMOVED, "1234", *who)


@pytest.mark.parametrize(
    "key", ["C\u00a01", "C\u30001", "C\u00ad1", "C\ue0001", "\U0001f469\u200d\U0001f4bb"]
)
def test_a_key_of_which_not_every_character_is_seen_is_read(key: str) -> None:
    assert read(told(**external(key))).external_person_id == key


@pytest.mark.parametrize(
    ("spelled", "key"),
    [
        ("C1\u3000", "C1\u3000"),
        ("\u2003C1", "\u2003C1"),
        ("\ufeff C1\u00a0", "C1"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("\u3000", "\u3000"),
    ],
)
def test_a_key_is_the_one_that_the_reconcile_reads(spelled: str, key: str) -> None:
    assert read(told(**external(spelled))).external_person_id == key


@pytest.mark.parametrize("kind", [REMOVED, ADDED])
@pytest.mark.parametrize("event_id", ["e" * 256, True, "a\x00b", 1.5, ["EV1"]])
def test_an_event_id_that_cannot_be_read_is_none(kind: str, event_id: object) -> None:
    callback = read(told(kind) | {"event_id": event_id})
    assert (callback.event_id, callback.external_person_id) == (None, "C1")


def test_a_type_that_cannot_be_read_gives_way_to_its_old_name() -> None:
    assert read(told() | {"callback_type": ["x"]}).event_type == REMOVED


@pytest.mark.parametrize(
    ("body", "who"),
    [
        # By its number alone it may be somebody else's: the body names its person otherwise.
        (told(**external(1.5), person_key=None), (REMOVED, "1234", None, None, "P1", MDN)),
        (told(**external(None), person_key="\x00"), (REMOVED, "1234", None, None, "P1", MDN)),
        # An opt-in that is not surely of its person must not speak against an opt-out.
        (told(ADDED, person_key=["k"]), (ADDED, "1234", "C1", None, "P1", MDN)),
        (told(ADDED, id=12.0), (ADDED, "1234", "C1", "k1", None, MDN)),
    ],
)
def test_what_nobody_may_act_on_keeps_what_could_be_read(
    body: dict[str, Any], who: tuple[str | None, ...]
) -> None:
    with pytest.raises(DoubtfulCallback) as raised:
        read(body)
    assert names(raised.value.callback) == who


def test_an_opt_out_whose_list_cannot_be_read_keeps_its_person() -> None:
    body = told()
    body["subscription"]["subscription_list"]["id"] = ["1234"]
    with pytest.raises(DoubtfulCallback, match=r"^subscription\.subscription_list\.id") as raised:
        read(body)
    assert names(raised.value.callback) == (REMOVED, None, "C1", "k1", "P1", MDN)


def test_a_text_needs_one_readable_name_too() -> None:
    participant = {"person": {"id": 1.5, "external_person_id": "\x00", "person_key": "k1"}}
    body = {"callback_type": UNMATCHED, "participant": participant, "message": "stop"}
    assert read(body).person_key == "k1"


def test_what_is_parked_is_not_the_first_of_its_event_id() -> None:
    body = as_bytes(told(ADDED, person_key=["k"]))
    arrival = read_arrival(posted("127.0.0.1", "/", body))
    assert arrival.parked == "subscription.person.person_key is neither a text nor a whole number"
    assert (arrival.event_id, arrival.external_person_id) == (None, "C1")
