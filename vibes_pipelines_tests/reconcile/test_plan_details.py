"""Numbering plans in detail: where each answers, and where it leaves a number to the library."""

import phonenumbers
import pytest
from phonenumbers import PhoneNumberType as Kind

from vibes_pipelines.reconcile.home_numbers import quick_number, rest_of
from vibes_pipelines.reconcile.numbering import home_plan, nanp_number, plan_of_code


@pytest.fixture
def said(tables):
    """What SQL over the text `t` says."""

    def said(sql, text):
        [(value,)] = tables.connection.execute(
            f"SELECT {sql} FROM (SELECT ?::VARCHAR AS t)", [text]
        ).fetchall()
        return value

    return said


@pytest.mark.parametrize(
    ("kind", "code", "national"),
    [
        (Kind.TOLL_FREE, 20, "8001234567"),
        (Kind.PREMIUM_RATE, 20, "9001234567"),
        (Kind.SHARED_COST, 27, "860123456"),
        (Kind.PERSONAL_NUMBER, 30, "7012345678"),
        (Kind.VOIP, 27, "871234567"),
        (Kind.PAGER, 31, "662345678"),
        (Kind.UAN, 27, "861123456"),
        (Kind.VOICEMAIL, 41, "860123456789"),
    ],
)
def test_numbers_of_every_kind_but_landlines_may_be_mdns(said, kind, code, national):
    number = phonenumbers.PhoneNumber(country_code=code, national_number=int(national))
    assert phonenumbers.number_type(number) == kind
    assert said(plan_of_code(code).is_mdn("t"), national) is True


@pytest.mark.parametrize(("code", "national"), [(46, "286234"), (800, "123"), (39, "0007967")])
def test_what_has_the_form_of_a_number_and_is_none_is_neither(said, code, national):
    assert said(plan_of_code(code).is_mdn("t"), national) is None


@pytest.mark.parametrize(
    ("region", "rest", "bare"),
    [
        ("AU", "0412305678", "412305678"),
        ("AU", "412305678", "412305678"),
        ("AR", "2212345678", "2212345678"),
        ("AR", "221152345678", None),
    ],
)
def test_a_prefix_comes_off_at_the_begin_only(said, region, rest, bare):
    assert said(home_plan(region).without_prefix("t"), rest) == bare


@pytest.mark.parametrize(
    ("region", "rest", "bare", "national"),
    [
        ("RU", "8639874130", "639874130", "8639874130"),
        ("RU", "89123456789", "9123456789", "9123456789"),
        ("SE", "065", "65", None),
        ("SE", "65", "65", "65"),
    ],
)
def test_a_prefix_stays_on_where_nothing_would_be_left(said, region, rest, bare, national):
    assert said(home_plan(region).national(f"'{rest}'", f"'{bare}'"), "") == national


@pytest.mark.parametrize(
    ("region", "digits", "looks_right", "is_possible"),
    [
        ("SE", "701234567", True, True),
        ("SE", "70123456", False, False),
        ("SE", "861235", False, False),
        ("KZ", "7123456789", True, True),
        ("KZ", "9123456789", False, False),
    ],
)
def test_a_number_looks_right_to_the_region_and_to_the_main_one_of_its_code(
    said, region, digits, looks_right, is_possible
):
    plan = home_plan(region)
    assert said(plan.looks_right("t"), digits) is looks_right
    assert said(plan.is_possible("t"), digits) is is_possible


@pytest.mark.parametrize("national", ["3101234", "31012345678"])
def test_numbers_of_country_code_1_have_ten_digits(said, national):
    assert said(nanp_number("t", "TRY_CAST(t AS BIGINT)"), national) is None


@pytest.mark.parametrize(
    ("region", "digits", "rest"),
    [
        ("SE", "+46701234567", "701234567"),
        ("SE", "0046701234567", "701234567"),
        ("SE", "46701234567", "701234567"),
        ("SE", "0701234567", "0701234567"),
        ("SE", "464", None),
        ("SE", "4671234", "4671234"),
        ("SE", "+4570123456", None),
        ("SE", "004570123456", None),
        ("SE", "0+46701234567", "0+46701234567"),
        ("SE", "0704612", "0704612"),
        ("DE", "494969521", None),
        ("AR", "541115234567", None),
        ("AU", "0011461234567", None),
    ],
)
def test_the_country_code_comes_off_where_it_is_one_for_certain(said, region, digits, rest):
    assert said(rest_of(home_plan(region), "t"), digits) == rest


def test_a_code_without_a_region_has_no_prefix_for_calls_abroad(said):
    assert said(rest_of(plan_of_code(800), "t"), "+80012345678") == "12345678"


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [("0400 112 345", "AU", 61400112345), ("070-004 61 23", "SE", 46700046123)],
)
def test_what_looks_like_a_prefix_for_calls_abroad_within_a_number_is_none(
    said, text, region, number
):
    assert said(quick_number("t", region), text) == number
