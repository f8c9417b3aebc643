"""Every line of an extract becomes a row or a reject, and none is lost."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.vibes import extract_lines, extract_reader
from vibes_pipelines.vibes.extract_reader import ExtractError, convert_extract
from vibes_pipelines_tests.support.examples import examples

COLUMNS = ("mdn", "person_id", "activity")
HEADER = b"mdn\tperson_id\tactivity\n"

cells = st.text(st.sampled_from(list("a\"\\'#,é ;\r\x00NUL0|")), max_size=4)
lines = st.lists(st.lists(cells, min_size=0, max_size=5), max_size=12)
line_ends = st.lists(st.sampled_from(["\n", "\n", "\n", "\r\n"]), min_size=12, max_size=12)


def convert(folder: Path, content: bytes) -> int:
    path = folder / "extract.txt"
    path.write_bytes(content)
    return convert_extract(path, "subscriptions.txt", COLUMNS, folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "data.parquet").to_pylist()
    return found


def rejects(folder: Path) -> list[tuple[int, str, str]]:
    table = pq.read_table(folder / "rejects.parquet")
    return [tuple(reject.values()) for reject in table.to_pylist()]


def expected_of(content: str) -> tuple[list[tuple[str | None, ...]], dict[int, str]]:
    """The same reading by plain Python: rows, and the raw text of rejects by line."""
    good, bad = [], {}
    for number, line in enumerate(content.split("\n")[:-1], start=1):
        raw = line.removesuffix("\r")
        parts = raw.split("\t")
        if number == 1:
            continue
        if "\r" in raw or len(parts) != len(COLUMNS):
            bad[number] = line.rstrip("\r")
        else:
            good.append(tuple(part or None for part in parts))
    return good, bad


@pytest.mark.parametrize("name", ["day=2026", "mdn=1", "a[1]", "s*"])
def test_the_name_of_the_folder_changes_nothing(tmp_path: Path, name: str) -> None:
    for folder in ("a1", "s2", name):
        (tmp_path / folder).mkdir()
        convert(tmp_path / folder, HEADER + f"+1312\tp1\t{folder}\n".encode())
    assert rows(tmp_path / name) == [{"mdn": "+1312", "person_key": "p1", "activity": name}]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [2**20, 2**20 + 3, 3 * 2**20, 33 * 2**20])
def test_a_line_that_is_too_long_is_one_reject(tmp_path: Path, size: int, end: bytes) -> None:
    long = b"+1\t" + b"x" * (size - 5) + b"\ty"
    lines = [HEADER.rstrip(), b"+2\tp2\ta", long, b"+3\tp3\tb", b""]
    assert convert(tmp_path, end.join(lines)) == 3
    found = [row["mdn"] for row in rows(tmp_path)]
    if size == 2**20:
        assert found == ["+2", "+1", "+3"]
        return
    assert found == ["+2", "+3"]
    [(line, raw, reason)] = rejects(tmp_path)
    assert (line, len(raw), reason) == (3, size, "longer than 1,048,576 bytes")


def test_rows_are_text_as_they_stand_and_empty_cells_are_null(tmp_path: Path) -> None:
    assert convert(tmp_path, HEADER + b'+1312\tp1\t"quoted"\n\tp2\tNULL\n') == 2
    assert rows(tmp_path) == [
        {"mdn": "+1312", "person_key": "p1", "activity": '"quoted"'},
        {"mdn": None, "person_key": "p2", "activity": "NULL"},
    ]
    assert rejects(tmp_path) == []


def test_bad_lines_are_rejects_with_number_text_and_reason(tmp_path: Path) -> None:
    content = HEADER + b"1\tp1\ta\n2\tp2\n\n3\tp3\ta\tb\n4\tp4\t\xff\n5\tp\r5\ta\n6\tp6\ta\n"
    assert convert(tmp_path, content) == 7
    assert [row["person_key"] for row in rows(tmp_path)] == ["p1", "p6"]
    assert rejects(tmp_path) == [
        (3, "2\tp2", "2 columns, expected 3"),
        (4, "", "blank line"),
        (5, "3\tp3\ta\tb", "4 columns, expected 3"),
        (6, "4\tp4\t�", "not UTF-8"),
        (7, "5\tp\r5\ta", "carriage return inside the line"),
    ]


@settings(deadline=None, max_examples=examples(60))
@given(lines, line_ends)
def test_rows_and_rejects_are_those_of_a_plain_reading(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], ends: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("extract")
    body = "".join("\t".join(line) + end for line, end in zip(table, ends, strict=False))
    good, bad = expected_of(HEADER.decode() + body)

    assert convert(folder, HEADER + body.encode()) == len(good) + len(bad)
    assert [tuple(row.values()) for row in rows(folder)] == good
    assert {line: raw for line, raw, _ in rejects(folder)} == bad


@pytest.mark.parametrize("other", [b"", b"0\tp0\n", b"\n\n"])
def test_a_shifted_row_does_not_hide_behind_an_empty_last_cell(
    tmp_path: Path, other: bytes
) -> None:
    convert(tmp_path, HEADER + other + b"1\ta name with\ta tab\t\n2\tp2\ta\n")
    assert [row["mdn"] for row in rows(tmp_path)] == ["2"]
    assert rejects(tmp_path)[-1][1:] == ("1\ta name with\ta tab\t", "4 columns, expected 3")


plain_cells = st.text(st.sampled_from(list("a\"'#,é ;\x00N0|")), max_size=4)
plain_lines = st.lists(st.lists(plain_cells, min_size=2, max_size=4), max_size=12)


@settings(deadline=None, max_examples=examples(60))
@given(plain_lines, st.sets(st.integers(0, 11)))
def test_the_parser_s_own_rejects_are_those_of_the_sorted_file(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], broken: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("extract")
    lines = ["\t".join(line).encode() for line in table]
    lines = [line + b"\xff" * (place in broken) for place, line in enumerate(lines)]
    content = HEADER + b"".join(line + b"\n" for line in lines)

    assert convert(folder, content) == len(lines)
    parsed = rows(folder), rejects(folder)
    sort_all = pytest.MonkeyPatch()
    with sort_all.context() as patch:
        patch.setattr(extract_reader, "_read_as_it_is", lambda *_: None)
        assert convert(folder, content) == len(lines)
    assert (rows(folder), rejects(folder)) == parsed


def test_lines_with_too_few_or_too_many_cells_cost_no_second_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_reader, "_read_sorted", None)
    convert(tmp_path, HEADER + b"1\tp1\ta\n2\tp2\n3\tp3\ta\tb\n\xff\tp4\ta\n")
    assert [row["mdn"] for row in rows(tmp_path)] == ["1"]
    assert rejects(tmp_path) == [
        (3, "2\tp2", "2 columns, expected 3"),
        (4, "3\tp3\ta\tb", "4 columns, expected 3"),
        (5, "\ufffd\tp4\ta", "not UTF-8"),
    ]


def test_a_file_of_more_errors_than_the_parser_keeps_is_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_reader, "_MAX_ERRORS", 3)
    convert(tmp_path, HEADER + b"1\tp1\ta\n" + b"2\tp2\n" * 9)
    assert [row["mdn"] for row in rows(tmp_path)] == ["1"]
    assert [line for line, _, _ in rejects(tmp_path)] == list(range(3, 12))


@pytest.mark.slow
def test_lines_are_numbered_right_where_several_threads_read(tmp_path: Path) -> None:
    def line(number: int) -> bytes:
        return b"+1%010d\tp%0150d%s\n" % (number, number, b"" if number % 997 == 0 else b"\ta")

    lines = 600_000  # 100 MB: more than the parser reads at once
    convert(tmp_path, HEADER + b"".join(map(line, range(2, lines + 2))))
    numbers = [number for number, _, _ in rejects(tmp_path)]
    assert numbers == [number for number in range(2, lines + 2) if number % 997 == 0]
    assert len(rows(tmp_path)) == lines - len(numbers)


def test_lines_are_numbered_right_across_read_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (extract_reader, extract_lines):
        monkeypatch.setattr(module, "_BLOCK_BYTES", 7)
    body = b"".join(b"\n" if n % 5 == 0 else b"%d\tp\ta\r\n" % n for n in range(2, 40))
    assert convert(tmp_path, HEADER + body) == 38
    assert [line for line, _, _ in rejects(tmp_path)] == [5, 10, 15, 20, 25, 30, 35]
    assert [row["mdn"] for row in rows(tmp_path)] == [str(n) for n in range(2, 40) if n % 5]


def test_a_block_without_a_fault_is_taken_whole_and_one_with_a_fault_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_lines, "_BLOCK_BYTES", 40)
    lines = [b"%d\tp%d\ta" % (n, n) for n in range(2, 60)]
    wrong = {10: b"10\tp", 11: b"a\tb\tc\td", 30: b"", 31: b"x\ty\t\xff"}
    for number, line in wrong.items():
        lines[number - 2] = line  # of 10 and 11 together, the tabs are as many as of two rows
    assert convert(tmp_path, HEADER + b"\n".join(lines) + b"\n") == 58
    assert [line for line, _, _ in rejects(tmp_path)] == sorted(wrong)
    assert [row["mdn"] for row in rows(tmp_path)] == [
        str(n) for n in range(2, 60) if n not in wrong
    ]


def test_new_columns_are_kept_and_their_order_is_free(tmp_path: Path) -> None:
    convert(tmp_path, b"New\tactivity\tmdn\tperson_id\nx\ta\t1\tp1\n")
    assert rows(tmp_path) == [{"new": "x", "activity": "a", "mdn": "1", "person_key": "p1"}]


def test_a_header_without_rows_is_an_empty_extract(tmp_path: Path) -> None:
    assert convert(tmp_path, b"\xef\xbb\xbf" + HEADER) == 0
    assert pq.read_schema(tmp_path / "data.parquet").names == ["mdn", "person_key", "activity"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mdn\tperson_id\n", "subscriptions.txt: the header has no column activity; expected"),
        (b"", "the header has no column mdn, person_id, activity"),
        (HEADER.replace(b"\n", b"\tmdn\n"), "the header names mdn twice"),
        (HEADER.replace(b"\n", b"\tperson_key\n"), "the header names person_key twice"),
        (HEADER + b"1\tp1\ta\n2\tp", "the last line has no end, the file is cut; ask Vibes"),
    ],
)
def test_a_file_that_is_not_the_documented_extract_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ExtractError, match=message):
        convert(tmp_path, content)
