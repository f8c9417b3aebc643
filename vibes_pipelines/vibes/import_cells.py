"""Writes the cells of an import file as lines: in columns, by DuckDB, whatever the texts hold.

What stands above the lines, and what a file may say at all, is in `import_writer`. Which cells are
quoted is said here once: what holds the delimiter, a quote, a line end or a `#` (some readers take
the rest of the line for a comment), and what begins or ends with a blank (some readers trim it).
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vibes_pipelines.vibes.import_errors import ImportFileError, ImportFileUnwritable

NUL = "\0"
"""No file says it: many readers take a file with one for binary, or end a text there."""

_ROWS_AT_ONCE = 25_000

# What Python and Unicode call a blank, spelt so that DuckDB and Arrow read the same.
_BLANKS = r"\t\n\x0b\f\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
_BLANKS += r"\x{205f}\x{3000}"
_EDGE = f"^[{_BLANKS}]|[{_BLANKS}]$"

# The engine quotes by the same rule but for blanks. It quotes a text that equals its NULL: that is
# a line end, which is quoted anyway, or of a single column the blank, which would be no line.
_BY_ENGINE = """
    COPY (FROM cells) TO $file
    (FORMAT csv, HEADER false, DELIM $delimiter, QUOTE '"', ESCAPE '"', NULLSTR $null"""

_BY_HAND = """
    COPY (
        SELECT CASE WHEN line = '' THEN '""' ELSE line END FROM (
            SELECT concat_ws($delimiter, *COLUMNS(*)) AS line FROM (
                SELECT CASE WHEN regexp_matches(COLUMNS(*), $quoted)
                            THEN '"' || replace(COLUMNS(*), '"', '""') || '"'
                            ELSE COLUMNS(*) END
                FROM cells
            )
        )
    ) TO $file
    (FORMAT csv, HEADER false, DELIM E'\\x01', QUOTE '', ESCAPE '', NULLSTR E'\\n'"""

_ABOVE = ", PREFIX $preamble, SUFFIX E'\\n'"

_ERRNO = re.compile(r'"errno":"?(\d+)')


def write_cells(
    path: Path, preamble: str, delimiter: str, cells: pa.Table, engine: duckdb.DuckDBPyConnection
) -> None:
    """Writes the preamble and the cells, strings in the order of the file's rows and columns.

    Raises:
        ImportFileError: a cell is NULL or holds a NUL, or a column does not hold strings.
        ImportFileUnwritable: the file cannot be written there.
    """
    by_hand = _look(cells)
    with writing(path):
        if cells.num_rows:
            _copy(path, preamble, delimiter, cells, engine, by_hand=by_hand)
        else:
            path.write_text(preamble, encoding="utf-8", newline="")


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> pa.Table:
    """The cells of rows of texts, in columns.

    Raises:
        ImportFileError: a row has another width, or half a character.
    """
    schema = pa.schema([(name, pa.string()) for name in columns])
    return pa.Table.from_batches(list(_batches(rows, schema)), schema)


def _look(cells: pa.Table) -> bool:
    """True when any cell begins or ends with a blank; raises when there is none to write."""
    for number, column in enumerate(cells.columns, start=1):
        if column.type != pa.string():
            msg = f"column {number} holds {column.type}, a cell is a string"
            raise ImportFileError(msg)
        if column.null_count:
            msg = f"column {number} has rows without a text; a cell is a text or blank"
            raise ImportFileError(msg)
        if any(map(_has_nul, column.chunks)):
            row = pc.index(pc.match_substring(column, NUL), value=True).as_py() + 1
            msg = f"row {row} holds NUL in column {number}; send the value through the API"
            raise ImportFileError(msg)
    return any(_has_blank_edge(chunk) for column in cells.columns for chunk in column.chunks)


def _has_nul(texts: pa.StringArray) -> bool:
    _, places, text = texts.buffers()
    if not text:
        return False
    bounds = np.frombuffer(places, np.int32)[texts.offset :][: len(texts) + 1]
    marks = np.frombuffer(text, np.uint8)[bounds[0] : bounds[-1]]
    return bool(marks.size and marks.min() == 0)


def _has_blank_edge(texts: pa.StringArray) -> bool:
    """Looks at the first and the last byte of every text, and into those that are not plain."""
    _, places, text = texts.buffers()
    if not text:
        return False
    bounds = np.frombuffer(places, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    begin, end = bounds[:-1], bounds[1:]
    marks = np.frombuffer(text, np.uint8)
    # A blank text has no bytes: what is taken for it does not count, but must be in reach.
    is_odd = ~(
        _is_plain(marks.take(begin, mode="clip")) & _is_plain(marks.take(end - 1, mode="clip"))
    )
    if not is_odd.any():
        return False
    odd = texts.take(pa.array(np.flatnonzero(is_odd & (end > begin))))
    return bool(pc.any(pc.match_substring_regex(odd, _EDGE)).as_py())


def _is_plain(marks: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True from `!` to `~`; hardly any cell begins or ends outside of these."""
    return (marks - np.uint8(ord("!"))) <= ord("~") - ord("!")


def _copy(
    path: Path,
    preamble: str,
    delimiter: str,
    cells: pa.Table,
    engine: duckdb.DuckDBPyConnection,
    *,
    by_hand: bool,
) -> None:
    statement, told = _BY_ENGINE, {"null": "" if cells.num_columns == 1 else "\n"}
    if by_hand:
        statement, told = _BY_HAND, {"quoted": f'[{re.escape(delimiter)}"#\\r\\n]|{_EDGE}'}
    told |= {"file": str(path), "delimiter": delimiter}
    if preamble:
        statement, told = statement + _ABOVE, told | {"preamble": preamble}
    # In batches, so that the engine makes the lines of a file with several threads.
    engine.register("cells", pa.Table.from_batches(cells.to_batches(_ROWS_AT_ONCE), cells.schema))
    try:
        engine.execute(statement + ")", told).fetchall()
    finally:
        engine.unregister("cells")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Leaves no half of a file behind, and says why it could not be written.

    Raises:
        ImportFileUnwritable: the disk is full, or the folder lets nobody write.
    """
    try:
        yield
    except ImportFileUnwritable:
        raise
    except (duckdb.IOException, OSError) as refused:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        msg = (
            f"{path} cannot be written: {_reason(refused)}; make room on this disk, or let this "
            "user write into the folder, and deliver again: nothing of this file has left"
        )
        raise ImportFileUnwritable(msg) from refused


def _reason(refused: Exception) -> str:
    """The system's own words; the engine tells them in more of its own."""
    number = _ERRNO.search(str(refused))
    told = os.strerror(int(number[1])) if number else getattr(refused, "strerror", None)
    return told or str(refused).rpartition(": ")[2]


def _batches(rows: Iterable[Sequence[str]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    remaining, before, width = iter(rows), 0, len(schema)
    cells = [itemgetter(place) for place in range(width)]
    while batch := list(islice(remaining, _ROWS_AT_ONCE)):
        if set(map(len, batch)) != {width}:
            number, row = next((n, r) for n, r in enumerate(batch, 1) if len(r) != width)
            msg = f"row {before + number} has {len(row)} cells, expected {width}"
            raise ImportFileError(msg)
        try:
            columns: list[Any] = [pa.array(list(map(cell, batch)), pa.string()) for cell in cells]
        except UnicodeEncodeError as half:
            number = before + next(n for n, row in enumerate(batch, start=1) if _is_half(row))
            what = "half a character (a lone surrogate)"
            msg = f"row {number} holds {what}; correct it at its source"
            raise ImportFileError(msg) from half
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        before += len(batch)


def _is_half(row: Sequence[str]) -> bool:
    return any("\ud800" <= mark <= "\udfff" for cell in row for mark in cell)
