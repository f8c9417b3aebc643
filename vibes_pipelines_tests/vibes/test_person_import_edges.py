"""Import files at the edges: the shortest headers, no rows at all, cells that need no quotes."""

from pathlib import Path

import pyarrow as pa
import pytest

from vibes_pipelines.vibes.person_import import (
    SUFFIX,
    ImportFileError,
    ImportReportError,
    RowError,
    cells,
    read_import,
    read_report,
)
from vibes_pipelines_tests.support.import_rows import write_persons

SUMMARY = "rows,created,updated,unchanged,rejected\n"
REPORT = "row_number,error_class,error_message\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"a{SUFFIX}"


def test_the_platform_knows_a_person_import_by_its_suffix() -> None:
    assert SUFFIX == ".persons"


def test_a_file_without_rows_has_none(path: Path) -> None:
    write_persons(path, ("mdn", "first_name"), [])
    assert path.read_bytes() == b"mdn,first_name\n"
    assert read_import(path).rows == []


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("Ada ", '"Ada "'),
        (" Ada", '" Ada"'),
        ("a\rb", '"a\rb"'),
        ('5"', '"5"""'),
        ("a,b", '"a,b"'),
    ],
)
def test_only_what_would_be_misread_stands_in_quotes(path: Path, value: str, written: str) -> None:
    write_persons(path, ("mdn", "first_name"), [("+13125550142", value)])
    assert path.read_bytes().decode() == f"mdn,first_name\n+13125550142,{written}\n"


@pytest.mark.parametrize("column", ["external_person_id", "mdn", "vibes_device_id"])
def test_each_identifier_alone_identifies_a_person(path: Path, column: str) -> None:
    write_persons(path, (column,), [("x",)])
    assert read_import(path).columns == (column,)


@pytest.mark.parametrize("between", ["", " ", "\t", " \t "])
def test_a_header_may_have_any_blanks_before_its_value(path: Path, between: str) -> None:
    path.write_text(f"Delimiter:{between};\n\nmdn;tier\n1;gold\n", encoding="utf-8")
    assert read_import(path).rows == [("1", "gold")]


@pytest.mark.parametrize("first", ["mdn", "mdn,a: b", "-a: b"])
def test_a_first_line_that_is_no_header_is_the_first_row_of_the_body(
    path: Path, first: str
) -> None:
    path.write_text(f"{first},external_person_id\n", encoding="utf-8")
    assert read_import(path).columns == (*first.split(","), "external_person_id")


def test_a_byte_order_mark_is_no_part_of_the_first_name(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfmdn,tier\n1,gold\n")
    assert read_import(path).columns == ("mdn", "tier")


def test_headers_without_a_body_name_no_columns(path: Path) -> None:
    path.write_text("Delimiter: ;\n", encoding="utf-8")
    with pytest.raises(ImportFileError, match="no identifying column"):
        read_import(path)


def test_blank_lines_are_no_rows_and_a_short_row_is_told_by_its_number(path: Path) -> None:
    path.write_text("mdn,tier\n\n1,gold\n\n2\n", encoding="utf-8")
    with pytest.raises(ImportFileError, match=r"a\.persons: row 2 has 1 cells, expected 2"):
        read_import(path)


def test_every_repeated_column_is_named_once(path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"columns stand twice: mdn, tier$"):
        write_persons(path, ("tier", "mdn", "tier", "mdn", "mdn", "city"), [])


def test_a_file_without_an_identifier_is_told_which_there_are(path: Path) -> None:
    told = "one of external_person_id, mdn, vibes_device_id$"
    with pytest.raises(ImportFileError, match=told):
        write_persons(path, ("tier",), [])


def test_a_value_that_only_holds_the_marker_may_be_set() -> None:
    values = pa.chunked_array([["[null] is nothing"]])
    assert cells(values, "string") == values


def test_of_several_errors_of_a_row_the_first_is_kept() -> None:
    report = read_report(f"{REPORT}1,First,a\n1,Second,b\n", f"{SUMMARY}1,0,0,0,1\n")
    assert report.errors == {1: RowError("First", "a")}


def test_an_error_may_have_no_message() -> None:
    report = read_report(f"{REPORT}1,First\n", f"{SUMMARY}1,0,0,0,1\n")
    assert report.errors == {1: RowError("First", "")}


@pytest.mark.parametrize(
    "counts", ["3,1,1,1,1", "3,1,1,0,0", "4,1,1,1,0", "1,0,0,0,1", "2,0,0,1,2"]
)
def test_counts_that_do_not_add_up_are_refused(counts: str) -> None:
    with pytest.raises(ImportReportError, match="do not add up"):
        read_report(REPORT, f"{SUMMARY}{counts}\n")


def test_an_error_of_the_whole_file_needs_no_sum() -> None:
    report = read_report(f"{REPORT}0,Broken,x\n", f"{SUMMARY}3,0,0,0,0\n")
    assert report.file_error == RowError("Broken", "x")


@pytest.mark.parametrize("number", ["-1", "1.0", " 1", "1x", ""])
def test_a_row_number_is_a_whole_number(number: str) -> None:
    with pytest.raises(ImportReportError, match=r"^report: row_number is .* a whole number"):
        read_report(f"{REPORT}{number},A,b\n", f"{SUMMARY}1,0,0,0,1\n")


@pytest.mark.parametrize(
    ("report", "summary", "told"),
    [
        ("row_number\n", f"{SUMMARY}0,0,0,0,0\n", "^report: no column error_class, error_message;"),
        (REPORT, "rows,created,updated\n1,1,0\n", "^summary: no column unchanged, rejected;"),
        (REPORT, f"{SUMMARY}1,1,0,0,few\n", "^summary: rejected is 'few'"),
        (REPORT, f"{SUMMARY}1,1,0,0,0\n1,1,0,0,0\n", "^summary: 2 rows, expected exactly one"),
    ],
)
def test_an_answer_is_told_by_its_half(report: str, summary: str, told: str) -> None:
    with pytest.raises(ImportReportError, match=told):
        read_report(report, summary)


def test_what_was_applied_is_created_updated_or_unchanged() -> None:
    report = read_report(REPORT, f"{SUMMARY}6,1,2,3,0\n")
    assert (report.created, report.updated, report.unchanged) == (1, 2, 3)
