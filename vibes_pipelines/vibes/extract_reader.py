"""Reads one extract file into rows and rejects, so that every line ends in exactly one of them.

Layout: tab separated, header row, one record per line, no quoting in these kinds (the Vibes
documentation, Current Subscriber and Subscription Extract); UTF-8 and LF are an assumption.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np

from vibes_pipelines.data_files import exact
from vibes_pipelines.store.snapshots import DATA, Reject, write_rejects
from vibes_pipelines.vibes.extract_lines import LONGEST, NOT_UTF8, Refused, fault, sort_lines

_BLOCK_BYTES = 2**19
_NEWLINE, _TAB = 10, 9
# More of them, and the file is sorted: the parser keeps an error per missing cell in memory.
_MAX_ERRORS = 200_000
# The documentation calls the column person_id and says that it holds the person_key.
_LOGICAL = {"person_id": "person_key"}


class ExtractError(Exception):
    """An extract is not what the documentation describes; the message names file and cure."""


@dataclass(frozen=True)
class _Shape:
    """What can be counted of a file without reading its rows."""

    lines: int
    tabs: int
    has_carriage_return: bool
    has_blank_line: bool

    @property
    def is_for_the_parser(self) -> bool:
        """True when the parser reads its lines as the documentation has them."""
        return not self.has_carriage_return and not self.has_blank_line


@dataclass(frozen=True)
class _Parsed:
    """How many rows the parser wrote, and which lines it refused: why, and where they begin."""

    rows: int
    reasons: dict[int, str]
    starts: dict[int, int]


@dataclass(frozen=True)
class _Read:
    """How many rows were written, and the lines that are none, by number."""

    rows: int
    refused: dict[int, Refused]


class _RefusedLine(NamedTuple):
    """A line that the parser refused, and its tabs."""

    refused: Refused
    tabs: int


def convert_extract(path: Path, name: str, documented: Sequence[str], folder: Path) -> int:
    """Writes `data.parquet` and `rejects.parquet` into `folder`; returns the count of body lines.

    All columns are text as they stand in the file, an empty cell is NULL, `person_id` lands as
    `person_key`, and columns that the documentation does not know are kept. Lines with too few or
    too many cells, blank lines, lines with a carriage return inside, lines of more than `LONGEST`
    bytes and lines that are not UTF-8 are rejects.

    Raises:
        ExtractError: no header, a documented column missing, a cut last line, or a count of rows
            and rejects that differs from the count of lines.
    """
    columns = _read_header(path, name, documented)
    _check_end(path, name)
    shape, parsed = _parse_and_count(path, columns, folder)
    read = _read_as_it_is(path, shape, parsed, len(columns)) or _read_sorted(path, columns, folder)
    body_lines = shape.lines - 1
    if read.rows + len(read.refused) != body_lines:
        msg = (
            f"{name}: {read.rows} rows and {len(read.refused)} rejects do not make "
            f"{body_lines} lines; nothing was landed; keep the file and report it"
        )
        raise ExtractError(msg)
    write_rejects(folder, _rejects(path, read.refused))
    return body_lines


def _read_header(path: Path, name: str, documented: Sequence[str]) -> list[str]:
    with path.open("rb") as file:
        first = file.readline(LONGEST)
    header = first.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    columns = [column.strip().lower() for column in header.split("\t")]
    missing = [column for column in documented if column not in columns]
    if missing:
        msg = (
            f"{name}: the header has no column {', '.join(missing)}; expected the documented "
            "columns of this extract, tab separated; ask Vibes what changed"
        )
        raise ExtractError(msg)
    columns = [_LOGICAL.get(column, column) for column in columns]
    if len(set(columns)) != len(columns):
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        msg = f"{name}: the header names {', '.join(repeated)} twice; ask Vibes what changed"
        raise ExtractError(msg)
    return columns


def _check_end(path: Path, name: str) -> None:
    with path.open("rb") as file:
        file.seek(-1, SEEK_END)
        if file.read() != b"\n":
            msg = (
                f"{name}: the last line has no end, the file is cut; ask Vibes to deliver it again"
            )
            raise ExtractError(msg)


def _scan(path: Path) -> _Shape:
    lines, tabs, has_return, has_blank, last = 0, 0, False, False, False
    buffer = bytearray(_BLOCK_BYTES)
    found = np.empty(_BLOCK_BYTES, np.bool_)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            marks, hits = np.frombuffer(buffer, np.uint8, size), found[:size]
            tabs += int(np.count_nonzero(np.equal(marks, _TAB, out=hits)))
            lines += int(np.count_nonzero(np.equal(marks, _NEWLINE, out=hits)))
            has_blank = has_blank or bool((last and hits[0]) or (hits[1:] & hits[:-1]).any())
            has_return = has_return or buffer.find(b"\r", 0, size) >= 0
            last = bool(hits[-1])
    return _Shape(lines, tabs, has_return, has_blank)


def _parse_and_count(
    path: Path, columns: Sequence[str], folder: Path
) -> tuple[_Shape, _Parsed | None]:
    """Parses a file and counts beside it; nothing parsed of one that the parser cannot read."""
    with path.open("rb") as file:
        if file.readline(LONGEST).endswith(b"\r\n"):  # as every line will
            return _scan(path), None
    with ThreadPoolExecutor(1) as beside:
        counting = beside.submit(_scan, path)
        parsed: _Parsed | None = None
        try:
            parsed = _parse(path, columns, folder)
        except duckdb.Error:
            if counting.result().is_for_the_parser:
                raise
        return counting.result(), parsed


def _read_as_it_is(path: Path, shape: _Shape, parsed: _Parsed | None, width: int) -> _Read | None:
    """Takes a file whose wrong lines the parser told itself; None for any other.

    The parser alone would drop blank lines and empty cells after the last column, behind which a
    shifted row hides. It takes no line with too few cells: when the tabs of its rows are as many
    as rows of the right width have, no row has too many.
    """
    if parsed is None or not shape.is_for_the_parser:
        return None
    refused = _refused(path, parsed, width)
    tabs = (parsed.rows + 1) * (width - 1)
    if refused is None or shape.tabs != tabs + sum(line.tabs for line in refused.values()):
        return None
    if parsed.rows + 1 + len(refused) != shape.lines:
        return None
    return _Read(parsed.rows, {number: line.refused for number, line in refused.items()})


def _refused(path: Path, parsed: _Parsed, width: int) -> dict[int, _RefusedLine] | None:
    """The lines that the parser refused; None when one of them is not seen to be wrong."""
    lines = {}
    with path.open("rb") as file:
        for number, start in parsed.starts.items():
            file.seek(max(start - 1, 0))
            is_start = file.read(1) == b"\n"
            line = file.readline(LONGEST)
            text = line.removesuffix(b"\n")
            reason = fault(text, width)
            if not is_start or text == line or reason is None:
                return None
            lines[number] = _RefusedLine(Refused(reason, start, len(text)), text.count(b"\t"))
    return lines


def _read_sorted(path: Path, columns: Sequence[str], folder: Path) -> _Read:
    """Reads any file: lines that are no rows are sorted out first."""
    copy = folder / "sorted.txt"
    refused = sort_lines(path, copy, len(columns))
    parsed = _parse(copy, columns, folder)
    return _Read(parsed.rows, refused | _places(path, parsed.reasons))


def _parse(path: Path, columns: Sequence[str], folder: Path) -> _Parsed:
    """Writes the rows of a file with LF line ends."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": "1GB",
        "temp_directory": str(folder / "spill"),
    }
    with duckdb.connect(config=settings) as engine:
        copied = engine.execute(
            "COPY (SELECT * FROM read_csv($file, columns = $columns, header = true, delim = '\t', "
            "quote = '', escape = '', auto_detect = false, hive_partitioning = false, "
            "store_rejects = true, rejects_limit = $most, max_line_size = $longest)) "
            "TO $data (FORMAT parquet, COMPRESSION zstd)",
            {
                "file": exact(path),
                "columns": dict.fromkeys(columns, "VARCHAR"),
                "longest": LONGEST + 1,  # it counts the end of the line, but for the first
                "most": _MAX_ERRORS,
                "data": str(folder / DATA),
            },
        ).fetchall()
        # One line may have several errors, one per missing cell.
        errors = engine.execute(
            "SELECT line, arg_min(coalesce(error_message, ''), coalesce(column_idx, 0)), "
            "coalesce(min(line_byte_position), 0) FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
    return _Parsed(
        rows=copied[0][0],
        reasons={line: _plain(message) for line, message, _ in errors},
        starts={line: position - 1 for line, _, position in errors},
    )


def _plain(message: str) -> str:
    """The parser's reason in few, stable words."""
    return NOT_UTF8 if "not utf-8" in message else message.partition("\n")[0]


def _rejects(path: Path, refused: dict[int, Refused]) -> Iterator[Reject]:
    """Every line that is no row, in the order of the file."""
    with path.open("rb") as file:
        for number, (reason, start, length) in sorted(refused.items()):
            file.seek(start)
            raw = file.read(length).rstrip(b"\r\n").decode("utf-8", errors="replace")
            yield Reject(number, raw, reason)


def _places(path: Path, reasons: dict[int, str]) -> dict[int, Refused]:
    """Where the lines stand that only the parser refused."""
    places: dict[int, Refused] = {}
    if not reasons:
        return places
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number in reasons:
                places[number] = Refused(reasons[number], start, len(line))
            start += len(line)
    return places
