"""What the writer of import files says, the independent reader model reads, whatever the text."""

from contextlib import nullcontext
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.vibes.import_errors import ImportFileUnwritable
from vibes_pipelines.vibes.import_kinds import (
    KINDS,
    ImportKind,
    import_name,
    kind_of,
    report_name,
    summary_name,
)
from vibes_pipelines.vibes.import_reader import read_file
from vibes_pipelines.vibes.import_writer import (
    Layout,
    PartLimits,
    Table,
    split_rows,
    write_columns,
    write_parts,
    write_table,
)
from vibes_pipelines.vibes.person_import import CannotExpress, ImportFileError, cells
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.import_rows import write_persons

HOSTILE = [
    "",
    " ",
    '"',
    '""',
    '"a"b',
    ",",
    ";",
    "|",
    "a\nb",
    "a\r\nb",
    "\r",
    "\n\n",
    "\x85\u2028\u2029",
    "\ufeff",
    "\t",
    "=1+1",
    "=HYPERLINK(0)",
    "-1",
    "@SUM(A1)",
    "+13125550142",
    "007",
    "1e5",
    "مرحبا\u202e",
    "👩‍👩‍👧",
    "e\u0301",
    "NULL",
    "[null]",
    "Fields: mdn",
    "Delimiter: ;",
    "#",
    "\\",
    "'",
]
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)
layouts = st.builds(
    Layout,
    delimiter=st.sampled_from(",;"),
    fields_in_header=st.booleans(),
)
COLUMNS = {
    "persons": ("external_person_id", "first_name"),
    "subscriptions": ("mdn", "subscription_list_id"),
    "opt_outs": ("person_key", "mdn"),
    "recipient_list": ("vibes_device_id", "offer"),
    "wallet_update": ("uuid", "tier"),
}


@pytest.mark.parametrize("kind", COLUMNS)
@settings(max_examples=examples(60))
@given(layout=layouts, rows=st.lists(st.tuples(texts, texts), max_size=6))
def test_every_kind_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    kind: ImportKind,
    layout: Layout,
    rows: list[tuple[str, str]],
) -> None:
    path = tmp_path_factory.mktemp("import") / import_name("a", kind)
    write_table(path, Table(kind, COLUMNS[kind], layout), rows)
    read = read_file(path)
    assert (read.columns, read.rows) == (COLUMNS[kind], rows)
    assert not path.read_bytes().startswith(b"\xef\xbb\xbf"), "no byte order mark"


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.sampled_from(",;"))
def test_a_part_has_exactly_the_bytes_that_its_rows_were_counted_as(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("import") / "a.persons"
    table = Table("persons", COLUMNS["persons"], Layout(delimiter))
    write_table(path, table, rows)
    size = path.stat().st_size
    assert len(list(split_rows(table, rows, PartLimits(max_bytes=size)))) == 1
    fewest = size - 1
    with pytest.raises(ImportFileError) if len(rows) == 1 else nullcontext():
        assert len(list(split_rows(table, rows, PartLimits(max_bytes=fewest)))) > 1


BLANKS = [chr(code) for code in range(0x110000) if chr(code).isspace()]


@pytest.mark.parametrize("others", [[], [(" ", "x")]], ids=["by the engine", "by hand"])
def test_what_a_reader_could_trim_or_skip_is_quoted_and_nothing_else(
    tmp_path: Path, others: list[tuple[str, str]]
) -> None:
    quoted = [f"{mark}a" for mark in BLANKS] + [f"a{mark}" for mark in BLANKS] if others else []
    quoted += ["#", "a#b", "a,b", 'a"b', "\n", "a\rb", '"']
    plain = ["a b", "a\u3000b", "a\tb", "a;b", "a|b", "\u200b", "\ufeffa", "'", "\\", "007"]
    path = tmp_path / "a.persons"
    rows = [(text, "") for text in quoted + plain] + others
    write_persons(path, ("mdn", "note"), rows)
    body = path.read_bytes().decode().removeprefix("mdn,note\n")
    lines = [f"{_quoted(text)},\n" for text in quoted] + [f"{text},\n" for text in plain]
    assert body == "".join(lines) + ('" ",x\n' if others else "")
    assert read_file(path).rows == rows


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def test_columns_are_written_as_rows_are(tmp_path: Path) -> None:
    table = Table("persons", ("mdn", "tier"), Layout(";"))
    write_table(tmp_path / "rows.persons", table, [("+1", "a;b"), ("+2", "")])
    columns = pa.table({"mdn": ["?", "+1", "+2"], "tier": ["", "a;b", ""]})
    with duckdb.connect() as engine:
        write_columns(tmp_path / "columns.persons", table, columns.slice(1), engine)
    written = (tmp_path / "columns.persons").read_bytes()
    assert written == (tmp_path / "rows.persons").read_bytes()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mdn": ["+1", "+2"], "tier": [None, "x"]}, "a.persons: column 2 has rows without a text"),
        ({"mdn": ["+1"], "tier": ["x"], "a": ["y"]}, "a.persons: 3 columns of cells, not those"),
        ({"mdn": ["+1"], "tier": [1]}, "a.persons: column 2 holds int64, a cell is a string"),
        ({"tier": ["+1"], "mdn": ["x"]}, "a.persons: 2 columns of cells, not those of the file"),
    ],
)
def test_columns_that_are_no_rows_are_refused(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    table = Table("persons", ("mdn", "tier"))
    with duckdb.connect() as engine, pytest.raises(ImportFileError, match=message):
        write_columns(tmp_path / "a.persons", table, pa.table(columns), engine)


@pytest.mark.parametrize("rows", [0, 1, 200_000])
def test_a_full_disk_is_told_with_place_and_cure_and_leaves_no_half(
    tmp_path: Path, rows: int
) -> None:
    path = tmp_path / "a.persons"
    path.symlink_to("/dev/full")
    with pytest.raises(ImportFileUnwritable) as raised:
        write_table(path, Table("persons", ("mdn", "tier")), [("+13125550142", "gold")] * rows)
    assert str(raised.value) == (
        f"{path} cannot be written: No space left on device; make room on this disk, or let this "
        "user write into the folder, and deliver again: nothing of this file has left"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [0, 1])
def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "gone" / "a.persons"
    with pytest.raises(ImportFileUnwritable, match=r"gone/a\.persons cannot be written: .* folder"):
        write_table(path, Table("persons", ("mdn",)), [("+13125550142",)] * rows)


@given(st.lists(st.tuples(texts), max_size=6), st.booleans())
def test_a_single_column_loses_no_blank_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str]], in_header: bool
) -> None:
    path = tmp_path_factory.mktemp("import") / "a.persons"
    write_persons(path, ("mdn",), rows, Layout(fields_in_header=in_header))
    assert read_file(path).rows == rows


@given(
    st.lists(st.tuples(texts, texts), max_size=12),
    st.integers(1, 5),
    st.integers(400, 900),
)
def test_parts_hold_all_rows_in_order_within_the_limits(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    max_rows: int,
    max_bytes: int,
) -> None:
    table = Table("persons", COLUMNS["persons"], Layout(delimiter=";"))
    folder = tmp_path_factory.mktemp("parts")
    parts = write_parts(folder, "a", table, rows, PartLimits(max_rows, max_bytes))
    assert [part.path.name for part in parts] == [
        f"a-{number:03d}.persons" for number in range(1, len(parts) + 1)
    ]
    assert all(part.rows <= max_rows for part in parts)
    assert all(part.path.stat().st_size <= max_bytes for part in parts)
    assert [row for part in parts for row in read_file(part.path).rows] == rows


def test_the_header_section_has_the_documented_form(tmp_path: Path) -> None:
    path = tmp_path / "a.opt_outs"
    layout = Layout(";", fields_in_header=True, headers={"Subscription-List-ID": "1234"})
    write_table(path, Table("opt_outs", ("person_key", "mdn"), layout), [("p;1", "+1")])
    assert path.read_bytes() == (
        b"Content-Type: TEXT\n"
        b"Subscription-List-ID: 1234\n"
        b"Fields: person_key,mdn\n"
        b"Delimiter: ;\n"
        b"\n"
        b'"p;1";+1\n'
    )
    assert read_file(path).headers == {
        "content-type": "TEXT",
        "subscription-list-id": "1234",
        "fields": "person_key,mdn",
        "delimiter": ";",
    }


def test_a_column_that_looks_like_a_header_may_stand_second(tmp_path: Path) -> None:
    path = tmp_path / "a.persons"
    columns, rows = ("mdn", "Tier: x;y"), [("k: v", "x\n\ny")]
    for layout in (Layout(), Layout(";"), Layout(fields_in_header=True)):
        write_persons(path, columns, rows, layout)
        assert (read_file(path).columns, read_file(path).rows) == (columns, rows)


def test_names_stand_in_the_first_row_when_the_header_does_not_have_them(tmp_path: Path) -> None:
    path = tmp_path / "a.persons"
    write_persons(path, ("mdn", "tags"), [("+1", "a;b")], Layout("|", ";"))
    assert path.read_text(encoding="utf-8") == (
        "Delimiter: |\nMulti-Select-Delimiter: ;\n\nmdn|tags\n+1|a;b\n"
    )
    assert read_file(path).multi_select_delimiter == ";"


def test_a_multi_select_is_joined_as_its_file_says() -> None:
    joined = cells(pa.chunked_array([["golf|hockey", None]], pa.string()), "multi_select", ";")
    assert joined.to_pylist() == ["golf;hockey", ""]
    text = pa.chunked_array([["golf|hockey"]])
    assert cells(text, "string", ";") == text
    with pytest.raises(CannotExpress, match="an option key holds ;"):
        cells(pa.chunked_array([["golf;1|hockey"]]), "multi_select", ";")


def test_a_part_too_small_for_one_row_is_an_error(tmp_path: Path) -> None:
    table = Table("persons", ("mdn",))
    with pytest.raises(ImportFileError, match="row 2 alone has 51 bytes, a file may have 20"):
        write_parts(tmp_path, "a", table, [("1",), ("x" * 50,)], PartLimits(max_bytes=20))


@pytest.mark.parametrize(
    ("kind", "columns", "layout", "message"),
    [
        ("persons", ("mdn", ""), Layout(), "no column can have the name ''; rename it"),
        ("persons", ("mdn", " tier"), Layout(), "no column can have the name ' tier'"),
        ("persons", ("mdn", "a,b"), Layout(), "no column can have the name 'a,b'"),
        ("persons", ("Tier: x", "mdn"), Layout(), "'Tier: x', would be read as a header; move"),
        ("persons", ("\ufeffmdn", "mdn"), Layout(), "no column can have the name"),
        ("persons", ("mdn", "a\nb"), Layout(), "no column can have the name"),
        ("persons", ("person_key", "tier"), Layout(), "no identifying column; one of external_"),
        ("wallet_update", ("mdn",), Layout(), "no identifying column; one of uuid"),
        ("persons", ("mdn",), Layout("\t"), r"delimiter '\\t': use one of , ; |"),
        ("persons", ("mdn",), Layout("|"), "Delimiter and Multi-Select-Delimiter must differ"),
        ("opt_outs", ("mdn",), Layout(",", ";"), "no header Multi-Select-Delimiter; leave"),
        ("incentives", ("code",), Layout(";"), "it has no header section to say another form"),
        ("persons", ("mdn",), Layout(headers={"List-Name": "x"}), "no header List-Name"),
        ("recipient_list", ("mdn",), Layout(headers={"List-Name": "a\nb"}), "a line break in it"),
        ("recipient_list", ("mdn",), Layout(headers={"List-Name": " "}), "List-Name is blank"),
    ],
)
def test_what_the_platform_could_misread_is_not_written(
    kind: ImportKind, columns: tuple[str, ...], layout: Layout, message: str
) -> None:
    with pytest.raises(ImportFileError, match=message.replace("|", r"\|")):
        Table(kind, columns, layout)


def test_half_a_character_is_named_by_its_row(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"a\.persons: row 2 holds half a character"):
        write_table(tmp_path / "a.persons", Table("persons", ("mdn",)), [("+1",), ("\ud83d",)])


@pytest.mark.parametrize("cut", [0, 2], ids=["whole", "of a larger one"])
def test_a_nul_is_refused_by_its_row_and_column(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.persons"
    cells = pa.table({"mdn": ["?\0", "?", "+1", "+2"], "note": ["", "", "b", "a\0b"]}).slice(cut)
    clean = cells.slice(0 if cut else 1, 1)
    table = Table("persons", ("mdn", "note"))
    where = "row 2 holds NUL in column 2" if cut else "row 1 holds NUL in column 1"
    with duckdb.connect() as engine:
        with pytest.raises(ImportFileError, match=rf"a\.persons: {where}; send .* through the API"):
            write_columns(path, table, cells, engine)
        assert not path.exists()
        write_columns(path, table, clean, engine)
    assert read_file(path).cells.num_rows == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.persons", "mdn,b\n+1,\0\n", "NUL at byte 9, which no text has"),
        ("a.csv", "mdn\n", r"a\.csv: no import file; its name must end in one of persons"),
        ("a.persons", 'mdn,b\n"x"y,1\n', r"a\.persons: line 2 of the body is malformed"),
        ("a.persons", 'mdn\n"x\n', "of the body is malformed: unexpected end of data"),
        ("a.persons", "List-Name: x\n\nmdn\n", "persons files have no header list-name"),
        ("a.persons", "Delimiter: ab\n\nmdn\n", "header delimiter must be one character"),
        *(
            ("a.persons", f"Delimiter: {mark}\n\nmdn{mark}b\n", "must be an ASCII character")
            for mark in '·"'
        ),
        ("a.opt_outs", "first_name\nAda\n", "no identifying column"),
        ("a.opt_outs", "mdn,tier\n+1\n", "row 1 has 1 cells, expected 2"),
        ("a.opt_outs", "mdn,tier\n+1,a\n+1,a,b\n", "row 2 has 3 cells, expected 2"),
        ("a.persons", 'mdn,b\nx"y",1\n', "a quote stands inside a cell without quotes"),
        ("a.persons", 'mdn,b\nx"y,1\n', "a quote stands inside a cell without quotes"),
        ("a.persons", 'mdn,b\n"x" "y",1\n', "line 2 of the body is malformed"),
        ("a.persons", 'mdn,b\n""x"",1\n', "line 2 of the body is malformed"),
    ],
)
def test_a_file_the_platform_would_refuse_is_not_read(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ImportFileError, match=message):
        read_file(path)


@pytest.mark.parametrize("end", ["", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("row", ["mdn", "mdn,b", 'mdn,"b\nc"', "Multi-Select-Delimiter: ;\n\nmdn"])
def test_a_row_of_names_alone_is_a_file_without_rows(tmp_path: Path, row: str, end: str) -> None:
    path = tmp_path / "a.persons"
    path.write_text(row + end, encoding="utf-8", newline="")
    assert (read_file(path).columns[0], read_file(path).rows) == ("mdn", [])


def test_a_byte_order_mark_of_others_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "a.persons"
    path.write_bytes(b"\xef\xbb\xbfmdn\r\n+1\r\n")
    assert read_file(path).columns == ("mdn",)


@pytest.mark.parametrize("kind", KINDS)
def test_the_extension_is_the_kind_and_reports_follow_the_name(kind: ImportKind) -> None:
    name = import_name("2026-01-01-a", kind)
    assert name == f"2026-01-01-a.{kind}"
    assert kind_of(name) == kind
    assert (report_name(name), summary_name(name)) == (f"{name}.report.csv", f"{name}.summary.csv")


def test_both_spellings_of_a_person_file_are_known() -> None:
    assert kind_of("a.person") == "persons"
