"""Instants by example: how each is read, what is no instant, and how one is written."""

from collections.abc import Iterator
from datetime import UTC, datetime

import duckdb
import pytest

from vibes_pipelines.reconcile.moments import (
    has_come,
    is_active,
    is_day_text,
    is_in_range,
    is_moment_type,
    latest_possible,
    moment,
    moment_of,
    moment_text,
    typed_moment_text,
)

VARCHAR = "VARCHAR"


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connected = duckdb.connect()
    connected.execute("SET TimeZone = 'UTC'")
    yield connected
    connected.close()


def said(connection, sql, text, column_type=VARCHAR):
    """What SQL over the column `c` says."""
    given = f"(SELECT CAST(?::VARCHAR AS {column_type}) AS c)"
    [(value,)] = connection.execute(f"SELECT {sql} FROM {given}", [text]).fetchall()
    return value


def at(text):
    """An instant as the engine gives it: without a zone, and in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2017-04-05 14:30:00 -0600", "2017-04-05 20:30:00+00"),
        ("2017-04-05 14:30:05 +0530", "2017-04-05 09:00:05+00"),
        ("2017-04-05 14:30:05-03:30", "2017-04-05 18:00:05+00"),
        ("2017-04-05T14:30+02", "2017-04-05 12:30:00+00"),
        ("2017-04-05T14:30-11", "2017-04-06 01:30:00+00"),
        ("2017-04-05T14:30:00+1400", "2017-04-05 00:30:00+00"),
        ("2017-04-05T14:30:00Z", "2017-04-05 14:30:00+00"),
        ("2017-04-05T14:30:00UTC", "2017-04-05 14:30:00+00"),
        ("2017-04-05T14:30:00 UTC", "2017-04-05 14:30:00+00"),
        ("2017-04-05T14:30:59.999", "2017-04-05 14:30:59+00"),
        ("2017-04-05 23:59", "2017-04-05 23:59:00+00"),
        ("2017-04-05 00:00:00", "2017-04-05 00:00:00+00"),
        ("2017-04-05", "2017-04-05 00:00:00+00"),
        ("0001-01-01", "0001-01-01 00:00:00+00"),
        ("9999-12-31T23:59:59Z", "9999-12-31 23:59:59+00"),
    ],
)
def test_every_spelling_is_read_as_utc(connection, text, instant):
    assert said(connection, moment("c", VARCHAR), text) == at(instant)


@pytest.mark.parametrize(
    "text",
    [
        "2017-04-05T24:00:00Z",
        "2017-04-05T23:60:00Z",
        "2017-04-05T23:00:60Z",
        "2017-04-05T1:00Z",
        "2017-04-05T14:30:00.Z",
        "2017-04-05T14:30:00  Z",
        "2017-04-05T14:30:00+2000",
        "2017-04-05T14:30:00+0060",
        "2017-04-05T14:30:00+020",
        "2017-04-05T14:30:00Z again",
        "at 2017-04-05T14:30:00Z",
        "2017-04-05_14:30",
        "2017-02-29",
        "12017-04-05",
        "2017-04-05 ",
        "0000-12-31",
        "0001-01-01T00:00:00+0100",
        "9999-12-31T23:59:59-0100",
    ],
)
def test_what_is_no_instant_of_a_year_of_four_digits_is_none(connection, text):
    assert said(connection, moment("c", VARCHAR), text) is None


def test_a_column_of_any_type_is_read_as_it_is_given(connection):
    assert said(connection, moment_of("c", VARCHAR), " 2017-04-05\t") == at("2017-04-05T00:00Z")
    assert said(connection, moment_of("c", "DATE"), "2017-04-05", "DATE") == at("2017-04-05T00:00Z")
    stamp = "TIMESTAMP WITH TIME ZONE"
    assert said(connection, moment_of("c", stamp), "2017-04-05 14:00+02", stamp) == at(
        "2017-04-05T12:00Z"
    )
    assert said(connection, moment_of("c", "BIGINT"), "20170405", "BIGINT") is None
    assert said(connection, moment("c", "TIMESTAMP"), "infinity", "TIMESTAMP") is None


@pytest.mark.parametrize(
    ("column_type", "is_one"),
    [
        ("DATE", True),
        ("TIMESTAMP", True),
        ("TIMESTAMP_NS", True),
        ("TIMESTAMP WITH TIME ZONE", True),
        ("VARCHAR", False),
        ("TIME", False),
        ("DATE[]", False),
    ],
)
def test_which_columns_hold_instants(column_type, is_one):
    assert is_moment_type(column_type) is is_one


@pytest.mark.parametrize(
    ("instant", "latest"),
    [
        ("2017-04-05 00:00:00", "2017-04-06T00:00Z"),
        ("2017-04-05 00:00:01", "2017-04-05T00:00:01Z"),
        ("2017-12-31 00:00:00", "2018-01-01T00:00Z"),
        ("2017-04-05 14:30:00", "2017-04-05T14:30Z"),
    ],
)
def test_a_day_may_have_been_its_last_minute(connection, instant, latest):
    assert said(connection, latest_possible("c"), instant, "TIMESTAMP") == at(latest)


@pytest.mark.parametrize(
    ("opt_in", "opt_out", "stands"),
    [
        (None, None, True),
        ("2026-01-05 10:00:00", None, True),
        (None, "2026-01-05 10:00:00", False),
        ("2026-01-05 10:00:00", "2026-01-05 10:00:00", False),
        ("2026-01-05 10:00:01", "2026-01-05 10:00:00", True),
        ("2026-01-05 09:59:59", "2026-01-05 10:00:00", False),
        ("2026-01-05 23:59:59", "2026-01-05", False),
        ("2026-01-06", "2026-01-05", True),
    ],
)
def test_a_subscription_stands_after_a_surely_later_opt_in(connection, opt_in, opt_out, stands):
    rows = "(SELECT ?::TIMESTAMP AS i, ?::TIMESTAMP AS o)"
    sql = f"SELECT {is_active('i', 'o')} FROM {rows}"
    assert connection.execute(sql, [opt_in, opt_out]).fetchone() == (stands,)


@pytest.mark.parametrize(
    ("instant", "is_there"),
    [
        ("2026-01-05 10:00:00", True),
        ("2026-01-06 08:30:00", True),
        ("2026-01-06 08:30:00.000001", False),
        ("2026-01-07", False),
    ],
)
def test_what_is_more_than_a_day_ahead_has_not_come(connection, instant, is_there):
    as_of = datetime.fromisoformat("2026-01-05T10:30:00+02:00")
    assert said(connection, has_come("c", as_of), instant, "TIMESTAMP") is is_there
    assert said(connection, has_come("c", None), instant, "TIMESTAMP") is True


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        ("2017-04-05 00:00:00", "2017-04-05"),
        ("2017-04-05 00:00:00.999", "2017-04-05"),
        ("2017-04-05 00:00:01", "2017-04-05T00:00:01Z"),
        ("2017-04-05 14:30:59.999", "2017-04-05T14:30:59Z"),
        ("0099-01-05 10:00:00", "0099-01-05T10:00:00Z"),
    ],
)
def test_an_instant_is_written_to_the_second_and_midnight_as_a_day(connection, instant, text):
    assert said(connection, moment_text("c"), instant, "TIMESTAMP") == text
    assert said(connection, typed_moment_text("c", "'odd'"), instant, "TIMESTAMP") == text


def test_a_typed_instant_out_of_range_is_told_and_an_empty_one_is_not(connection):
    sql = typed_moment_text("c", "'odd'")
    assert said(connection, sql, "infinity", "TIMESTAMP") == "odd"
    assert said(connection, sql, None, "TIMESTAMP") is None


@pytest.mark.parametrize(
    ("instant", "is_in"),
    [
        ("0001-01-01 00:00:00", True),
        ("0001-12-31 (BC) 23:59:59.999999", False),
        ("9999-12-31 23:59:59.999999", True),
        ("10000-01-01 00:00:00", False),
    ],
)
def test_years_have_four_digits(connection, instant, is_in):
    assert said(connection, is_in_range("c"), instant, "TIMESTAMP") is is_in


@pytest.mark.parametrize(
    ("text", "is_day"),
    [
        ("2017-04-05", True),
        ("0001-01-01", True),
        ("0000-12-31", False),
        ("2017-02-29", False),
        ("0000-00-00", False),
        ("2017-04-05T00:00Z", False),
        ("2017-4-5", False),
    ],
)
def test_the_canonical_text_of_a_day(connection, text, is_day):
    assert said(connection, is_day_text("c"), text) is is_day
