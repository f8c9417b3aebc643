"""Callbacks at the edges: the shortest, the longest and the oddest that is still read."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from vibes_pipelines.vibes.callbacks import (
    Callback,
    CallbackError,
    DoubtfulCallback,
    read_callback,
    read_instant,
)
from vibes_pipelines_tests.support.callbacks import ADDED, REMOVED, as_bytes, subscription_body

AT = "2024-03-15T15:42:23Z"
INSTANT = datetime(2024, 3, 15, 15, 42, 23, tzinfo=UTC)


def removal(**changes: Any) -> dict[str, Any]:
    body = subscription_body(REMOVED, "EV2", AT, external_person_id="CRM-1", person_key="k1")
    return body | changes


def read(body: dict[str, Any]) -> Callback:
    return read_callback(as_bytes(body))


def of_person(**person: object) -> Callback:
    body = removal()
    body["subscription"]["person"] = {"external_person_id": "CRM-1"} | person
    return read(body)


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own zone is another than UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_without_an_offset_is_utc_wherever_it_is_read(far_from_utc: None) -> None:
    assert read_instant("2024-03-15T15:42:23") == INSTANT
    assert read_instant("2024-03-15") == datetime(2024, 3, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-15T17:42:23+02", INSTANT),
        ("2024-03-15T17:42:23+0200", INSTANT),
        ("2024-03-15T15:42:23.5Z", INSTANT.replace(microsecond=500_000)),
        ("2024-03-15T15:42:23.123456789Z", INSTANT.replace(microsecond=123_456)),
        ("2024-03-15t15:42:23z", INSTANT),
        ("2024-03-15 15:42:23 utc", INSTANT),
        ("2024-03-15T15:42:23Z or later", None),
        ("on 2024-03-15T15:42:23Z", None),
        ("\u0662\u0660\u0662\u0664-03-15", None),
    ],
)
def test_a_time_is_read_whole_or_not_at_all(text: str, instant: datetime | None) -> None:
    assert read_instant(text) == instant


@pytest.mark.parametrize("event_type", ["subscription_list_added", "subscription_list_updated"])
def test_an_event_about_a_list_names_the_list(event_type: str) -> None:
    url = "/companies/A1b2C3/mobiledb/subscription_lists/7"
    callback = read({"callback_type": event_type, "subscription_list": {"id": 7, "url": url}})
    assert (callback.list, callback.company_key) == ("7", "A1b2C3")


@pytest.mark.parametrize("key", ["callback_id", "callback:id", "delivery_attempt"])
def test_what_belongs_to_a_delivery_is_no_content(key: str) -> None:
    assert read(removal() | {key: "A"}).content_hash == read(removal() | {key: "B"}).content_hash


def test_a_malformed_list_is_told_with_its_place() -> None:
    body = removal()
    body["subscription"]["subscription_list"]["id"] = ["1234"]
    with pytest.raises(CallbackError, match=r"^subscription\.subscription_list\.id is neither"):
        read(body)


def test_the_shortest_type_is_a_type() -> None:
    assert read({"callback_type": "x"}).event_type == "x"


@pytest.mark.parametrize(
    ("mdn", "expected"),
    [
        ("+1234567", "+1234567"),
        ("+123456789012345", "+123456789012345"),
        ("+123456", None),
        ("+1234567890123456", None),
        ("+0234567", None),
        ("2125550142", "+12125550142"),
        ("1125550142", None),
        ("212555014", None),
        ("21255501422", None),
    ],
)
def test_a_number_is_e164_or_ten_digits_of_country_code_1(mdn: str, expected: str | None) -> None:
    assert of_person(mobile_phone={"mdn": mdn}).mdn == expected
    assert of_person(mdn=mdn).mdn == expected


@pytest.mark.parametrize(
    ("url", "company_key"),
    [
        ("/companies/A1b2C3/mobiledb/subscription_lists/7", "A1b2C3"),
        ("/companies//mobiledb/subscription_lists/7", None),
        ("/companies/" + "a" * 300 + "/", "a" * 255),
        (["/companies/A1b2C3/"], None),
        (None, None),
    ],
)
def test_an_address_names_a_company_or_none(url: object, company_key: str | None) -> None:
    body = removal()
    body["subscription"]["subscription_list"]["url"] = url
    assert read(body).company_key == company_key


def test_an_identifier_may_have_255_characters_and_blanks_around_it() -> None:
    assert read(removal(event_id=f" {'x' * 255} ")).event_id == "x" * 255
    assert read(removal(event_id="  ")).event_id is None
    with pytest.raises(CallbackError, match=r"person_key is longer than 255 characters$"):
        of_person(external_person_id=None, person_key="x" * 256)


@pytest.mark.parametrize(
    ("given", "reason"),
    [(" Carrier_Removed ", "carrier_removed"), ("", None), (" ", None), (5, None), (None, None)],
)
def test_a_reason_that_is_no_text_is_none(given: object, reason: str | None) -> None:
    body = removal()
    body["subscription"]["opt_out_reason"] = given
    assert read(body).opt_out_reason == reason


def test_a_long_reason_is_cut() -> None:
    body = removal()
    body["subscription"]["opt_out_reason"] = "x" * 300
    assert read(body).opt_out_reason == "x" * 255


def test_an_empty_text_does_not_open_the_next_one() -> None:
    body = removal(note="", remark="see http://x.example/ ,] or ,}")
    with_slips = as_bytes(body)[:-1] + b", } // end"
    assert read_callback(with_slips) == read(body)


def test_person_keys_are_of_no_case_and_other_ids_of_theirs() -> None:
    callback = of_person(person_key="K1", external_person_id="Crm-1")
    assert (callback.person_key, callback.external_person_id) == ("k1", "Crm-1")


def test_the_old_and_the_new_name_of_the_external_id_may_both_stand() -> None:
    assert of_person(external_person_id="A", external_id="A").external_person_id == "A"
    assert of_person(external_person_id=None, external_id="A").external_person_id == "A"


@pytest.mark.parametrize("old", [REMOVED, "Subscription_Removed"])
@pytest.mark.parametrize("today", [ADDED, "person_updated", "coupon_eaten"])
def test_a_removal_by_its_old_type_alone_is_kept_as_one_in_doubt(today: str, old: str) -> None:
    with pytest.raises(DoubtfulCallback, match="callback_type and event_type differ") as doubtful:
        read(removal(callback_type=today, event_type=old))
    assert doubtful.value.callback.event_type == REMOVED
    assert doubtful.value.callback.event_at == INSTANT


def test_a_removal_stands_whatever_its_old_type_says() -> None:
    assert read(removal(event_type=ADDED)).event_type == REMOVED


@pytest.mark.parametrize(
    "identifier",
    [
        {"external_person_id": "C1"},
        {"person_key": "k"},
        {"person_id": "P"},
        {"mdn": "+13125550142"},
    ],
)
def test_one_identifier_is_enough_for_a_subscription(identifier: dict[str, str]) -> None:
    body = removal()
    body["subscription"]["person"] = identifier
    assert read(body).event_type == REMOVED
