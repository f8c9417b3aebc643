"""What callbacks say beyond whom they are about, in the bodies of the documentation."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.vibes.callback_facts import (
    Fact,
    asks_to_stop,
    fact_of,
    person_state,
    told_opt_out,
)
from vibes_pipelines.vibes.callbacks import SHAPES, CallbackError

DEVICE = {"push_device": {"app_id": "APP1", "vibes_device_id": "d1", "device_os": "IOS"}}
WALLET = {
    "wallet_item": {"uuid": "item-1", "tokens": {"member": " C1 "}},
    "wallet_campaign": {"token": "r3zhm8"},
}
PARTICIPANT = {"participant": {"acquisition_campaign": {"id": "777"}, "status": "CONFIRMED"}}
LISTED = {"subscription": {"subscription_list": {"id": 1234}}}
EVENT = {
    "event_processed": {
        "event_id": "order-1",
        "event_data": {"external_person_id": "C1"},
        "action": {"type": "routing", "status": "processing"},
    }
}


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("kind", "document", "fact"),
    [
        ("subscription_added", LISTED, Fact("subscription", "1234", "subscribed")),
        ("subscription_removed", LISTED, Fact("subscription", "1234", "unsubscribed")),
        ("device_added", DEVICE, Fact("device", "APP1/d1", "active")),
        ("device_updated", DEVICE, Fact("device", "APP1/d1", "active")),
        ("device_removed", DEVICE, Fact("device", "APP1/d1", "removed")),
        (
            "wallet_item_install",
            WALLET,
            Fact("wallet_item", "r3zhm8/item-1", "installed", "item-1"),
        ),
        ("wallet_item_remove", WALLET, Fact("wallet_item", "r3zhm8/item-1", "removed", "item-1")),
        ("ack_participant_changed", PARTICIPANT, Fact("participation", "777", "confirmed")),
        ("event_processed", EVENT, Fact("event", "order-1", "routing processing", "C1")),
        ("person_updated", {"person": {}}, None),
        ("coupon_eaten", {}, None),
    ],
)
def test_each_type_states_its_fact(kind: str, document: Any, fact: Fact | None) -> None:
    assert fact_of(kind, body(document)) == fact


def test_a_token_of_a_wallet_item_may_name_the_contact() -> None:
    named = fact_of("wallet_item_install", body(WALLET), "member")
    assert named is not None
    assert named.contact == "C1"
    nobody = fact_of("wallet_item_install", body(WALLET), "card")
    assert nobody is not None
    assert nobody.contact is None


@pytest.mark.parametrize("kind", ["device_added", "wallet_item_install", "ack_participant_added"])
def test_what_is_missing_is_named_by_its_place(kind: str) -> None:
    with pytest.raises(CallbackError, match=r"^[a-z_.]+ is missing$"):
        fact_of(kind, b"{}")


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["person", "custom_fields", "push_device", "wallet_item", "participant", "message"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(SHAPES)), document=st.dictionaries(st.text(), documents))
def test_any_object_is_either_read_or_refused(kind: str, document: Any) -> None:
    for read in (lambda text: fact_of(kind, text), person_state, told_opt_out):
        with suppress(CallbackError):
            read(body(document))


def test_fields_are_read_as_text_with_the_keys_of_options() -> None:
    custom = {
        "first_name": "Ada",
        "score": 516.5,
        "tier": {"option_key": "gold", "option_display": "Gold"},
        "interests": [{"option_key": "golf"}, {"option_key": "music"}],
        "zip_code": "",
        "birthdate": None,
    }
    assert person_state(body({"person": {"custom_fields": custom}})) == {
        "first_name": "Ada",
        "score": "516.5",
        "tier": "gold",
        "interests": "golf|music",
        "zip_code": None,
        "birthdate": None,
    }


@pytest.mark.parametrize(
    "value",
    [
        {"id": "1", "name": "Gold"},  # the documentation's older form
        {"id": "1", "name": "Gold", "option_key": None},
        [{"option_key": "golf"}, {"id": "3", "name": "Music"}],
        [None],
    ],
)
def test_an_option_without_its_key_is_not_an_empty_field(value: Any) -> None:
    custom = {"tier": value, "first_name": "Ada", "interests": []}
    told = person_state(body({"person": {"custom_fields": custom}}))
    assert told == {"first_name": "Ada", "interests": None}


def test_a_text_that_was_cut_in_the_middle_of_a_character_can_be_written() -> None:
    cut = {"first_name": "Ada \ud83d", "interests": [{"option_key": "golf\ude00"}]}
    assert person_state(body({"person": {"custom_fields": cut}})) == {
        "first_name": "Ada \ufffd",
        "interests": "golf\ufffd",
    }
    fact = fact_of("event_processed", body({"event_processed": {"event_id": "order \ud83d"}}))
    assert fact == Fact("event", "order \ufffd", "unknown")


@pytest.mark.parametrize(
    ("date", "read"),
    [
        ("2024-02-01T00:00:00+0100", datetime(2024, 1, 31, 23, tzinfo=UTC)),
        ("soon", None),
        (5, None),
        (None, None),
    ],
)
def test_an_opt_out_date_is_told_where_it_can_be_read(date: object, read: datetime | None) -> None:
    assert told_opt_out(body({"subscription": {"opt_out_date": date}})) == read
    assert told_opt_out(body({"subscription": date})) is None


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["stop", "opt out", "fin"]), min_size=1))
def test_a_word_counts_whatever_its_case_and_signs_but_never_inside_another(
    words: list[str],
) -> None:
    for word in words:
        for message in (word, word.upper(), f"please, {word}!", word.replace(" ", "-")):
            assert asks_to_stop(body({"message": message}), words)
        assert not asks_to_stop(body({"message": f"x{word}x"}), [word])
