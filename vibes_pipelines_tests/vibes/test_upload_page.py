"""Files for the upload page: small enough, no row cut, each part a whole file of its own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.vibes.import_errors import ImportFileError, ImportFileUnwritable
from vibes_pipelines.vibes.import_reader import read_file
from vibes_pipelines.vibes.import_writer import (
    Layout,
    PartLimits,
    Table,
    WrittenFile,
    write_parts,
    write_table,
)
from vibes_pipelines.vibes.upload_page import BY_UPLOAD, remove_earlier, write_for_upload

COLUMNS = ("external_person_id", "first_name", "tier")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def person_file(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    path = folder / "day.persons"
    write_table(path, Table("persons", COLUMNS), rows)
    return path


def rows_of(parts: list[WrittenFile]) -> list[tuple[str, ...]]:
    return [row for part in parts for row in read_file(part.path).rows]


def test_the_limits_are_those_of_the_documentation() -> None:
    assert PartLimits(max_rows=100_000, max_bytes=5_000_000) == BY_UPLOAD


def test_a_file_within_the_limits_is_one_part_of_the_same_bytes(tmp_path: Path) -> None:
    path = person_file(tmp_path, [("C1", "Ada", "gold")])
    (part,) = write_for_upload(path, tmp_path)
    assert (part.path.name, part.rows) == ("day-001.persons", 1)
    assert part.path.read_bytes() == path.read_bytes()


def test_a_file_of_too_many_rows_is_split_by_rows(tmp_path: Path) -> None:
    rows = [(f"C{number}", "A", "") for number in range(100_001)]
    parts = write_for_upload(person_file(tmp_path, rows), tmp_path)
    assert [part.rows for part in parts] == [100_000, 1]
    assert rows_of(parts) == rows


def test_a_file_of_too_many_bytes_is_split_by_bytes(tmp_path: Path) -> None:
    rows = [(f"C{number}", "é" * 500, "gold") for number in range(6_000)]
    path = person_file(tmp_path, rows)
    parts = write_for_upload(path, tmp_path)
    sizes = [part.path.stat().st_size for part in parts]
    assert path.stat().st_size > BY_UPLOAD.max_bytes  # type: ignore[operator]
    assert len(parts) == 2
    assert 4_998_000 < sizes[0] <= 5_000_000, "the first is as full as its rows allow"
    assert rows_of(parts) == rows
    assert {read_file(part.path).columns for part in parts} == {COLUMNS}


def test_the_header_section_stands_above_every_part(tmp_path: Path) -> None:
    path = tmp_path / "day.opt_outs"
    layout = Layout(";", fields_in_header=True, headers={"Subscription-List-ID": "1234"})
    write_table(path, Table("opt_outs", ("person_key",), layout), [("a",), ("b",), ("c",)])
    parts = write_for_upload(path, tmp_path, PartLimits(max_rows=2))
    above = "Content-Type: TEXT\nSubscription-List-ID: 1234\nFields: person_key\nDelimiter: ;\n\n"
    assert [part.path.read_text(encoding="utf-8") for part in parts] == [
        f"{above}a\nb\n",
        f"{above}c\n",
    ]


@given(
    st.lists(st.tuples(st.from_regex(r"C[0-9]{1,4}", fullmatch=True), texts, texts), max_size=12),
    st.integers(1, 5),
    st.integers(400, 900),
)
def test_no_row_is_cut_lost_or_moved_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    max_rows: int,
    max_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    parts = write_for_upload(person_file(folder, rows), folder, PartLimits(max_rows, max_bytes))
    assert all(part.rows <= max_rows for part in parts)
    assert all(part.path.stat().st_size <= max_bytes for part in parts)
    assert rows_of(parts) == rows


def test_a_row_that_no_page_takes_is_named(tmp_path: Path) -> None:
    path = person_file(tmp_path, [("C1", "Ada", ""), ("C2", "x" * 200, "")])
    with pytest.raises(ImportFileError, match="row 2 alone has 205 bytes, a file may have 100"):
        write_for_upload(path, tmp_path, PartLimits(max_bytes=100))


def test_parts_that_would_say_something_else_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = person_file(tmp_path, [("C1", "Ada", ""), ("C2", "Bea", "")])

    def loses_a_row(
        folder: Path, stem: str, table: Table, rows: list[tuple[str, ...]], limits: PartLimits
    ) -> list[WrittenFile]:
        return write_parts(folder, stem, table, rows[:1], limits)

    monkeypatch.setattr("vibes_pipelines.vibes.upload_page.write_parts", loses_a_row)
    with pytest.raises(ImportFileError, match="its parts say something else"):
        write_for_upload(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = ("day.persons", "day-001.persons", "day-1000.persons")
    others = ("day-001.opt_outs", "day-001.persons.old", "day-1.persons", "day-x-001.persons")
    for name in (*left, *others):
        (tmp_path / name).touch()
    remove_earlier(tmp_path, "day.persons")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_what_cannot_be_removed_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "day-001.persons").mkdir()
    with pytest.raises(ImportFileUnwritable, match=r"left of day\.persons cannot be removed"):
        remove_earlier(tmp_path, "day.persons")
