"""Numbers by example: one number has one text, and what is no number has none."""

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.reconcile.numerals import decimal_text, is_canonical_whole, number_text


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connected = duckdb.connect()
    yield connected
    connected.close()


def said(connection, sql, text):
    """What SQL over the text `c` says."""
    given = "(SELECT ?::VARCHAR AS c)"
    [(value,)] = connection.execute(f"SELECT {sql} FROM {given}", [text]).fetchall()
    return value


def told(connection, text):
    return said(connection, number_text("c", "'odd: ' || t"), text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("7", "7"),
        ("-7", "-7"),
        ("+7", "7"),
        ("10", "10"),
        ("-10", "-10"),
        ("007", "7"),
        ("-007.500", "-7.5"),
        ("000", "0"),
        ("-0", "0"),
        ("+0.0", "0"),
        ("5.", "5"),
        (".5", "0.5"),
        ("-.05", "-0.05"),
        ("100.00", "100"),
        ("0.10", "0.1"),
        ("12e2", "1200"),
        ("12E-1", "1.2"),
        ("12e+0", "12"),
        ("1.25e1", "12.5"),
        ("1.25e2", "125"),
        ("1.25e3", "1250"),
        ("125e-2", "1.25"),
        ("125e-3", "0.125"),
        ("125e-4", "0.0125"),
        ("-1.5e-1", "-0.15"),
        ("1.e2", "100"),
        ("0e5", "0"),
        ("-0e-5", "0"),
        ("1e100", "1" + "0" * 100),
        ("1e-100", "0." + "0" * 99 + "1"),
        ("9" * 308, "9" * 308),
        ("-" + "9" * 308, "-" + "9" * 308),
        ("-00" + "9" * 308 + ".50", "-" + "9" * 308 + ".5"),
    ],
)
def test_one_number_has_one_text(connection, text, canonical):
    assert told(connection, text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "+",
        ".",
        "1.2.3",
        "--1",
        "1e",
        "e5",
        "1e5.0",
        "1e1000",
        "1e-1000",
        "1e+",
        ".5e1",
        "0x1",
        "1-",
    ],
)
def test_what_is_no_number_is_said_with_its_text(connection, text):
    assert told(connection, text) == f"odd: {text}"


@pytest.mark.parametrize("text", ["1e308", "9" * 309, "-" + "9" * 309, "1" + "0" * 308 + ".5"])
def test_what_no_double_holds_is_no_number(connection, text):
    assert told(connection, text) == f"odd: {text}"


def test_no_text_is_no_number_and_nothing_odd(connection):
    assert told(connection, None) is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("0", True), ("-1", True), ("10", True), ("-0", False), ("01", False), ("1.0", False)],
)
def test_a_canonical_whole_number(connection, text, is_one):
    assert said(connection, is_canonical_whole("c"), text) is is_one


@pytest.mark.parametrize(
    ("column_type", "number", "canonical"),
    [
        ("DECIMAL(18,4)", "12.5", "12.5"),
        ("DECIMAL(18,4)", "12.0625", "12.0625"),
        ("DECIMAL(18,4)", "12.060", "12.06"),
        ("DECIMAL(18,4)", "-0.1", "-0.1"),
        ("DECIMAL(18,4)", "-0.5", "-0.5"),
        ("DECIMAL(18,4)", "100", "100"),
        ("DECIMAL(18,4)", "0", "0"),
        ("DECIMAL(18,4)", "99999999999999.9999", "99999999999999.9999"),
        ("DECIMAL(18,0)", "100", "100"),
        ("DECIMAL(5,2)", "20", "20"),
        ("DECIMAL(4,4)", "0.9999", "0.9999"),
        ("DECIMAL(4,4)", "-0.5", "-0.5"),
        ("DECIMAL(4,1)", "999.9", "999.9"),
        ("DECIMAL(18,8)", "1.00000001", "1.00000001"),
        ("DECIMAL(18,8)", "1.1000001", "1.1000001"),
        ("DECIMAL(18,8)", "1.10001", "1.10001"),
        ("DECIMAL(18,8)", "1.1", "1.1"),
        ("DECIMAL(18,17)", "9.5", "9.5"),
        ("DECIMAL(18,17)", "9." + "9" * 17, "9." + "9" * 17),
        ("DECIMAL(18,8)", "100", "100"),
        ("DECIMAL(19,4)", "12.5", "12.5"),
        ("DECIMAL(20,8)", "1.00000001", "1.00000001"),
        ("DECIMAL(20,8)", "1.1000001", "1.1000001"),
        ("DECIMAL(20,8)", "1.10001", "1.10001"),
        ("DECIMAL(20,8)", "100", "100"),
        ("DECIMAL(37,2)", "9" * 35 + ".99", "9" * 35 + ".99"),
        ("DECIMAL(38,0)", "9" * 38, "9" * 38),
        ("DECIMAL(38,0)", "100", "100"),
        ("DECIMAL(38,2)", "9" * 36 + ".90", "9" * 36 + ".9"),
        ("DECIMAL(38,2)", "100", "100"),
        ("DECIMAL(38,38)", "0." + "9" * 38, "0." + "9" * 38),
        ("DECIMAL(38,38)", "0", "0"),
        ("DECIMAL(37,37)", "0." + "9" * 37, "0." + "9" * 37),
        ("DECIMAL(18,4)", None, None),
        ("DECIMAL(38,4)", None, None),
    ],
)
def test_a_decimal_loses_the_zeros_behind_its_point_and_no_others(
    connection, column_type, number, canonical
):
    [(text,)] = connection.execute(
        f"SELECT {decimal_text('c', column_type)} FROM (SELECT CAST(? AS {column_type}) AS c)",
        [number],
    ).fetchall()
    assert text == canonical


@given(st.integers(1, 38), st.data())
def test_a_decimal_of_any_size_is_its_digits_without_those_zeros(connection, precision, data):
    scale = data.draw(st.integers(0, precision))
    digits = data.draw(st.integers(0, 10**precision - 1))
    zeros = 10 ** data.draw(st.integers(0, scale))
    whole, rest = divmod(digits // zeros * zeros, 10**scale)
    sign = data.draw(st.sampled_from(["", "-"])) if whole or rest else ""
    fraction = f"{rest:0{scale}}" if scale else ""
    column_type = f"DECIMAL({precision},{scale})"
    [(text,)] = connection.execute(
        f"SELECT {decimal_text('c', column_type)} FROM (SELECT CAST(? AS {column_type}) AS c)",
        [f"{sign}{whole}.{fraction}"],
    ).fetchall()
    assert text == f"{sign}{whole}.{fraction.rstrip('0')}".rstrip(".")
