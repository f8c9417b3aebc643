"""The CRM's table of facts: the newest state of each subject, whatever order events come in."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.crm import database
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.crm.facts import ContactFact, FactTable
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.loop import EXAMPLE

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = load_sync_config(EXAMPLE)
TABLES = (
    "CREATE TABLE contacts (contact_id VARCHAR(20), mobile VARCHAR(20))",
    "CREATE TABLE facts (contact_id VARCHAR(20), kind VARCHAR(20), subject VARCHAR(90),"
    " state VARCHAR(20), changed_at TIMESTAMP)",
    "INSERT INTO contacts VALUES ('C1', NULL)",
)


def run(url: str, *statements: str) -> list[Any]:
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            results = [connection.exec_driver_sql(text) for text in statements]
            return list(results[-1].all()) if results[-1].returns_rows else []
    finally:
        engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    found = f"sqlite:///{tmp_path / 'crm.db'}"
    if request.param == "postgresql":
        found = str(request.getfixturevalue("postgresql_url"))
    run(found, *TABLES)
    yield found
    run(found, "DROP TABLE contacts", "DROP TABLE facts")


def fact(state: str, hours: int = 0, contact: str = "C1") -> ContactFact:
    return ContactFact(contact, "device", "APP1/d1", state, AT + timedelta(hours=hours))


def test_one_row_holds_the_newest_state(url: str) -> None:
    table = FactTable(url, CONFIG, "facts")
    assert table.note([fact("active"), fact("removed", 2)]) == ["noted", "noted"]
    assert table.note([fact("active", 1)]) == ["older"]
    assert table.note([fact("removed", 2)]) == ["noted"]  # the same again changes nothing
    [row] = run(url, "SELECT contact_id, kind, subject, state FROM facts")
    assert tuple(row) == ("C1", "device", "APP1/d1", "removed")


def test_a_fact_of_nobody_is_not_noted(url: str) -> None:
    assert FactTable(url, CONFIG, "facts").note([fact("active", contact="C9")]) == [
        "unknown_contact"
    ]
    assert run(url, "SELECT * FROM facts") == []


@pytest.mark.postgresql
def test_a_fact_that_does_not_fit_or_is_locked_holds_back_no_other(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.2)
    url = postgresql_url
    run(url, *TABLES, "INSERT INTO contacts VALUES ('C2', NULL), ('C3', NULL)")
    run(url, "ALTER TABLE facts ALTER contact_id TYPE VARCHAR(2)")
    run(url, "INSERT INTO contacts VALUES ('C100', NULL)")
    table = FactTable(url, CONFIG, "facts")
    assert table.note([fact("active", contact="C2")]) == ["noted"]
    with closing(psycopg.connect(url.replace("+psycopg", ""))) as session:
        session.execute("SELECT * FROM facts FOR UPDATE")
        facts = [
            fact("x" * 21),
            fact("a\0b"),
            fact("active", contact="C100"),
            fact("removed", contact="C2"),
            fact("active", contact="C3"),
        ]
        assert table.note(facts) == ["refused", "refused", "refused", "locked", "noted"]
    run(url, "DROP TABLE facts")
    with pytest.raises(CrmError, match="no table facts"):
        table.note(facts)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    run(url, *TABLES, "ALTER TABLE facts DROP COLUMN state")
    with pytest.raises(CrmError, match=r"callbacks\.facts_table: facts has no column 'state'"):
        FactTable(url, CONFIG, "facts").note([fact("active")])
    with pytest.raises(CrmError, match=r"no table elsewhere; correct callbacks\.facts_table"):
        FactTable(url, CONFIG, "elsewhere").note([fact("active")])


@settings(max_examples=examples(30), deadline=None)
@given(hours=st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
def test_the_order_of_arrival_does_not_show(
    hours: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('crm') / 'crm.db'}"
    run(url, *TABLES)
    table = FactTable(url, CONFIG, "facts")
    answers = [table.note([fact(f"s{hour}", hour)])[0] for hour in hours]
    newest_so_far = [hour == max(hours[: n + 1]) for n, hour in enumerate(hours)]
    assert answers == ["noted" if is_newest else "older" for is_newest in newest_so_far]
    assert run(url, "SELECT state FROM facts") == [(f"s{max(hours)}",)]
