"""The reconcile, in SQL, and the rooms of the outside systems, in Python, read one spelling."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import product

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.crm.cells import instant_of
from vibes_pipelines.reconcile.moments import moment_of

Read = Callable[[pa.Array], list[datetime | None]]

DAYS = ["2026-01-10", "20260110", "2026-W02-6", "2026-02-30", "2026-1-10", "0000-01-01"]
DAYS += ["0001-01-01", "9999-12-31", "2026-010", "12026-01-10", "\u0662026-01-10"]
CLOCKS = ["", "T10:15:00", " 10:15", "T10", "_10:15:00", "t10:15:00", "  10:15:00", "T101500"]
CLOCKS += ["T00:00:00", "T24:00:00", "T10:15:60", " 1:15:00", "T23:59:59", "T10:60"]
FRACTIONS = ["", ".5", ".123", ".999999", ".1234567", ",5", "."]
ZONES = ["", "Z", " Z", "UTC", " UTC", "z", "utc", "+02", "+0200", " +02:00", "-00:00", "-0600"]
ZONES += ["+19:00", "+20:00", "+14:00:30", "+0060", " Z Z", "-14:00", "Z\n", "+2"]
PADS = ["", " ", "\t", "\u00a0", "\ufeff", "\u2003", "\x1c"]

padded = st.tuples(*map(st.sampled_from, (PADS, DAYS, CLOCKS, FRACTIONS, ZONES, PADS)))


@pytest.fixture(scope="module")
def of_the_reconcile() -> Iterator[Read]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")

        def read(values: pa.Array) -> list[datetime | None]:
            connection.register("given", pa.table({"c": values}))
            given = connection.sql("FROM given")
            found = given.project(moment_of("c", str(given.types[0]))).fetchall()
            return [instant and instant.replace(tzinfo=UTC) for (instant,) in found]

        yield read


@given(texts=st.lists(st.text() | padded.map("".join), min_size=1))
@settings(max_examples=10)
def test_any_text_is_one_instant_or_none(of_the_reconcile: Read, texts: list[str]) -> None:
    assert [instant_of(text) for text in texts] == of_the_reconcile(pa.array(texts))


def test_every_spelling_is_one_instant_or_none(of_the_reconcile: Read) -> None:
    texts = ["".join(parts) for parts in product(DAYS, CLOCKS, FRACTIONS, ZONES)]
    read = zip(texts, map(instant_of, texts), of_the_reconcile(pa.array(texts)), strict=True)
    assert [(text, one, other) for text, one, other in read if one != other] == []


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (date(2026, 1, 10), pa.date32()),
        (datetime(2026, 1, 10, 10, 15, 0, 123456), pa.timestamp("us")),  # noqa: DTZ001
        (datetime(2026, 1, 10, 10, 15, 0, 999999, UTC), pa.timestamp("us", "UTC")),
        (20260110, pa.int64()),
    ],
)
def test_a_typed_value_is_read_to_its_fraction(
    of_the_reconcile: Read, value: object, declared: pa.DataType
) -> None:
    assert [instant_of(value)] == of_the_reconcile(pa.array([value], declared))
