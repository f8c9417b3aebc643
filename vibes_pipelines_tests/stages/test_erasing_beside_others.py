"""Erasing while others work, and after processes that died: nothing is brought back or skipped."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.reconcile.cases import build_cases
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.stages import erasing_parquet
from vibes_pipelines.stages.changes import carry_changes
from vibes_pipelines.stages.delivering import Options, push_persons
from vibes_pipelines.stages.erase_lock import LOCK, no_erasure, nothing_moves
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.project import Project
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.support.deliveries import BY_API
from vibes_pipelines_tests.support.landed_days import SYNC, Row, landed_project, reconciled

DAYS = ["2026-01-01", "2026-01-02"]
KEY = "Quentin-42"
CONTACTS: list[Row] = [
    {"id": "B1", "phone": "+13125550001", "name": "Bea", "level": "Gold"},
    {"id": KEY, "phone": "(312) 555-0042", "name": "Quentin", "level": "Gold"},
]
ALONE = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch, ALONE) as opened:
        reconciled(opened, DAYS[0], CONTACTS, [])
        yield opened


def half_of(path: Path, into: Path) -> None:
    into.mkdir(parents=True)
    raw = path.read_bytes()
    (into / path.name).write_bytes(raw[: len(raw) // 2])


def test_what_processes_that_died_left_is_removed(project: Project) -> None:
    home = project.settings.home
    landed = home / "landing/crm/contacts" / DAYS[0]
    left = [
        landed / ".erasing-abcd1234",
        home / "diff_sets" / f"{DAYS[1]}.draft",
        home / "diff_sets/.unfinished-abcd",
        home / "bases/.unfinished-abcd",
        landed.with_name(".removing-2025-01-01"),
        home / ".preview-abcd" / "landing",
    ]
    for folder in left:
        half_of(landed / "data.parquet", folder)
    erase(project, KEY, "asked for", "ann", dry_run=True)
    assert all(folder.is_dir() for folder in left)
    erase(project, KEY, "asked for", "ann")
    assert not any(folder.exists() for folder in left)
    assert not (home / ".preview-abcd").exists()


def test_an_erasure_killed_in_the_middle_of_a_file_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stays(prefix: str, dir: Path) -> Iterator[str]:  # noqa: A002 - as it is called
        yield tempfile.mkdtemp(prefix=prefix, dir=dir)

    def die(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasing_parquet, "tempfile", SimpleNamespace(TemporaryDirectory=stays))
        patch.setattr("pyarrow.parquet.ParquetWriter.write_table", die)
        with pytest.raises(KeyboardInterrupt):
            erase(project, KEY, "asked for", "ann")
    assert list(project.settings.home.rglob(".erasing-*/*.parquet"))
    erase(project, KEY, "asked for", "ann")
    assert not list(project.settings.home.rglob(".erasing-*"))


def test_a_landing_is_waited_for_unless_it_died_long_ago(project: Project) -> None:
    landed = project.settings.home / "landing/crm/contacts" / DAYS[0]
    landing = landed.with_name(".unfinished-abcd")
    half_of(landed / "data.parquet", landing)
    with pytest.raises(ErasureError, match="a landing is under way; run the same erase again"):
        erase(project, KEY, "asked for", "ann")
    long_ago = time.time() - 7 * 3600
    os.utime(landing, (long_ago, long_ago))
    erase(project, KEY, "asked for", "ann")
    assert not landing.exists()


def test_a_file_that_cannot_be_read_is_named_with_the_cure(project: Project) -> None:
    broken = project.settings.home / "diff_sets" / DAYS[0] / "person_changes.parquet"
    other = project.settings.home / "copies" / "data.parquet"
    half_of(broken, other.parent)
    (other.parent / broken.name).rename(other)
    with pytest.raises(ErasureError, match=r"copies/data.parquet: cannot be read .* restore it"):
        erase(project, KEY, "asked for", "ann")
    shutil.rmtree(other.parent)
    erase(project, KEY, "asked for", "ann")


def test_an_erasure_waits_its_turn_while_a_day_is_reconciled(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the rows that were read before it would be written after it."""
    said = []

    def meanwhile(
        connection: duckdb.DuckDBPyConnection, config: SyncConfig, contacts: Source
    ) -> None:
        with pytest.raises(ErasureError, match="run the same erase again after it") as refused:
            erase(project, KEY, "asked for", "ann")
        said.append(refused)
        build_cases(connection, config, contacts)

    monkeypatch.setattr("vibes_pipelines.reconcile.run.build_cases", meanwhile)
    reconciled(project, DAYS[1], CONTACTS, [])
    assert len(said) == 1
    erase(project, KEY, "asked for", "ann")


def test_a_diff_set_that_waits_is_planned_without_who_was_erased_since(project: Project) -> None:
    waiting = project.ledger.newest_diff_set()
    assert waiting is not None
    erase(project, KEY, "asked for", "ann")
    folder = project.diff_set_folder(DAYS[0])
    plan(waiting.diff_set, folder, project.config, project.ledger, BY_API)
    planned = project.ledger.open_operations(waiting.diff_set, "persons", "api")
    assert [one.external_person_id for one in planned] == ["B1"]


def test_nothing_is_sent_while_somebody_is_erased(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each road asks for the lock of its data folder before it looks at anything."""
    asked = []

    def stop(_settings: object) -> None:
        asked.append(LOCK)
        raise KeyboardInterrupt

    monkeypatch.setattr("vibes_pipelines.stages.erase_lock.no_erasure", stop)
    with pytest.raises(KeyboardInterrupt):
        push_persons(project, DAYS[0], Options())
    with pytest.raises(KeyboardInterrupt):
        carry_changes(project)
    assert len(asked) == 2


def test_the_lock_is_shared_by_all_who_move_rows_and_held_alone_by_an_erasure(
    project: Project,
) -> None:
    settings = project.settings
    with (
        no_erasure(settings),
        no_erasure(settings.of_destination("apsis")),
        pytest.raises(RuntimeError, match="reconciled, delivered or previewed"),
        nothing_moves(settings),
    ):
        pass
    with nothing_moves(settings):
        pass


def test_an_identifier_too_short_to_be_searched_for_is_told(project: Project) -> None:
    result = CliRunner().invoke(main, ["erase", "B1", "--reason", "asked for", "--by", "ann"])
    assert result.exit_code == 1
    assert "not searched: 1 identifiers are too short" in result.stderr
