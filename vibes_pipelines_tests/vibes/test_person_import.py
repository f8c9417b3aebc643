"""Person import files read back as they were written; reports add up."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sync_config import FieldType
from vibes_pipelines.vibes.person_import import (
    CannotExpress,
    ImportFileError,
    ImportReportError,
    RowError,
    cells,
    check_expressible,
    read_import,
    read_report,
)
from vibes_pipelines_tests.support.import_rows import write_persons

COLUMNS = ("external_person_id", "first_name", "interests")
SUMMARY = "rows,created,updated,unchanged,rejected\n"
REPORT = "row_number,error_class,error_message\n"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def test_the_bytes_are_those_of_the_documented_example(tmp_path: Path) -> None:
    path = tmp_path / "a.persons"
    rows = [("C-1", "Ada", "golf|hockey"), ("C-2", 'Smith, "Al"', ""), ("C-3", " x\ny", "")]
    write_persons(path, COLUMNS, rows)
    assert path.read_bytes() == (
        b"external_person_id,first_name,interests\n"
        b"C-1,Ada,golf|hockey\n"
        b'C-2,"Smith, ""Al""",\n'
        b'C-3," x\ny",\n'
    )


@given(st.lists(st.tuples(st.text("abC-1", min_size=1), texts, texts), max_size=8))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("import") / "a.persons"
    write_persons(path, COLUMNS, rows)
    read = read_import(path)
    assert (read.name, read.columns, read.rows) == ("a.persons", COLUMNS, rows)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_section_names_fields_and_delimiter(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.persons"
    lines = ["Fields: external_person_id, first_name", "DELIMITER: ;", "", "C-1;Ada", "C-2;", ""]
    path.write_bytes(end.join(lines).encode())
    read = read_import(path)
    assert read.columns == ("external_person_id", "first_name")
    assert read.rows == [("C-1", "Ada"), ("C-2", "")]


def test_without_fields_header_the_first_body_row_names_them(tmp_path: Path) -> None:
    path = tmp_path / "a.persons"
    path.write_text("Delimiter: |\n\nmdn|first_name\n+13125550142|Ada\n", encoding="utf-8")
    assert read_import(path).columns == ("mdn", "first_name")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("first_name",), "a.persons: no identifying column; one of external_person_id, mdn"),
        (("mdn", "mdn"), "a.persons: columns stand twice: mdn"),
    ],
)
def test_a_file_the_platform_would_refuse_is_not_written(
    tmp_path: Path, columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ImportFileError, match=message):
        write_persons(tmp_path / "a.persons", columns, [])


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.persons"
    path.write_bytes(b"mdn\n\xff\n")
    with pytest.raises(ImportFileError, match=r"a\.persons: not UTF-8 at byte 4"):
        read_import(path)


def cell(value: str | None, field_type: FieldType) -> str:
    """The cell of one change, as the planner allows it and the writer makes it."""
    check_expressible(value, field_type, "clear" if value is None else "set")
    (text,) = cells(pa.chunked_array([[value]], pa.string()), field_type).to_pylist()
    return str(text)


@pytest.mark.parametrize(
    ("value", "field_type", "expected"),
    [
        ("Ada", "string", "Ada"),
        ("1990-12-01", "date", "1990-12-01T00:00:00Z"),
        ("1990-12-01T08:30:00Z", "date", "1990-12-01T08:30:00Z"),
        ("12.5", "number", "12.5"),
        ("golf|hockey", "multi_select", "golf|hockey"),
    ],
)
def test_a_cell_that_sets(value: str, field_type: FieldType, expected: str) -> None:
    assert cell(value, field_type) == expected


@pytest.mark.parametrize("field_type", ["single_select", "multi_select"])
def test_a_blank_cell_clears_a_select(field_type: FieldType) -> None:
    assert cell(None, field_type) == ""


@pytest.mark.parametrize("field_type", ["string", "number", "date", "postal_code"])
def test_an_import_cannot_clear_other_fields(field_type: FieldType) -> None:
    with pytest.raises(CannotExpress, match=f"cannot clear a {field_type} field; .* API"):
        cell(None, field_type)
    with pytest.raises(CannotExpress, match=f"cannot clear a {field_type} field; .* API"):
        cells(pa.chunked_array([["x", None]], pa.string()), field_type)


BLANKS = [chr(code) for code in range(0x110000) if chr(code).isspace()]


@pytest.mark.parametrize("value", [None, "", "[null]", *BLANKS, "".join(BLANKS)])
def test_a_value_that_would_mean_something_else_is_not_set(value: str | None) -> None:
    with pytest.raises(CannotExpress, match="would not be read as one"):
        check_expressible(value, "string", "set")


def test_a_report_tells_each_refused_row() -> None:
    report = read_report(
        REPORT + '2,PersonErrors::PersonNotFound,"Person, not found"\n', SUMMARY + "3,1,1,0,1\n"
    )
    assert (report.rows, report.created, report.updated, report.unchanged) == (3, 1, 1, 0)
    assert report.errors == {2: RowError("PersonErrors::PersonNotFound", "Person, not found")}
    assert report.file_error is None


def test_row_0_is_an_error_of_the_whole_file() -> None:
    report = read_report(
        REPORT + "0,PersonErrors::InvalidImportFileFormat,no column\n", SUMMARY + "3,0,0,0,3\n"
    )
    assert report.file_error == RowError("PersonErrors::InvalidImportFileFormat", "no column")


@pytest.mark.parametrize(
    ("report", "summary", "message"),
    [
        (REPORT, SUMMARY + "3,1,1,0,0\n", "do not add up: 3 rows, 2 applied, 0 rejected"),
        (REPORT, SUMMARY + "3,1,1,0,1\n", "1 rejected, 0 rows with an error; ask Vibes"),
        (REPORT, SUMMARY, "summary: 0 rows, expected exactly one"),
        (REPORT, "rows,created\n1,1\n", "summary: no column updated, unchanged, rejected"),
        ("row_number\n", SUMMARY + "0,0,0,0,0\n", "report: no column error_class, error_message"),
        (REPORT + "x,a,b\n", SUMMARY + "1,0,0,0,1\n", "report: row_number is 'x'"),
        (REPORT, SUMMARY + "many,0,0,0,0\n", "summary: rows is 'many', expected a whole number"),
    ],
)
def test_a_malformed_answer_is_refused(report: str, summary: str, message: str) -> None:
    with pytest.raises(ImportReportError, match=message):
        read_report(report, summary)
