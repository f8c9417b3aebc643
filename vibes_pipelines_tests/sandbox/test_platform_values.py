"""How custom field values are written and shown, by field type."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from vibes_pipelines.sandbox.platform import CustomField, Value
from vibes_pipelines.sandbox.platform_mdn import (
    ApiVersion,
    parse_import_mdn,
    parse_mdn,
    render_mdn,
)
from vibes_pipelines.sandbox.platform_refusals import MalformedMdnError
from vibes_pipelines.sandbox.platform_values import (
    CharsetError,
    InvalidValueError,
    read_json,
    read_text,
    show_json,
)
from vibes_pipelines_tests.sandbox.stand_in import FIELDS

BY_NAME = {field.name: field for field in FIELDS}
BORN = datetime(1990, 12, 1, tzinfo=UTC)
AGES_AGO = datetime(1, 1, 1, tzinfo=UTC)
GOLF = {"id": "1", "name": "Golf", "option_key": "golf"}
MUSIC = {"id": "3", "name": "Music", "option_key": "music"}


@pytest.mark.parametrize(
    ("name", "written", "value", "shown"),
    [
        ("first_name", "Zoë", "Zoë", "Zoë"),
        ("first_name", None, None, None),
        ("birthdate", "1990-12-01T00:00:00Z", BORN, "1990-12-01T00:00:00Z"),
        ("birthdate", "0001-01-01T00:00:00Z", AGES_AGO, "0001-01-01T00:00:00Z"),
        ("score", 12, Decimal(12), "12"),
        ("score", Decimal("-0.00001"), Decimal(0), "0"),
        ("score", Decimal("12.5"), Decimal("12.5"), "12.5"),
        ("score", "-0.50000", Decimal("-0.5"), "-0.5"),
        ("score", Decimal("1.00005"), Decimal("1.0001"), "1.0001"),
        ("score", 100, Decimal(100), "100"),
        ("tier", "gold", "gold", {"id": "1", "name": "Gold", "option_key": "gold"}),
        ("interests", ["music", "golf", "golf"], ("golf", "music"), [GOLF, MUSIC]),
        ("interests", [], (), []),
        ("interests", None, None, []),
        ("zip_code", "60601-1234", "60601-1234", "60601-1234"),
    ],
)
def test_json_values(name: str, written: object, value: Value, shown: object) -> None:
    field = BY_NAME[name]
    assert read_json(field, written) == value
    assert show_json(field, read_json(field, written)) == shown


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("first_name", 7),
        ("birthdate", "1990-12-01"),
        ("birthdate", "1990-12-01T00:00:00+0000"),
        ("birthdate", "1990-02-30T00:00:00Z"),
        ("birthdate", 0),
        ("score", "twelve"),
        ("score", "1,5"),
        ("score", "1e3"),
        ("score", True),
        ("score", 10**14),
        ("tier", "Gold"),
        ("tier", ""),
        ("tier", {"option_key": "gold"}),
        ("interests", "golf"),
        ("interests", ["golf", "Music"]),
        ("zip_code", "60601_"),
        ("zip_code", 60601),
    ],
)
def test_refused_json_values(name: str, written: object) -> None:
    with pytest.raises(InvalidValueError):
        read_json(BY_NAME[name], written)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("birthdate", "1990-12-01T02:00:00+0200", BORN),
        ("birthdate", "1990-11-30T18:00:00-0600", BORN),
        ("birthdate", "1990-12-01T00:00:00Z", BORN),
        ("interests", "tennis|golf", ("golf", "tennis")),
        ("score", "12.0000", Decimal(12)),
        ("first_name", "[null]", "[null]"),
    ],
)
def test_text_values(name: str, text: str, value: Value) -> None:
    assert read_text(BY_NAME[name], text, "|") == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("interests", "golf|"), ("interests", "golf;tennis"), ("tier", "[null]"), ("score", "[null]")],
)
def test_refused_text_values(name: str, text: str) -> None:
    with pytest.raises(InvalidValueError):
        read_text(BY_NAME[name], text, "|")


def test_a_string_field_may_be_limited_to_ascii() -> None:
    with pytest.raises(CharsetError):
        read_json(CustomField("nickname", "string", charset="ascii"), "Zoë")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("+13125550142", 1),
        ("13125550142", 1),
        ("1125550142", 1),
        ("3125550142", 2),
        (" 13125550142", 2),
        ("+1312555014", 2),
        ("+11125550142", 2),
        ("+0312555014299", 2),
    ],
)
def test_an_mdn_in_the_other_versions_form_is_refused(text: str, version: ApiVersion) -> None:
    with pytest.raises(MalformedMdnError):
        parse_mdn(text, version)


def test_version_1_speaks_national_digits_and_knows_no_other_country() -> None:
    assert parse_mdn("3125550142", 1) == parse_mdn("+13125550142", 2) == "+13125550142"
    assert render_mdn("+13125550142", 1) == "3125550142"
    assert render_mdn("+442079460018", 1) is None
    assert render_mdn("+442079460018", 2) == "+442079460018"


def test_imports_take_ten_us_digits_or_e164() -> None:
    assert parse_import_mdn("3125550142") == parse_import_mdn("+13125550142") == "+13125550142"
    with pytest.raises(MalformedMdnError):
        parse_import_mdn("(312) 555-0142")
