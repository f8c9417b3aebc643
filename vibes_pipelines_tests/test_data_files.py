"""A path names one file to DuckDB, whatever its name and its folder's name look like."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.data_files import csv_file, exact, parquet

PACKAGE = Path(__file__).parents[1] / "vibes_pipelines"
# A name that is also a pattern, and a name that the pattern fits.
NAMES = [
    ("day[1]", "day1"),
    ("day[[]1]", "day[1]"),
    ("[!a]", "b"),
    ("s*", "s2"),
    ("**", "s2"),
    ("q?", "q2"),
    ("{a,b}", "a"),
    ("o'clock", "o"),
    ("day=[1]", "day=1"),
]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"who": [text], "region": ["US"]}), path.with_suffix(".parquet"))
    path.with_suffix(".csv").write_text(f"who,region\n{text},US\n")
    return path.with_suffix("")


def _rows(relation: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = duckdb.execute(f"SELECT * FROM {relation}").fetchall()
    return rows


@pytest.mark.parametrize(("name", "other"), NAMES)
@pytest.mark.parametrize("place", ["{}/data.x", "folder/{}.x", "region=DE/{}/{}.x"])
def test_the_file_that_is_named_is_read_and_no_other(
    tmp_path: Path, place: str, name: str, other: str
) -> None:
    wanted = _write(tmp_path / place.format(name, name), "wanted")
    _write(tmp_path / place.format(other, other), "other")
    data, text = wanted.with_suffix(".parquet"), wanted.with_suffix(".csv")
    assert _rows(parquet(data)) == [("wanted", "US")]
    assert _rows(csv_file(text)) == [("wanted", "US")]
    [(rows,)] = duckdb.execute(
        "SELECT num_rows FROM parquet_file_metadata(?)", [exact(data)]
    ).fetchall()
    assert rows == 1


def test_files_are_told_apart_by_their_paths_as_given(tmp_path: Path) -> None:
    files = [_write(tmp_path / name / "data.x", name).with_suffix(".parquet") for name, _ in NAMES]
    found = _rows(parquet(*files, filename="file", file_row_number=True))
    assert found == [(path.parent.name, "US", 0, str(path)) for path in files]


def test_no_other_module_reads_a_path() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "read_parquet(" in path.read_text(encoding="utf-8")
    }
    assert found == {"data_files.py"}
