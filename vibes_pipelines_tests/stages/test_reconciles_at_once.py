"""Two reconciles of one day at once, as a Materialize beside the daily job: each is whole."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import open_project
from vibes_pipelines.stages.reconciling import read_summary, reconcile_day
from vibes_pipelines_tests.support.landed_days import Row, content_of, landed_project, reconciled

DAY = "2026-01-01"


def test_both_are_whole_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts: list[Row] = [{"id": f"c{n}", "phone": f"20655501{n:02}"} for n in range(50)]
    with landed_project(tmp_path, monkeypatch) as project:
        alone = reconciled(project, DAY, contacts, [])
        folder = project.diff_set_folder(DAY)
        content = content_of(folder)
        left = folder.with_name(".unfinished-killed")
        left.mkdir()

        def again(_number: int) -> str:
            with open_project(Settings()) as own:
                return reconcile_day(own, DAY).diff_set

        with ThreadPoolExecutor(max_workers=3) as pool:
            assert set(pool.map(again, range(6))) == {alone.diff_set}
        assert content_of(folder) == content
        assert sorted(entry.name for entry in folder.parent.iterdir()) == [".lock", DAY]
        newest = project.ledger.newest_diff_set()
        assert newest is not None
        assert newest.diff_set == read_summary(project, DAY).diff_set == alone.diff_set
