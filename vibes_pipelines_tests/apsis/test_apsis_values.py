"""Values of APSIS One: every type's form, every refusal typed and without the value."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.apsis.errors import ValueRefused
from vibes_pipelines.apsis.values import ValueType, canonical, cell, json_value
from vibes_pipelines.sandbox.apsis_records import Attribute, ProblemError
from vibes_pipelines.sandbox.apsis_values import read_cell, read_json


@pytest.mark.parametrize(
    ("value_type", "value", "expected"),
    [
        ("text", " Ada ", "Ada"),
        ("text", "Å" * 1000, "Å" * 1000),
        ("integer", "42", 42),
        ("integer", Decimal("42.0"), 42),
        ("integer", "-7", -7),
        ("decimal", "1.50", 1.5),
        ("decimal", "3", 3),
        ("decimal", "1E+2", 100),
        ("boolean", "TRUE", True),
        ("boolean", False, False),
        ("text", "\ufeff x\u2003", "x\u2003"),  # the blanks of the reconcile, and no others
        ("country", "se", "SE"),
        ("email", "ada.l+crm@mail.example.com", "ada.l+crm@mail.example.com"),
        ("email", "åsa@exämple.se", "åsa@exämple.se"),
        ("mobile", "+46793699558", 46793699558),
        ("mobile", "46793699558", 46793699558),
        ("date", "2013-02-08", "2013-02-08"),
        ("date", date(2013, 2, 8), "2013-02-08"),
    ],
)
def test_a_value_takes_the_form_of_its_type(
    value_type: ValueType, value: Any, expected: Any
) -> None:
    written = json_value(value_type, value)
    assert (written, type(written)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value_type", "value", "reason"),
    [
        ("text", "a" * 1001, "1,001 characters"),
        ("text", "  ", "blank"),
        ("text", "\u2003", "blank"),
        ("text", "a\x00b", "control characters"),
        ("text", "a\ud800", "control characters"),
        ("integer", "1.5", "decimals"),
        ("integer", "twelve", "no number"),
        ("integer", True, "true or false"),
        ("integer", "1234567890123456", "more than 15 digits"),
        ("decimal", "NaN", "not finite"),
        ("decimal", "1,5", "no number"),
        ("boolean", "yes", "neither true nor false"),
        ("boolean", 1, "neither true nor false"),
        ("country", "Sweden", "not two letters"),
        ("email", "ada@localhost", "no valid address"),
        ("email", "ada@@example.com", "no valid address"),
        ("email", "ada example.com", "no valid address"),
        ("mobile", "070-369 95 58", "country code"),
        ("mobile", "0046793699558", "country code"),
        ("date", "20130208", "YYYY-MM-DD"),
        ("date", "201303", "YYYY-MM-DD"),
        ("date", "2013-02-30", "YYYY-MM-DD"),
        ("date", datetime(2013, 2, 8, tzinfo=UTC), "it has a time"),
    ],
)
def test_what_has_no_form_is_refused_with_type_and_reason_and_without_the_value(
    value_type: ValueType, value: Any, reason: str
) -> None:
    with pytest.raises(ValueRefused, match=reason) as refused:
        json_value(value_type, value)
    assert refused.value.value_type == value_type
    if isinstance(value, str) and len(value.strip()) > 4:
        assert value not in str(refused.value)


ANY_TEXT = st.text(max_size=40)
ANYTHING = st.one_of(
    ANY_TEXT,
    st.integers(),
    st.decimals(allow_nan=True),
    st.booleans(),
    st.dates(),
    st.emails(),
    st.from_regex(r"\+?[0-9]{5,17}", fullmatch=True),
)


@given(st.sampled_from(get_args(ValueType)), ANYTHING)
def test_whatever_is_sent_is_taken_in_json_and_in_a_cell_alike(
    value_type: ValueType, value: Any
) -> None:
    try:
        written = json_value(value_type, value)
    except ValueRefused:
        return
    attribute = Attribute("a", "A", value_type, "1")
    try:
        by_api = read_json(attribute, json.loads(json.dumps(written)))
        by_file = read_cell(attribute, cell(value_type, value))
    except ProblemError as problem:
        raise AssertionError(f"{value_type} {value!r} was sent and refused") from problem
    assert by_api == by_file
    # What is read back compares equal to what was sent, so that a second sync writes nothing.
    assert canonical(value_type, by_api) == cell(value_type, value)


@given(st.sampled_from(get_args(ValueType)), ANYTHING)
def test_writing_what_was_read_back_changes_nothing(value_type: ValueType, value: Any) -> None:
    try:
        once = cell(value_type, value)
    except ValueRefused:
        return
    assert cell(value_type, once) == once


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=4))
def test_decimals_survive_json(number: Decimal) -> None:
    assert Decimal(str(json.loads(json.dumps(json_value("decimal", number))))) == number
