"""Wherever Dagster keeps its runs, what still tells an erased person there is named."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.erasing_leftovers import leftovers
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject
from vibes_pipelines.store.database import open_engine

WHOM = Subject("Quentin-42", ("c0ffee-42",), ("+13125550042",))


def test_the_folder_of_dagsters_runs_is_searched_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, instance, storage = (tmp_path / name for name in ("data", "dagster", "runs"))
    for folder in (home, instance, storage):
        folder.mkdir()
    settings = Settings({"VIBES_HOME": str(home)})
    log = storage / "compute.log"
    log.write_text("somebody printed quentin-42\n", encoding="utf-8")
    (storage / "other.log").write_text("of Quentin-421\n", encoding="utf-8")
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(instance))
    monkeypatch.delenv("VIBES_DAGSTER_STORAGE", raising=False)
    assert list(leftovers(settings, WHOM)) == []
    monkeypatch.setenv("VIBES_DAGSTER_STORAGE", str(storage))
    assert list(leftovers(settings, WHOM)) == [str(log)]
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # with the storage in it: told once
    assert list(leftovers(settings, WHOM)) == [str(log)]


@pytest.mark.postgresql
def test_the_tables_of_dagster_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    engine = open_engine(postgresql_url)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE event_logs (id serial, event text)",
            "CREATE TABLE job_ticks (id serial, status varchar(63), tick_body text)",
            "INSERT INTO event_logs (event) VALUES ('to +13125550042!'), ('of C0FFEE-421')",
            "INSERT INTO job_ticks (status, tick_body) VALUES ('FAILED', 'C0FFEE-42')",
        ):
            connection.execute(sa.text(statement))
    engine.dispose()
    url = sa.make_url(postgresql_url).set(drivername="postgresql+psycopg2")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url.render_as_string(hide_password=False))
    assert list(leftovers(Settings({"VIBES_HOME": str(tmp_path)}), WHOM)) == [
        "Dagster's PostgreSQL: event_logs.event (1 rows)",
        "Dagster's PostgreSQL: job_ticks.tick_body (1 rows)",
    ]


def test_tables_that_nobody_can_read_stop_the_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://u:secret@127.0.0.1:1/dagster")
    with pytest.raises(ErasureError, match="DAGSTER_POSTGRES_URL") as failed:
        list(leftovers(Settings({"VIBES_HOME": str(tmp_path)}), WHOM))
    assert "secret" not in str(failed.value)
