"""Events are read by their age, whatever the type and the writing of their times."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from vibes_pipelines.crm.events import read_events
from vibes_pipelines.sync_config.outreach import Events

SINCE = datetime(2026, 1, 2, 12, tzinfo=UTC)
BLANK, ISO = "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"
QUERY = "SELECT * FROM shop_events"


def fill(url: str, declared: str, times: Sequence[str | None]) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE shop_events (no INTEGER, c TEXT, at {declared})")
        for number, at in enumerate(times):
            insert = sa.text("INSERT INTO shop_events VALUES (:no, 'C1', :at)")
            connection.execute(insert, {"no": number, "at": at})
    engine.dispose()


def read(url: str, query: str | None) -> list[int]:
    source = Events(
        table="shop_events", query=query, id="no", type="c", contact="c", occurred_at="at"
    )
    return sorted(row["no"] for page in read_events(url, source, SINCE) for row in page)


def around(form: str) -> list[str]:
    """Two times that are too old and two that are not, the first of them just so."""
    return [(SINCE + timedelta(hours=hours)).strftime(form) for hours in (-50, -1, 0, 5)]


@pytest.mark.parametrize("query", [None, QUERY])
@pytest.mark.parametrize(
    ("declared", "form"), [("TEXT", BLANK), ("TEXT", ISO), ("TIMESTAMP", BLANK), ("TIMESTAMP", ISO)]
)
def test_sqlite_gives_every_event_that_is_young_enough(
    tmp_path: Path, declared: str, form: str, query: str | None
) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    fill(url, declared, around(form))
    assert read(url, query) == [2, 3]


@pytest.mark.postgresql
@pytest.mark.parametrize("query", [None, QUERY])
@pytest.mark.parametrize("declared", ["TIMESTAMP", "TIMESTAMPTZ", "TEXT"])
def test_postgresql_gives_every_event_that_is_young_enough(
    postgresql_url: str, declared: str, query: str | None
) -> None:
    zone = "+00" if declared == "TIMESTAMPTZ" else ""
    fill(postgresql_url, "TEXT", around(f"{BLANK}{zone}"))
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER TABLE shop_events ALTER at TYPE {declared} USING at::{declared}"
        )
    engine.dispose()
    assert read(postgresql_url, query) == [2, 3]


@pytest.mark.postgresql
def test_a_time_that_python_cannot_hold_hides_no_other_row(postgresql_url: str) -> None:
    ends = ["infinity", "20000-01-01 00:00:00+00"]
    fill(postgresql_url, "TEXT", [*ends, *around(f"{BLANK}+00")])
    typed = QUERY.replace("*", "no, c, at::timestamptz")
    assert read(postgresql_url, typed) == [0, 1, 4, 5]


@pytest.mark.parametrize("query", [None, QUERY])
def test_zones_count_and_what_is_no_time_is_read_too(tmp_path: Path, query: str | None) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    west, east = "2026-01-01T23:00:00-13:30", "2026-01-02T13:30:00+02:00"
    fill(url, "TEXT", [west, east, "20260102T130000Z", "02/01/2020", None])
    assert read(url, query) == [0, 2, 3]
