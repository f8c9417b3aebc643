"""Canonical texts: two values agree when and only when these texts are equal."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.reconcile.values import (
    INVALID_VALUE,
    UNKNOWN_OPTION,
    as_text,
    contact_text,
    platform_text,
    quick,
    quick_difference,
)
from vibes_pipelines.sync_config import MappedField
from vibes_pipelines_tests.support.examples import examples

VARCHAR = "VARCHAR"
_FIRST, _LAST = datetime(1, 1, 3), datetime(9999, 12, 29)  # noqa: DTZ001  (zones come apart)


@pytest.fixture(scope="module")
def engine():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()


def field(field_type, **more):
    return MappedField.model_validate({"from": "f", "to": "f", "type": field_type} | more)


def evaluate(engine, sql, values, column_type=VARCHAR):
    rows = engine.execute(
        f"SELECT {sql} FROM (SELECT unnest(?::{VARCHAR}[])::{column_type} AS c)", [list(values)]
    ).fetchall()
    return [value for (value,) in rows]


def contact(engine, one, value, column_type=VARCHAR):
    return evaluate(engine, contact_text(one, "c", column_type), [value], column_type)[0]


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("  Ann \t\r\n", "Ann"),
        ("\ufeffAnn", "Ann"),
        ("\u00a0", None),
        ("", None),
        (None, None),
        ("e\u0301", "\u00e9"),
        ("a  b", "a  b"),
        ("02134", "02134"),
    ],
)
def test_strings_are_trimmed_and_composed(engine, given_text, expected):
    for field_type in ("string", "postal_code"):
        assert contact(engine, field(field_type), given_text) == expected


@pytest.mark.parametrize("text", ["1", "1.0", "1.00", "01", "+1", "1.", "1e0", "10E-1", "0.1e1"])
def test_spellings_of_one_number_are_one_text(engine, text):
    assert contact(engine, field("number"), text) == "1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.50", "-0.5"),
        ("-0", "0"),
        ("-0.000", "0"),
        (".5", "0.5"),
        ("9" * 60 + ".10", "9" * 60 + ".1"),
        ("1e20", "100000000000000000000"),
        ("-2.5e-7", "-0.00000025"),
    ],
)
def test_numbers_are_exact(engine, text, expected):
    assert contact(engine, field("number"), text) == expected


@pytest.mark.parametrize("text", ["1,000", "x", "nan", "inf", "1e", "--1", ".", "1 2", "\u0661"])
def test_what_is_no_number_is_invalid_at_the_crm_and_stands_at_the_platform(engine, text):
    assert contact(engine, field("number"), text) == INVALID_VALUE + text
    assert evaluate(engine, platform_text("number", "c", VARCHAR), [text]) == [text]


@pytest.mark.parametrize(
    ("column_type", "text", "expected"),
    [
        ("DOUBLE", "0.1", "0.1"),
        ("DOUBLE", "1", "1"),
        ("DOUBLE", "1e-7", "0.0000001"),
        ("FLOAT", "0.1", "0.1"),
        ("DECIMAL(18,4)", "12.5", "12.5"),
        ("DECIMAL(18,4)", "100", "100"),
        ("DECIMAL(18,4)", "-0.1", "-0.1"),
        ("DECIMAL(18,0)", "100", "100"),
        ("BIGINT", "-7", "-7"),
    ],
)
def test_typed_numbers_carry_no_float_noise(engine, column_type, text, expected):
    assert contact(engine, field("number"), text, column_type) == expected
    assert evaluate(engine, as_text("c", column_type), [text], column_type) == [expected]


def test_bytes_are_no_text():
    with pytest.raises(ReconcileError, match="holds bytes"):
        as_text("c", "BLOB")


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
@settings(max_examples=examples(60), deadline=None)
def test_numbers_agree_with_decimal(engine, number):
    plain = f"{number:f}"
    shortest = plain.rstrip("0").rstrip(".") if "." in plain else plain
    assert Decimal(contact(engine, field("number"), str(number))) == number
    assert contact(engine, field("number"), str(number)) == (shortest if number else "0")


@pytest.mark.parametrize(
    "text",
    [
        "2017-01-15T14:30Z",
        "2017-01-15T14:30:00Z",
        "2017-01-15T14:30:00.000Z",
        "2017-01-15T14:30:00+0000",
        "2017-01-15T14:30:00+00:00",
        "2017-01-15 08:30:00 -0600",
        "2017-01-15 14:30:00 UTC",
        "2017-01-15 14:30:00",
        "2017-01-15T20:00:00+0530",
        "2017-01-15 16:30:00+02",
    ],
)
def test_spellings_of_one_instant_are_one_text(engine, text):
    assert contact(engine, field("date"), text) == "2017-01-15T14:30:00Z"
    assert evaluate(engine, platform_text("date", "c", VARCHAR), [text]) == ["2017-01-15T14:30:00Z"]


@pytest.mark.parametrize(
    ("column_type", "text", "expected"),
    [
        (VARCHAR, "2017-01-15", "2017-01-15"),
        (VARCHAR, "2017-01-15T00:00:00Z", "2017-01-15"),
        (VARCHAR, "2017-01-15T01:00:00+0100", "2017-01-15"),
        ("DATE", "0099-01-05", "0099-01-05"),
        ("TIMESTAMP", "2017-01-15 00:00:00.4", "2017-01-15"),
        ("TIMESTAMP", "1969-12-31 23:59:59.9", "1969-12-31T23:59:59Z"),
        ("TIMESTAMP WITH TIME ZONE", "2017-01-15 14:30:00+02", "2017-01-15T12:30:00Z"),
        ("TIMESTAMP_NS", "2017-01-15 14:30:00", "2017-01-15T14:30:00Z"),
    ],
)
def test_a_day_is_a_date_at_midnight_utc(engine, column_type, text, expected):
    assert contact(engine, field("date"), text, column_type) == expected
    assert evaluate(engine, platform_text("date", "c", column_type), [text], column_type) == [
        expected
    ]


@pytest.mark.parametrize(
    "text", ["15.01.2017", "2017-02-30", "2017-1-5", "0000-01-01", "2017-01-15T25:00Z", "x", "2017"]
)
def test_what_is_no_date_is_invalid(engine, text):
    assert contact(engine, field("date"), text) == INVALID_VALUE + text


def test_a_date_out_of_range_is_invalid(engine):
    assert contact(engine, field("date"), "infinity", "TIMESTAMP") == INVALID_VALUE + "infinity"


@given(
    st.datetimes(min_value=_FIRST, max_value=_LAST),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["T", " "]),
    st.sampled_from(["", " "]),
)
@settings(max_examples=examples(60), deadline=None)
def test_dates_agree_with_datetime(engine, local, offset_min, between, before_zone):
    sign = "-" if offset_min < 0 else "+"
    zone = f"{sign}{abs(offset_min) // 60:02d}{abs(offset_min) % 60:02d}"
    local = local.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    day, clock = local.date().isoformat(), local.time().isoformat()
    instant = local.astimezone(UTC).replace(microsecond=0)
    expected = instant.strftime("%H:%M:%S") != "00:00:00"
    told = instant.isoformat()[:10] + (instant.strftime("T%H:%M:%SZ") if expected else "")
    assert contact(engine, field("date"), f"{day}{between}{clock}{before_zone}{zone}") == told


TIER = {"options": {"Gold": "gold", " Silver ": "silver"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(" Gold", "gold"), ("Silver", "silver"), ("gold", UNKNOWN_OPTION + "gold"), ("", None)],
)
def test_selects_map_crm_values_to_option_keys(engine, value, expected):
    assert contact(engine, field("single_select", **TIER), value) == expected


def test_without_options_the_value_is_the_key(engine):
    assert contact(engine, field("single_select"), " Gold ") == "Gold"


@pytest.mark.parametrize(
    ("more", "value", "expected"),
    [
        ({}, "b; a;;b ", "a|b"),
        ({}, ";", None),
        ({}, "a", "a"),
        ({}, "B;a", "B|a"),
        ({"separator": "|"}, "b|a", "a|b"),
        ({}, "a|b", INVALID_VALUE + "a|b"),
        (TIER, "Silver;Gold", "gold|silver"),
        (TIER, "Gold", "gold"),
        (TIER, "Gold;Tin", UNKNOWN_OPTION + "Tin"),
        ({"options": {"a;b": "x", "a": "1", "b": "2"}}, "a;b", "1|2"),
    ],
)
def test_multi_selects_are_sorted_sets(engine, more, value, expected):
    assert contact(engine, field("multi_select", **more), value) == expected


def test_lists_are_sets_too(engine):
    sql = contact_text(field("multi_select"), "c", "VARCHAR[]")
    [(value,)] = engine.execute(f"SELECT {sql} FROM (SELECT ['b', ' a', NULL] AS c)").fetchall()
    assert value == "a|b"


@pytest.mark.parametrize(
    "item", ["STRUCT(x INTEGER)", "INTEGER[]", "MAP(VARCHAR, INTEGER)", "BLOB"]
)
def test_a_list_of_what_no_text_stands_for_is_refused(item):
    with pytest.raises(ReconcileError, match="map a column of plain values"):
        contact_text(field("multi_select"), "c", f"{item}[]")
    with pytest.raises(ReconcileError, match="map a column of plain values"):
        platform_text("multi_select", "c", f"{item}[]")


def test_platform_sets_are_sorted_too(engine):
    assert evaluate(engine, platform_text("multi_select", "c", VARCHAR), ["b| a|b", "|"]) == [
        "a|b",
        None,
    ]


odd_text = st.text(
    alphabet=st.sampled_from(" \t\u00a0\ufeffabAe\u0301\u00e9|;1.0-+TZ:\x01'\"\\"), max_size=8
)


@given(st.lists(odd_text, min_size=1, max_size=20))
@settings(max_examples=examples(60), deadline=None)
def test_cleaning_agrees_with_python(engine, texts):
    expected = [trimmed(text) for text in texts]
    assert evaluate(engine, clean("c"), texts) == expected


FIELDS = [
    field("string"),
    field("number"),
    field("date"),
    field("single_select"),
    field("single_select", options={"a": "A", "b": "B", "e\u0301": "1"}),
    field("multi_select"),
    field("multi_select", options={"a": "A", "b": "B", "a;b": "A"}),
    field("postal_code"),
]
no_days = ["0000-01-01", "0000-00-00", "2024-02-30", "2023-13-01"]
dates = st.sampled_from(["2017-01-15", "2017-01-15T00:00Z", "2017-01-15T14:30Z", *no_days])
numbers = st.sampled_from(["1", "1.0", "01", "-0", "0", "1e0", "x"])
keys = st.sampled_from(["a", "A", "A|B", "a;b", "B|A", " a", "a|b", "b;a", "A|"])
any_text = st.none() | odd_text | dates | numbers | keys


@pytest.mark.parametrize("one", FIELDS, ids=lambda f: f.type + ("+options" if f.options else ""))
@given(pairs=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=30))
@settings(max_examples=examples(25), deadline=None)
def test_equal_stand_ins_mean_equal_values_and_doubt_is_kept(engine, one, pairs):
    sides = ("c", VARCHAR), ("p", VARCHAR)
    pair = quick(one, *sides, "q")
    rows = engine.execute(
        f"""
        SELECT {pair.contact} AS q, {pair.person}, coalesce({pair.doubt or "false"}, false),
               {quick_difference(one, *sides)},
               {contact_text(one, "c", VARCHAR)}, {platform_text(one.type, "p", VARCHAR)}
        FROM (SELECT unnest(?::VARCHAR[]) AS c, unnest(?::VARCHAR[]) AS p)""",
        [[c for c, _ in pairs], [p for _, p in pairs]],
    ).fetchall()
    for quick_contact, quick_person, doubt, may_differ, contact_value, person_value in rows:
        if quick_contact == quick_person and not doubt:
            assert contact_value == person_value
        assert may_differ or contact_value == person_value
        is_marked = (contact_value or "").startswith((UNKNOWN_OPTION, INVALID_VALUE))
        assert doubt == (is_marked and one.type not in {"string", "postal_code"})
