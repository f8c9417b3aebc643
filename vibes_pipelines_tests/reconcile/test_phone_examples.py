"""MDNs by example: what each text is, said by the rule and, where it answers, by the short cut."""

from collections.abc import Iterator

import duckdb
import phonenumbers
import pytest

from vibes_pipelines.reconcile import numbering
from vibes_pipelines.reconcile.home_numbers import numbered, quick_number, without_punctuation
from vibes_pipelines.reconcile.numbering import (
    country_code,
    full_nanp_blocks,
    home_plan,
    is_in_full_block,
    nanp_number,
    plan_of_code,
)
from vibes_pipelines.reconcile.phone import (
    e164_number,
    is_e164_text,
    judge,
    odd_number,
    to_e164,
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connected = duckdb.connect()
    yield connected
    connected.close()


def said(connection, sql, text):
    """What SQL over the text `t` says."""
    [(value,)] = connection.execute(
        f"SELECT {sql} FROM (SELECT ?::VARCHAR AS t)", [text]
    ).fetchall()
    return value


def quickly(connection, text, region):
    rows = connection.execute(
        f"WITH cell AS (SELECT ?::VARCHAR AS phone), {numbered('cell', 'phone', region)}"
        " SELECT mdn FROM numbered",
        [text],
    ).fetchall()
    assert rows == [(said(connection, quick_number("t", region), text),)]
    return rows[0][0]


@pytest.mark.parametrize(
    ("text", "region", "verdict"),
    [
        ("n/a", "US", "not_a_number"),
        ("1", "US", "not_a_number"),
        ("", "US", "not_a_number"),
        ("312 555 0142 x5", "US", "extension"),
        ("070-123 45 67", "ZZ", "unknown_country"),
        ("+999 12345678", "US", "unknown_country"),
        ("911", "US", "short_code"),
        ("0111", "US", "too_short"),
        ("+46 1", "US", "too_short"),
        ("12", "US", "too_short"),
        ("+46 70 1234567890123456", "US", "too_long"),
        ("+1 312 555 01422", "US", "too_long"),
        ("555 0142", "US", "no_area_code"),
        ("+359 4301234555", "US", "wrong_length"),
        ("012 555 0142", "US", "unassigned"),
        ("+246 311 1234", "US", "unassigned"),
        ("020 7946 0958", "GB", "landline"),
        ("+39 06 1234 5678", "US", "landline"),
        ("+852 2123 4567", "US", "landline"),
    ],
)
def test_what_is_no_mdn_is_told_why(connection, text, region, verdict):
    assert str(judge(text, region)) == verdict
    assert to_e164(text, region) is None
    assert quickly(connection, text, region) is None


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("(312) 555-0142", "US", 13125550142),
        ("312-555-0142", "US", 13125550142),
        ("312.555.0142", "US", 13125550142),
        ("3125550142", "US", 13125550142),
        ("+13125550142", "US", 13125550142),
        ("1-312-555-0142", "US", 13125550142),
        ("1 (312) 555 0142", "CA", 13125550142),
        ("+1 (312) 555.0142", "US", 13125550142),
        ("800 555 0199", "US", 18005550199),
        ("242 357 1234", "US", 12423571234),
        ("070-123 45 67", "SE", 46701234567),
        ("46701234567", "SE", 46701234567),
        ("0046 70 123 45 67", "SE", 46701234567),
        ("+46 (0)70/123 45 67", "SE", 46701234567),
        ("312 345 6789", "IT", 393123456789),
        ("+39 312 345 6789", "IT", 393123456789),
        ("8 (912) 345-67-89", "RU", 79123456789),
        ("8 771 000 9998", "RU", 77710009998),
        ("07400 123456", "GB", 447400123456),
        ("00447400123456", "GB", 447400123456),
        ("0412 345 678", "AU", 61412345678),
        ("5123 4567", "HK", 85251234567),
        ("9123456789", "RU", 79123456789),
    ],
)
def test_an_mdn_is_known_without_asking_the_library(connection, text, region, number):
    assert judge(text, region) == number
    assert to_e164(text, region) == f"+{number}"
    assert quickly(connection, text, region) == number


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("312 555 014", "US"),
        ("312 555 01422", "US"),
        ("2 312 555 0142", "US"),
        ("+2 312 555 0142", "US"),
        ("+46 70 123 45 67", "US"),
        ("(312) 555-014x", "US"),
        ("+45 32 12 34 56", "SE"),
        ("0045 32 12 34 56", "SE"),
        ("++46701234567", "SE"),
        ("070-123 45 6", "SE"),
        ("0+7701234567", "RU"),
        ("011 15-2345-6789", "AR"),
        ("07781 123456", "GG"),
    ],
)
def test_what_is_not_certain_is_left_to_the_library(connection, text, region):
    assert quickly(connection, text, region) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+1234567", 1234567),
        ("+123456789012345", 123456789012345),
        ("+123456", None),
        ("+1234567890123456", None),
        ("+0234567", None),
        ("1234567", None),
        (" +1234567", None),
    ],
)
def test_the_form_of_e164_is_seven_to_fifteen_digits(connection, text, number):
    assert said(connection, is_e164_text("t"), text) == (number is not None)
    assert said(connection, e164_number("t"), text) == number


def test_texts_that_are_no_numbers_have_numbers_of_their_own_below_zero(connection):
    numbers = [said(connection, odd_number("t"), text) for text in ("n/a", "none", "?", "x", "")]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 0
    assert said(connection, odd_number("t"), "n/a") == numbers[0]


@pytest.mark.parametrize(
    ("digits", "code"),
    [("13125550142", "1"), ("79123456789", "7"), ("46701234567", "46"), ("35840123456", "358")],
)
def test_a_number_begins_with_its_country_code(connection, digits, code):
    assert said(connection, country_code("t"), digits) == code
    assert said(connection, country_code("t"), "999123") == "999"


def test_ten_digits_of_country_code_1_are_a_number_of_some_region_or_none(connection):
    for national, number in (
        ("3125550142", 13125550142),
        ("2423571234", 12423571234),
        ("0125550142", None),
        ("312555014", None),
        ("31255501422", None),
    ):
        assert said(connection, nanp_number("t", "TRY_CAST(t AS BIGINT)"), national) == number


@pytest.mark.parametrize(
    "text",
    [
        "2125551e03",
        "21255512e2",
        "2.12555E+9",
        "21255512e4",
        "0xFFFFFFFF",
        "0x90000000",
        "+212555012",
        " 212555012",
        "212555012 ",
        "2125550123 ",
        "2_12555012",
        "212555.012",
        "2125550\u0661\u0662\u0663",
    ],
)
def test_what_can_be_cast_to_ten_digits_need_not_be_ten_digits(connection, text):
    assert said(connection, nanp_number("t", "TRY_CAST(t AS BIGINT)"), text) is None


def test_a_block_that_is_full_is_full_to_the_library(connection):
    """The first and the last number of all blocks in which no number asks the pattern."""
    code = r"""
        SELECT block || rest
        FROM (SELECT lpad(i::VARCHAR, 4, '0') AS block FROM range(10000) numbers(i)),
             (SELECT unnest(['000001', '999999']) AS rest)"""
    quick = is_in_full_block("t", "TRY_CAST(t AS BIGINT)")
    rows = connection.execute(f"SELECT t FROM ({code}) numbers(t) WHERE {quick}").fetchall()
    assert len(rows) > 6_000
    assert ("2120000001",) not in rows
    assert {("2122000001",), ("2129999999",)} <= set(rows)
    for (national,) in rows:
        assert judge(f"+1{national}", "US") == int(f"1{national}")


def test_only_what_follows_an_area_code_makes_a_full_block(monkeypatch):
    kinds = (r"212|30[56][2-9]\d{6}", "415", r"(?:60|70)2[2-9]\d{6}", r"808[2-8]\d{6}")
    monkeypatch.setattr(numbering, "_nanp_patterns", lambda: kinds)
    blocks = full_nanp_blocks.__wrapped__()
    assert len(blocks) == 10_000
    full = {block for block, bit in enumerate(blocks) if bit == "1"}
    assert full == {code * 10 + digit for code in (305, 306, 602, 702) for digit in range(2, 10)}


def test_a_text_that_the_library_does_not_read_has_no_digits(connection):
    assert said(connection, without_punctuation("t"), "(0)70-1.2/3 4") == "0701234"
    assert said(connection, without_punctuation("t"), "1" * 250) == "1" * 250
    assert said(connection, without_punctuation("t"), "1" * 251) is None


@pytest.mark.parametrize(
    ("region", "rest", "bare"),
    [
        ("SE", "0701234567", "701234567"),
        ("SE", "701234567", "701234567"),
        ("IT", "0612345678", "0612345678"),
        ("RU", "89123456789", "9123456789"),
        ("HU", "06201234567", "201234567"),
        ("AR", "01123456789", "1123456789"),
        ("AR", "0111523456789", None),
    ],
)
def test_the_national_prefix_comes_off_unless_it_is_rewritten(connection, region, rest, bare):
    assert said(connection, home_plan(region).without_prefix("t"), rest) == bare


def test_a_region_whose_prefix_is_not_that_of_its_country_code_has_no_plan():
    assert home_plan("GG") is None
    assert home_plan("ZZ") is None
    assert home_plan("SE").code == 46


@pytest.mark.parametrize(
    ("code", "national", "is_mdn"),
    [
        (46, "701234567", True),
        (46, "812345678", False),
        (46, "70123456", None),
        (7, "9123456789", True),
        (7, "7710009998", True),
        (7, "3012345678", False),
        (7, "7123456789", False),
        (44, "7781123456", True),
        (44, "1481256789", False),
        (44, "2079460958", False),
        (52, "2221234567", True),
        (1, "3125550142", True),
        (1, "0125550142", None),
    ],
)
def test_a_plan_tells_mobiles_from_landlines_and_both_from_nothing(
    connection, code, national, is_mdn
):
    assert said(connection, plan_of_code(code).is_mdn("t"), national) is is_mdn
    number = phonenumbers.PhoneNumber(country_code=code, national_number=int(national))
    assert phonenumbers.is_valid_number(number) or is_mdn is None


@pytest.mark.parametrize(
    ("rest", "bare", "national"),
    [("0701234567", "701234567", "701234567"), ("701234567", "701234567", "701234567")],
)
def test_the_number_is_what_is_left_without_the_prefix(connection, rest, bare, national):
    plan = home_plan("SE")
    assert said(connection, plan.national(f"'{rest}'", f"'{bare}'"), "") == national
    assert said(connection, plan.number("t"), national) == int(f"46{national}")
