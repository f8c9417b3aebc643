"""The CRM's file: duplicates are possible, an edit is whole or not at all, SQLAlchemy reads it."""

from pathlib import Path

import pytest
import sqlalchemy

from vibes_pipelines.sandbox.crm import Crm
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.world import CONTACTS_SCHEMA, ContactRow


@pytest.fixture
def rows() -> list[ContactRow]:
    return build_world(1_000, seed=1).contacts


@pytest.fixture
def crm(tmp_path: Path, rows: list[ContactRow]) -> Crm:
    made = Crm(tmp_path / "crm.db")
    made.create(CONTACTS_SCHEMA, rows)
    return made


def test_rows_come_back_as_they_went_in(crm: Crm, rows: list[ContactRow]) -> None:
    assert crm.rows() == rows


def test_creating_again_replaces_the_table(crm: Crm, rows: list[ContactRow]) -> None:
    crm.create(CONTACTS_SCHEMA, rows[:3])
    assert crm.rows() == rows[:3]


def test_an_edit_that_fails_changes_nothing(crm: Crm, rows: list[ContactRow]) -> None:
    def fail() -> None:
        with crm.edit() as editor:
            editor.update(1, {"tier": "Gold", "zip": "00000"})
            editor.delete(2)
            raise RuntimeError("the power went off")

    with pytest.raises(RuntimeError, match="power"):
        fail()
    assert crm.rows() == rows


def test_an_edit_overwrites_only_the_named_columns_of_one_row(
    crm: Crm, rows: list[ContactRow]
) -> None:
    with crm.edit() as editor:
        editor.update(2, {"zip": "00501"})
    assert crm.rows() == [rows[0], rows[1] | {"zip": "00501"}, *rows[2:]]


def test_only_the_later_one_of_two_equal_ids_counts_as_repeated(
    crm: Crm, rows: list[ContactRow]
) -> None:
    with crm.edit() as editor:
        repeated = [editor.row(rowid)["contact_id"] for rowid in editor.repeated()]
        assert len(repeated) == len(set(repeated)) >= 2
        for rowid in editor.repeated():
            editor.delete(rowid)
        assert editor.repeated() == []
        with pytest.raises(KeyError, match="no row 100000"):
            editor.row(100_000)


def test_sqlalchemy_reads_typed_instants_through_the_url(crm: Crm) -> None:
    engine = sqlalchemy.create_engine(crm.url)
    try:
        contacts = sqlalchemy.Table("contacts", sqlalchemy.MetaData(), autoload_with=engine)
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.select(contacts)).mappings().all()
    finally:
        engine.dispose()
    assert [str(row["updated_at"]) for row in found] == [r["updated_at"] for r in crm.rows()]
    assert [row["score"] for row in found] == [r["score"] for r in crm.rows()]
