"""Callback bodies, of today and of old, become one typed event, or an error without values."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.vibes.callbacks import (
    SHAPES,
    Callback,
    CallbackError,
    read_callback,
    read_instant,
)
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body

AT = "2024-03-15T15:42:23Z"
INSTANT = datetime(2024, 3, 15, 15, 42, 23, tzinfo=UTC)
KEY = "0b6c5e0e-3f0a-4a52-9a44-5f0a1c9d7e11"
CANARY = "Xylophonius"

# The form of the documentation's own old sample: comments, and a first key without its colon.
MALFORMED_SAMPLE = b"""{ "callback:id","AAA111",
  "event_id":"EV1", "callback_type":"subscription_added",
  "event_type":"subscription_added", //deprecated
  "event_date":"2017-02-15T15:42:23Z", "delivery_attempt":"1",
  "subscription":{ "person":{ "id":"P1", "external_id":"ex1",
    "url":"/companies/:company_key/mobiledb/persons/P1" },
  "subscription_list":{ "id":"1234",
    "url":"/companies/:company_key/mobiledb/subscription_lists/1234" },
  "opt_in_date":"2017-01-15T15:34:52Z",
  "acquisition_campaign":{ "id":"77", "url":"/companies/:company_key/campaigns/acquisition/77" },
  "url":"/companies/:company_key/mobiledb/persons/P1/subscriptions/1234", } }"""


def read(body: dict[str, Any]) -> Callback:
    return read_callback(as_bytes(body))


def removal(**changes: Any) -> dict[str, Any]:
    body = subscription_body(
        REMOVED, "EV2", AT, external_person_id="CRM-1", person_key=KEY, mdn="+13125550142", id="P1"
    )
    return body | changes


class TestSubscriptions:
    def test_a_body_of_today_says_who_what_and_when(self) -> None:
        callback = read(removal())
        assert callback == Callback(
            event_type=REMOVED,
            raw_type=REMOVED,
            event_id="EV2",
            event_at=INSTANT,
            content_hash=callback.content_hash,
            company_key="A1b2C3",
            list="1234",
            external_person_id="CRM-1",
            person_key=KEY,
            person_id="P1",
            mdn="+13125550142",
            opt_out_reason="user_opt_out",
        )

    def test_the_malformed_sample_of_the_documentation_is_read(self) -> None:
        callback = read_callback(MALFORMED_SAMPLE)
        assert (callback.event_type, callback.event_id, callback.list) == (ADDED, "EV1", "1234")
        assert (callback.external_person_id, callback.person_id) == ("ex1", "P1")
        assert callback.event_at == datetime(2017, 1, 15, 15, 34, 52, tzinfo=UTC)
        assert callback.company_key is None  # a placeholder names no company

    def test_the_sample_on_one_line_is_read_alike(self) -> None:
        line = MALFORMED_SAMPLE.replace(b"\n", b" ")
        assert read_callback(line) == read_callback(MALFORMED_SAMPLE)

    def test_slashes_and_commas_inside_a_text_are_left_alone(self) -> None:
        body = removal(note='see http://x.example/,}" //deprecated')
        broken = as_bytes(body)[:-1] + b",}"
        assert read_callback(broken) == read(body)

    def test_the_old_names_of_the_type_and_of_the_external_id_are_known(self) -> None:
        old = removal()
        del old["callback_type"], old["subscription"]["person"]["external_person_id"]
        callback = read(old)
        assert (callback.event_type, callback.external_person_id) == (REMOVED, "CRM-1")

    def test_version_1_shows_national_digits(self) -> None:
        body = removal()
        body["subscription"]["person"]["mobile_phone"]["mdn"] = "3125550142"
        assert read(body).mdn == "+13125550142"
        body["subscription"]["person"]["mobile_phone"]["mdn"] = "12345"
        assert read(body).mdn is None

    def test_ids_may_be_numbers_and_types_and_reasons_in_capitals(self) -> None:
        body = removal(callback_type="Subscription_Removed", event_id=11887)
        body["subscription"]["subscription_list"]["id"] = 1234
        body["subscription"]["opt_out_reason"] = "USER_OPT_OUT"
        callback = read(body)
        assert (callback.event_id, callback.list) == ("11887", "1234")
        assert (callback.event_type, callback.raw_type) == (REMOVED, "Subscription_Removed")
        assert callback.opt_out_reason == "user_opt_out"

    def test_its_own_date_says_when_it_happened(self) -> None:
        body = removal(event_date="2024-03-20T00:00:00Z")
        assert read(body).event_at == INSTANT

    @pytest.mark.parametrize("date", ["2024-03-15", "2024-03-15T15:42Z", "soon", None, 5])
    def test_a_coarse_or_unreadable_date_gives_way_to_the_event_date(self, date: object) -> None:
        body = removal()
        body["subscription"]["opt_out_date"] = date
        assert read(body).event_at == INSTANT

    @pytest.mark.parametrize("date", ["2024-03-15", "2024-03-15T15:42Z"])
    def test_a_coarse_date_alone_dates_what_is_no_opt_out(self, date: str) -> None:
        """First in its minute or day: an opt-out would pass for older than it is."""
        ended = removal(event_date=date)
        ended["subscription"]["opt_out_date"] = date
        assert read(ended).event_at is None
        texted = {"callback_type": "unmatched_message_received", "event_date": date}
        assert read(texted).event_at is None
        begun = removal(callback_type=ADDED, event_type=ADDED, event_date="soon")
        begun["subscription"]["opt_in_date"] = date
        assert read(begun).event_at == read_instant(date)

    def test_without_a_readable_time_it_is_read_all_the_same(self) -> None:
        body = removal(event_date="soon")
        del body["subscription"]["opt_out_date"]
        assert read(body).event_at is None

    def test_an_identifier_with_half_a_character_is_none(self) -> None:
        body = removal()
        body["subscription"]["person"]["person_key"] = "k\ud83d"
        callback = read(body)
        assert (callback.person_key, callback.external_person_id) == (None, "CRM-1")

    def test_unknown_keys_change_nothing(self) -> None:
        body = removal()
        body["subscription"]["person"]["loyalty"] = {"level": 3}
        callback = read(body | {"new": [1, {"x": None}]})
        assert (callback.external_person_id, callback.list) == ("CRM-1", "1234")


class TestEveryType:
    @pytest.mark.parametrize("event_type", sorted(SHAPES))
    def test_a_type_is_read_from_either_key(self, event_type: str) -> None:
        body = removal(
            person={"person_id": "P1"},
            participant={"person": {"id": "P1"}},
            subscription_list={"id": 7, "name": "News"},
        )
        named = body | {"callback_type": event_type, "event_type": event_type}
        older = {k: v for k, v in named.items() if k != "callback_type"}
        assert read(named).event_type == read(older).event_type == event_type

    def test_a_type_that_nobody_documented_is_read_as_far_as_the_envelope_goes(self) -> None:
        callback = read({"callback_type": "coupon_eaten", "event_id": "E", "event_date": AT})
        assert (callback.event_type, callback.event_at) == ("coupon_eaten", INSTANT)

    def test_a_person_a_participant_and_an_unmatched_text_name_their_person(self) -> None:
        person = {"person_id": "P1", "external_person_id": "C1", "mobile_phone": {"mdn": None}}
        updated = read({"callback_type": "person_updated", "person": person})
        assert (updated.person_id, updated.external_person_id, updated.mdn) == ("P1", "C1", None)

        participant = {"person": {"id": "P2", "mobile_phone": {"mdn": "+13125550142"}}}
        pending = read({"callback_type": "ack_participant_added", "participant": participant})
        assert (pending.person_id, pending.mdn) == ("P2", "+13125550142")

        unmatched = {"participant": {"id": "9", "mdn": "+13125550142"}, "message": "hi"}
        text = read({"callback_type": "unmatched_message_received", **unmatched})
        assert (text.person_id, text.mdn) == (None, "+13125550142")


class TestContent:
    def test_deliveries_of_an_event_have_one_content(self) -> None:
        first = removal(delivery_attempt="1", callback_id="A")
        again = dict(reversed((first | {"delivery_attempt": "2", "callback_id": 17}).items()))
        assert read(first).content_hash == read(again).content_hash
        assert read(first).content_hash == read(removal()).content_hash

    def test_any_other_difference_is_other_content(self) -> None:
        assert read(removal()).content_hash != read(removal(event_date=None)).content_hash


def without(path: str) -> dict[str, Any]:
    body = removal()
    *parents, last = path.split(".")
    record = body
    for parent in parents:
        record = record[parent]
    del record[last]
    return body


def with_person(**person: object) -> dict[str, Any]:
    body = removal()
    body["subscription"]["person"] = person
    return body


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b"", "not JSON: line 1, column 1"),
            (b"\xff\xfe\x00", "not text in UTF-8"),
            (b"[1]", "not an object"),
            (b'"text"', "not an object"),
            (b"[" * 200_000, "nested too deeply"),
            (b'{"a": ' + b"9" * 5_000 + b"}", "a number is too long"),
            (b"{}", "neither callback_type nor event_type"),
            (as_bytes({"callback_type": ["x"]}), "callback_type is neither a text"),
            (
                as_bytes(removal(callback_type=1, event_type=1)),
                "callback_type is not the name of a type",
            ),
            (as_bytes({"callback_type": f"{CANARY} it"}), "callback_type is not the name"),
            (as_bytes(with_person(person_key="x" * 256)), "person_key is longer than 255"),
            (as_bytes(with_person(person_key="a\x00b")), "person_key holds a character"),
            (as_bytes(with_person(person_key="\ud800")), "person_key holds a character"),
            (as_bytes(with_person(person_key=True)), "person_key is neither a text"),
            (as_bytes(without("subscription")), "subscription.subscription_list.id is missing"),
            (as_bytes(without("subscription.subscription_list")), "list.id is missing"),
            (as_bytes(without("subscription.person")), "subscription.person has no identifier"),
            (as_bytes(with_person(name=CANARY)), "subscription.person has no identifier"),
            (
                as_bytes(with_person(external_id="A", external_person_id="B")),
                "subscription.person: external_person_id and external_id differ",
            ),
            (as_bytes(with_person(person_key=[CANARY])), "subscription.person.person_key is"),
        ],
    )
    def test_it_names_the_place(self, body: bytes, told: str) -> None:
        with pytest.raises(CallbackError, match=told) as raised:
            read_callback(body)
        assert CANARY not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__ or raised.value.__context__ is None

    @given(st.binary(max_size=300))
    def test_any_bytes_are_read_or_refused(self, body: bytes) -> None:
        with suppress(CallbackError):
            assert read_callback(body).event_type

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(
                        ["subscription", "person", "mobile_phone", "mdn", "id", "event_date"]
                    ),
                    inner,
                )
            ),
        ),
        st.sampled_from(sorted(SHAPES)),
    )
    def test_any_json_under_a_known_type_is_read_or_refused(
        self, value: object, event_type: str
    ) -> None:
        keys = ("subscription", "person", "participant", "event_id", "event_date")
        body = json.dumps({"callback_type": event_type} | dict.fromkeys(keys, value))
        try:
            callback = read_callback(body.encode())
        except CallbackError:
            return
        assert callback.event_type == event_type

    def test_a_long_run_of_quotes_is_refused_at_once(self) -> None:
        with pytest.raises(CallbackError):
            read_callback(b"{" + b'"\\' * 500_000)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-15T15:42:23Z", INSTANT),
        ("2024-03-15T15:42:23+0000", INSTANT),
        ("2024-03-15T15:42:23.000Z", INSTANT),
        ("2024-03-15T15:42:23.000000000Z", INSTANT),
        ("2024-03-15T16:42:23+01:00", INSTANT),
        ("2024-03-15 09:42:23 -0600", INSTANT),
        ("2024-03-15 15:42:23 UTC", INSTANT),
        ("2024-03-15T15:42:23", INSTANT),
        ("2024-03-15T15:42Z", INSTANT.replace(second=0)),
        ("2024-03-15", INSTANT.replace(hour=0, minute=0, second=0)),
        (" 2024-03-15T15:42:23Z ", INSTANT),
        ("2024-02-30T00:00:00Z", None),
        ("2024-03-15T25:00:00Z", None),
        ("0001-01-01T00:00:00+0100", None),
        ("1710517343", None),
        ("", None),
    ],
)
def test_every_spelling_of_a_time_is_one_instant(text: str, instant: datetime | None) -> None:
    assert read_instant(text) == instant


@given(st.text())
def test_any_text_is_an_instant_or_none(text: str) -> None:
    found = read_instant(text)
    assert found is None or found.tzinfo is UTC
