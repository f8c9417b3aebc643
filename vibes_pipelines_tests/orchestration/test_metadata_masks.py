"""Previews show our own words of our own files, and of landed feeds nothing."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.orchestration.metadata import SHOWN_COLUMNS, file_metadata
from vibes_pipelines.stages.project import Project


def _preview(path: Path, project: Project, *shown: Any) -> str:
    preview: Any = file_metadata(path, project, *shown)["preview"]
    return str(preview.value)


def _project(home: Path) -> Project:
    return cast("Project", SimpleNamespace(settings=SimpleNamespace(home=home)))


def test_a_landed_column_with_a_name_of_ours_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"status": ["widowed"], "changes": ["moved"]}), path)
    landed = _preview(path, _project(tmp_path))
    assert re.fullmatch(r"\| #[0-9a-f]{8} \| #[0-9a-f]{8} \|", landed.splitlines()[2])
    assert "widowed" in _preview(path, _project(tmp_path), SHOWN_COLUMNS)


def test_changes_show_what_is_done_and_no_value(tmp_path: Path) -> None:
    path = tmp_path / "person_changes.parquet"
    changes = [{"field": "tier", "action": "set", "before": "Ada", "after": "Bob"}]
    pq.write_table(pa.table({"changes": [changes]}), path)
    shown = _preview(path, _project(tmp_path), SHOWN_COLUMNS)
    assert shown.splitlines()[2] == "| set tier |"


def test_everybody_who_asks_at_once_gets_one_key(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"mdn": ["+13125550142"]}), path)
    with ThreadPoolExecutor(8) as readers:
        previews = set(readers.map(lambda _: _preview(path, _project(tmp_path)), range(16)))
    assert len(previews) == 1
    key = tmp_path / "hash.key"
    assert (key.stat().st_size, key.stat().st_mode & 0o777) == (32, 0o600)
    assert {entry.name for entry in tmp_path.iterdir()} == {"hash.key", "data.parquet"}
