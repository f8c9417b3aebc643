"""Reads one extract file into rows and rejects, so that every line ends in exactly one of them.

Layout: tab separated, header row, one record per line, no quoting in these kinds (the Vibes
documentation, Current Subscriber and Subscription Extract); UTF-8 and LF are an assumption.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from vibes_pipelines.store.snapshots import DATA, Reject, write_rejects
from vibes_pipelines.vibes.extract_lines import NOT_UTF8, Refused, sort_lines

_BLOCK_BYTES = 16 * 2**20
_MAX_LINE_BYTES = 2**20
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
    ends_with_newline: bool


@dataclass(frozen=True)
class _Parsed:
    """How many rows the parser wrote, and why it refused which lines."""

    rows: int
    reasons: dict[int, str]
    refused: dict[int, Refused] = field(default_factory=dict)
    """Lines that the parser was not shown."""


def convert_extract(path: Path, name: str, documented: Sequence[str], folder: Path) -> int:
    """Writes `data.parquet` and `rejects.parquet` into `folder`; returns the count of body lines.

    All columns are text as they stand in the file, an empty cell is NULL, `person_id` lands as
    `person_key`, and columns that the documentation does not know are kept. Lines with too few or
    too many cells, blank lines, lines with a carriage return inside and lines that are not UTF-8
    are rejects.

    Raises:
        ExtractError: no header, a documented column missing, a cut last line, or a count of rows
            and rejects that differs from the count of lines.
    """
    columns = _read_header(path, name, documented)
    shape = _scan(path)
    if not shape.ends_with_newline:
        msg = f"{name}: the last line has no end, the file is cut; ask Vibes to deliver it again"
        raise ExtractError(msg)
    body_lines = shape.lines - 1
    parsed = _parse_regular(path, shape, columns, folder) or _parse_sorted(path, columns, folder)
    rejects = len(parsed.reasons) + len(parsed.refused)
    if parsed.rows + rejects != body_lines:
        msg = (
            f"{name}: {parsed.rows} rows and {rejects} rejects do not make "
            f"{body_lines} lines; nothing was landed; keep the file and report it"
        )
        raise ExtractError(msg)
    write_rejects(folder, _rejects(path, parsed))
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
    columns = [_LOGICAL.get(column, column) for column in columns]
    if len(set(columns)) != len(columns):
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        msg = f"{name}: the header names {', '.join(repeated)} twice; ask Vibes what changed"
        raise ExtractError(msg)
    return columns


def _scan(path: Path) -> _Shape:
    lines, tabs, has_return, last = 0, 0, False, b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
            tabs += block.count(b"\t")
            has_return = has_return or b"\r" in block
            last = block[-1:]
    return _Shape(lines, tabs, has_return, last == b"\n")


def _parse_regular(
    path: Path, shape: _Shape, columns: Sequence[str], folder: Path
) -> _Parsed | None:
    """Parses a file in which every line has the right count of cells; None for any other.

    The parser alone would drop blank lines and empty cells after the last column, behind which a
    shifted row hides. Without a refused line, the total of tabs rules both out.
    """
    if shape.has_carriage_return or shape.tabs != shape.lines * (len(columns) - 1):
        return None
    parsed = _parse(path, columns, folder)
    return parsed if parsed.rows == shape.lines - 1 else None


def _parse_sorted(path: Path, columns: Sequence[str], folder: Path) -> _Parsed:
    """Parses any file: lines that are no rows are sorted out first."""
    copy = folder / "sorted.txt"
    refused = sort_lines(path, copy, len(columns))
    parsed = _parse(copy, columns, folder)
    return _Parsed(parsed.rows, parsed.reasons, refused)


def _parse(path: Path, columns: Sequence[str], folder: Path) -> _Parsed:
    """Writes the rows of a file with LF line ends."""
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
    return _Parsed(rows, {line: _plain(message) for line, message in errors})


def _plain(message: str) -> str:
    """The parser's reason in few, stable words."""
    return NOT_UTF8 if "not utf-8" in message else message.partition("\n")[0]


def _rejects(path: Path, parsed: _Parsed) -> Iterator[Reject]:
    """Every line that is no row, in the order of the file."""
    places = parsed.refused | _places(path, parsed.reasons)
    with path.open("rb") as file:
        for number, (reason, start, length) in sorted(places.items()):
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
