"""Reads one extract file into rows and rejects, so that every line ends in exactly one of them.

Layout: tab separated, header row, one record per line, no quoting in these kinds (the Vibes
documentation, Current Subscriber and Subscription Extract); UTF-8 and LF are an assumption.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from vibes_pipelines.store.snapshots import DATA, Reject, write_rejects

_BLOCK_BYTES = 16 * 2**20
_MAX_LINE_BYTES = 2**20
_BLANK = re.compile(rb"^\r?\n", re.MULTILINE)
# The documentation calls the column person_id and says that it holds the person_key.
_LOGICAL = {"person_id": "person_key"}
_LONE_RETURN = re.compile(rb"\r(?!\n)")


class ExtractError(Exception):
    """An extract is not what the documentation describes; the message names file and cure."""


@dataclass(frozen=True)
class _Lines:
    """The lines of a file: how many, and those no row can stand in, by number from 1."""

    count: int
    blank: tuple[int, ...]
    with_carriage_return: tuple[int, ...]
    has_carriage_return: bool
    ends_with_newline: bool

    @property
    def reasons(self) -> dict[int, str]:
        """Why each of the lines found here is a reject."""
        return dict.fromkeys(self.blank, "blank line") | dict.fromkeys(
            self.with_carriage_return, "carriage return inside the line"
        )


def convert_extract(path: Path, name: str, documented: Sequence[str], folder: Path) -> int:
    """Writes `data.parquet` and `rejects.parquet` into `folder`; returns the count of body lines.

    All columns are text as they stand in the file, an empty cell is NULL, and columns that the
    documentation does not know are kept. Lines with too few or too many cells, blank lines and
    lines that are not UTF-8 are rejects.

    Raises:
        ExtractError: no header, a documented column missing, a cut last line, or a count of rows
            and rejects that differs from the count of lines.
    """
    columns = [_LOGICAL.get(column, column) for column in _read_header(path, name, documented)]
    lines = _scan(path)
    if not lines.ends_with_newline:
        msg = f"{name}: the last line has no end, the file is cut; ask Vibes to deliver it again"
        raise ExtractError(msg)
    rows, reasons = _parse(_readable(path, lines), columns, folder)
    reasons |= lines.reasons
    body_lines = lines.count - 1
    if rows + len(reasons) != body_lines:
        msg = (
            f"{name}: {rows} rows and {len(reasons)} rejects do not make {body_lines} lines; "
            "nothing was landed; keep the file and report it"
        )
        raise ExtractError(msg)
    write_rejects(folder, _rejects(path, reasons))
    return body_lines


def _read_header(path: Path, name: str, documented: Sequence[str]) -> list[str]:
    with path.open("rb") as file:
        first = file.readline(_MAX_LINE_BYTES)
    header = first.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    columns = [column.strip().lower() for column in header.split("\t")]
    missing = [column for column in documented if column not in columns]
    if missing:
        msg = (
            f"{name}: the header has no column {', '.join(missing)}; expected the documented "
            "columns of this extract, tab separated; ask Vibes what changed"
        )
        raise ExtractError(msg)
    if len(set(columns)) != len(columns):
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        msg = f"{name}: the header names {', '.join(repeated)} twice; ask Vibes what changed"
        raise ExtractError(msg)
    return columns


def _scan(path: Path) -> _Lines:
    """Counts lines without reading them as rows, as an independent check of the parser."""
    count, rest, has_return = 0, b"", False
    blank, with_return = list[int](), set[int]()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            whole, newline, tail = block.rpartition(b"\n")
            window, rest = (rest + whole + newline, tail) if newline else (b"", rest + block)
            blank += _line_numbers(_BLANK, window, count)
            with_return.update(_line_numbers(_LONE_RETURN, window, count))
            has_return = has_return or b"\r" in block
            count += window.count(b"\n")
    return _Lines(count, tuple(blank), tuple(sorted(with_return)), has_return, not rest)


def _line_numbers(pattern: re.Pattern[bytes], window: bytes, before: int) -> Iterator[int]:
    """The line of every match in a window of whole lines that follows `before` lines."""
    line, position = before + 1, 0
    for match in pattern.finditer(window):
        line += window.count(b"\n", position, match.start())
        position = match.start()
        yield line


def _readable(path: Path, lines: _Lines) -> Path:
    """The file itself, or a copy with LF line ends in which lines it cannot split are blank.

    The parser numbers lines wrongly when line ends are mixed.
    """
    if not lines.has_carriage_return:
        return path
    unreadable = frozenset(lines.with_carriage_return)
    copy = path.with_name(f"{path.name}.readable")
    with path.open("rb") as source, copy.open("wb") as target:
        target.writelines(
            b"\n" if number in unreadable else line.replace(b"\r\n", b"\n")
            for number, line in enumerate(source, start=1)
        )
    return copy


def _parse(path: Path, columns: Sequence[str], folder: Path) -> tuple[int, dict[int, str]]:
    """Writes the rows; returns their count and the reason of each rejected line by number."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": "1GB",
        "temp_directory": str(folder / "spill"),
    }
    with duckdb.connect(config=settings) as engine:
        engine.execute(
            "COPY (SELECT * FROM read_csv($file, columns = $columns, header = true, delim = '\t', "
            "quote = '', escape = '', auto_detect = false, "
            "store_rejects = true, max_line_size = $longest)) "
            "TO $data (FORMAT parquet, COMPRESSION zstd)",
            {
                "file": str(path),
                "columns": dict.fromkeys(columns, "VARCHAR"),
                "longest": _MAX_LINE_BYTES,
                "data": str(folder / DATA),
            },
        )
        # One line may have several errors, one per missing cell.
        errors = engine.execute(
            "SELECT line, arg_min(coalesce(error_message, ''), column_idx) "
            "FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
        rows = engine.execute(
            "SELECT count(*) FROM read_parquet($data)", {"data": str(folder / DATA)}
        ).fetchall()[0][0]
    return rows, {line: _plain(message) for line, message in errors}


def _plain(message: str) -> str:
    """The parser's reason in few, stable words."""
    if expected := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        return f"{expected[2]} columns, expected {expected[1]}"
    if "not utf-8" in message:
        return "not UTF-8"
    return message.partition("\n")[0]


def _rejects(path: Path, reasons: dict[int, str]) -> Iterator[Reject]:
    if not reasons:
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number in reasons:
                raw = line.rstrip(b"\r\n").decode("utf-8", errors="replace")
                yield Reject(number, raw, reasons[number])
