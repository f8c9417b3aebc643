"""A contact is found by the key that the reconcile knows, and by nothing that only reads as it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from vibes_pipelines.crm.contacts import copy_contacts
from vibes_pipelines.crm.write_back import CrmTable
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.crm.test_crm_write_back import (
    ACCEPTED,
    NOT_FOUND,
    OptOutRow,
    build_config,
    url,
)

__all__ = ["url"]  # a fixture


def keyed(url: str, key_type: str, *keys: Any) -> sa.Engine:
    """A CRM whose keys are of this type; everybody is opted in."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE contacts (contact_id {key_type}, sms TEXT, sms_at TEXT)"
        )
        insert = sa.text("INSERT INTO contacts VALUES (:key, 'Y', NULL)")
        connection.execute(insert, [{"key": key} for key in keys])
    return engine


def opted_out(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT contact_id FROM contacts WHERE sms <> 'Y'")
        keys = [row[0] for row in found]
    engine.dispose()
    return keys


@pytest.mark.parametrize("key_type", ["INTEGER", "SMALLINT", "BIGINT", "NUMERIC(12,0)"])
def test_a_key_that_only_reads_as_a_number_is_nobody(url: str, key_type: str) -> None:
    engine = keyed(url, key_type, 7, 1000, 8)
    nobody = ["007", "1_000", "1e3", "\u0667", "7.0", "13125550142", "9" * 20, "NaN", "1e999999999"]
    rows = [OptOutRow(key) for key in [*nobody, " 8", " "]]
    answers = CrmTable(url, build_config()).apply_opt_outs(rows)
    assert answers == [*[NOT_FOUND] * len(nobody), ACCEPTED, NOT_FOUND]
    assert opted_out(engine) == [8]


@pytest.mark.parametrize("key_type", ["INTEGER", "NUMERIC(12,0)"])
def test_nobody_is_read_by_it_either(url: str, key_type: str, tmp_path: Path) -> None:
    engine = keyed(url, key_type, 7, 1000, 8)
    document = build_config().model_dump(by_alias=True)
    document["fields"] = [{"from": "sms", "to": "sms", "type": "string"}]
    config = SyncConfig.model_validate(document)
    with engine.connect() as connection:
        keys = ["007", "1e3", "13125550142", "9" * 20, "8"]
        assert copy_contacts(connection, config, tmp_path / "some.parquet", keys) == 1
    engine.dispose()
    [key] = pq.read_table(tmp_path / "some.parquet")["contact_id"].to_pylist()
    assert int(key) == 8


@pytest.mark.parametrize("key_type", ["TEXT", "VARCHAR(40)", "CHAR(40)"])
def test_a_contact_is_found_by_its_clean_key(url: str, key_type: str) -> None:
    held = ["C1 ", "\tC2\u00a0", "Zoe\u0308", "C4", "c4", "C5", " "]
    engine = keyed(url, key_type, *held)
    rows = [OptOutRow(key) for key in ("C1", "C2", "Zo\u00eb", "C4", "c5", "5", "", "\t")]
    answers = CrmTable(url, build_config()).apply_opt_outs(rows)
    assert answers == [*[ACCEPTED] * 4, *[NOT_FOUND] * 4]
    assert [key.rstrip(" ") for key in opted_out(engine)] == [k.rstrip(" ") for k in held[:4]]


def test_of_two_spellings_of_a_key_the_plain_one_is_meant(url: str) -> None:
    engine = keyed(url, "TEXT", "C1", "C1 ")
    assert CrmTable(url, build_config()).apply_opt_outs([OptOutRow("C1")]) == [ACCEPTED]
    assert opted_out(engine) == ["C1"]


def test_a_number_of_sqlite_is_found_by_its_text(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    engine = keyed(url, "REAL", 7, 8.5)
    answers = CrmTable(url, build_config()).apply_opt_outs([OptOutRow("7.0"), OptOutRow("8.5")])
    assert answers == [ACCEPTED, ACCEPTED]
    assert opted_out(engine) == [7.0, 8.5]
