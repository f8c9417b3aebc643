"""What was seen of the CRM is remembered by marks that nobody makes without the key."""

import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

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


def test_an_opt_out_that_was_looked_at_has_a_keyed_mark() -> None:
    cell = Consent(KEY, "1234", datetime(2026, 1, 2, 10, tzinfo=UTC))
    marks = {_mark(cell, None, hashed) for hashed in HASHES}
    plain = hashlib.sha256(f"{KEY} 1234 {cell.changed_at}".encode()).hexdigest()[:16]
    assert len(marks - {plain}) == 2
