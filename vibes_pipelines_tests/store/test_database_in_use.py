"""The ledger's database while it is in use: what fails is told with place and cure."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vibes_pipelines.store import database
from vibes_pipelines.store.database import DatabaseUnavailable
from vibes_pipelines.store.ledger import Ledger


def test_a_ledger_that_somebody_holds_locked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ledger.db"
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    with Ledger(f"sqlite:///{file}") as ledger, closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE").close()
        with pytest.raises(DatabaseUnavailable, match=r"is locked.*VIBES_LEDGER_URL.* same"):
            ledger.mark_sent(["o1"])
        other.rollback()
        ledger.mark_sent([])


def test_a_ledger_whose_disk_is_full_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(url) as ledger, ledger._engine.connect() as connection:
        (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DatabaseUnavailable, match=r"is full.* its disk has room"):
            connection.exec_driver_sql("CREATE TABLE more AS SELECT zeroblob(1000000) AS b")


def test_a_ledger_that_does_not_open_is_told_in_the_words_of_sqlite(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"unable to open .* its disk has room"):
        Ledger(f"sqlite:///{tmp_path}").open()
