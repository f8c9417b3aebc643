"""What was blanked is gone from the files of PostgreSQL too."""

import json
from contextlib import closing

import pytest
import sqlalchemy as sa

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.stages.erasing_ledger import tidy_ledger
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.erasing_tidy import tidy_up
from vibes_pipelines.store.database import open_engine
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.models import callbacks, cursors, operations

pytestmark = pytest.mark.postgresql

NAME = b"Quentinius"
FILE = sa.text("SELECT pg_read_binary_file(pg_relation_filepath(:table))")


@pytest.fixture
def ledger(postgresql_url: str) -> str:
    """A callback about somebody, whose row was blanked."""
    body = json.dumps({"event_type": "t", "event_id": "e", "who": NAME.decode()}).encode()
    with closing(Inbox(postgresql_url)) as inbox:
        inbox.open()
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", body))])
    engine = open_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(sa.update(callbacks).values(body=b""))
    engine.dispose()
    return postgresql_url


def pages(url: str, table: str = "callbacks") -> bytes:
    """The table's file, as the disk has it."""
    engine = open_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CHECKPOINT"))
        found = bytes(connection.execute(FILE, {"table": table}).scalar_one())
    engine.dispose()
    return found


def test_the_pages_of_old_rows_are_rewritten(ledger: str) -> None:
    assert NAME in pages(ledger)
    engine = open_engine(ledger)
    assert tidy_up(engine, [callbacks, operations]) == ()
    engine.dispose()
    assert NAME not in pages(ledger)


def test_the_lists_of_an_overview_are_rewritten_too(ledger: str) -> None:
    """They stand in `cursors`, which has no column that tells a person."""
    engine = open_engine(ledger)
    named = {"name": "overview everybody", "value": json.dumps([NAME.decode()])}
    with engine.begin() as connection:
        connection.execute(sa.insert(cursors).values(named))
    with engine.begin() as connection:
        connection.execute(sa.update(cursors).values(value="[]"))
    engine.dispose()
    assert NAME in pages(ledger, "cursors")
    assert tidy_ledger(ledger) == ()
    assert NAME not in pages(ledger, "cursors")


def test_a_table_too_large_to_be_locked_is_told(ledger: str) -> None:
    engine = open_engine(ledger)
    assert tidy_up(engine, [callbacks, operations], most_bytes=0) == ("callbacks", "operations")
    engine.dispose()


def test_a_table_that_somebody_uses_is_not_waited_for_long(ledger: str) -> None:
    engine, other = open_engine(ledger), open_engine(ledger)
    with other.begin() as reader:
        reader.execute(sa.select(callbacks.c.id)).all()
        with pytest.raises(ErasureError, match="run the same erasure again"):
            tidy_up(engine, [callbacks], lock_wait_s=1)
    assert tidy_up(engine, [callbacks]) == ()
    engine.dispose()
    other.dispose()
