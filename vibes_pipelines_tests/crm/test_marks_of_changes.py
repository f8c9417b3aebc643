"""How far the CRM's changes were read: by time, and by marks that nobody makes without the key."""

import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from vibes_pipelines.crm.changes import CrmChanges
from vibes_pipelines.stages.consents_now import Consent
from vibes_pipelines.stages.masking import keyed_hash
from vibes_pipelines.stages.opt_out_lane import _mark
from vibes_pipelines.sync_config.realtime import Changes
from vibes_pipelines_tests.support.deliveries import CONFIG

KEY, AT = "C1", "2026-01-02 10:00:00"
HASHES = [partial(keyed_hash, key=key) for key in (b"one", b"another")]


@pytest.fixture
def crm(tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "crm.db")) as connection, connection:
        connection.execute("CREATE TABLE contacts (contact_id TEXT, updated_at TEXT)")
        connection.execute("INSERT INTO contacts VALUES (?, ?)", (KEY, AT))
    return f"sqlite:///{tmp_path / 'crm.db'}"


def test_a_look_at_times_leaves_keyed_marks(crm: str) -> None:
    by_time = Changes.model_validate({"column": "updated_at"})
    marks = [
        {*page.seen}
        for hashed in HASHES
        for page in CrmChanges(crm, CONFIG, by_time, hashed).since(None)
    ]
    assert [len(found) for found in marks] == [1, 1]
    assert not marks[0] & marks[1]
    assert hashlib.sha256(f"{AT} {KEY}".encode()).hexdigest()[:16] not in marks[0] | marks[1]
    [mark] = marks[0]
    again = [CrmChanges(crm, CONFIG, by_time, hashed).since(AT, [mark]) for hashed in HASHES]
    assert [[page.contacts for page in pages] for pages in again] == [[], [(KEY,)]]


@pytest.mark.postgresql
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_the_zone_of_the_session_moves_no_time_of_change(postgresql_url: str, zone: str) -> None:
    database = sa.make_url(postgresql_url).database
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        for statement in (
            f"ALTER DATABASE {database} SET timezone = '{zone}'",
            "CREATE TABLE contacts (contact_id text, updated_at timestamptz)",
            "INSERT INTO contacts VALUES ('C1', now() - interval '1 day')",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    by_time = Changes.model_validate({"column": "updated_at", "overlap_s": 60})
    crm = CrmChanges(postgresql_url, CONFIG, by_time, HASHES[0])
    [first] = crm.since(None)
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE contacts SET updated_at = now() - interval '2 s' WHERE contact_id = 'C1'"
        )
    engine.dispose()
    [page] = crm.since(first.position, first.seen)
    assert (page.contacts, page.ahead) == (("C1",), 0)
    assert (page.position or "") > (first.position or "")
    assert (page.position or "").endswith("+00:00")
    other_zone = datetime.fromisoformat(page.position or "").astimezone(ZoneInfo("Asia/Tokyo"))
    assert list(crm.since(other_zone.isoformat(), page.seen)) == []


def test_an_opt_out_that_was_looked_at_has_a_keyed_mark() -> None:
    cell = Consent(KEY, "1234", datetime(2026, 1, 2, 10, tzinfo=UTC))
    marks = {_mark(cell, None, hashed) for hashed in HASHES}
    plain = hashlib.sha256(f"{KEY} 1234 {cell.changed_at}".encode()).hexdigest()[:16]
    assert len(marks - {plain}) == 2
