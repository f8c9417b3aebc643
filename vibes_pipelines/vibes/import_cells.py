"""Writes the cells of an import file as lines: in columns, by DuckDB, whatever the texts hold.

What stands above the lines, and what a file may say at all, is in `import_writer`. Which cells are
quoted is said here once: what holds the delimiter, a quote, a line end or a `#` (some readers take
the rest of the line for a comment), and what begins or ends with a blank (some readers trim it).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path

import duckdb
import pyarrow as pa

from vibes_pipelines.vibes.import_errors import ImportFileError

CELLS = "cells"
"""The view or table of the engine that holds the cells, in the order of the file's columns."""

_ROWS_AT_ONCE = 50_000

# What Python and Unicode call a blank, spelt so that Python and DuckDB read the same.
_BLANKS = r"\t\n\x0b\f\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
_BLANKS += r"\x{205f}\x{3000}"
_EDGE = f"^[{_BLANKS}]|[{_BLANKS}]$"

# Hardly any cell begins or ends outside of `!` to `~`: only for those an expression is matched.
_LOOK = """
    SELECT count(*), bool_or(COLUMNS(*) IS NULL), bool_or(
        CASE WHEN COLUMNS(*) = '' THEN false
             WHEN COLUMNS(*) < '!' OR COLUMNS(*) > '~'
                OR COLUMNS(*)[-1] < '!' OR COLUMNS(*)[-1] > '~'
             THEN regexp_matches(COLUMNS(*), $edge)
             ELSE false END)
    FROM cells"""

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


def write_cells(
    path: Path, preamble: str, delimiter: str, width: int, engine: duckdb.DuckDBPyConnection
) -> int:
    """Writes the preamble and the `cells` of an engine, in their order; returns the count of rows.

    Raises:
        ImportFileError: another count of columns than `width`, or a cell that is NULL.
    """
    count, *looks = engine.execute(_LOOK, {"edge": _EDGE}).fetchall()[0]
    nulls, edges = looks[: len(looks) // 2], looks[len(looks) // 2 :]
    if len(nulls) != width:
        msg = f"{len(nulls)} columns of cells, expected {width}"
        raise ImportFileError(msg)
    if any(nulls):
        msg = f"column {nulls.index(True) + 1} has rows without a text; a cell is a text or blank"
        raise ImportFileError(msg)
    if not count:
        path.write_text(preamble, encoding="utf-8", newline="")
        return 0
    statement, told = _BY_ENGINE, {"null": "" if width == 1 else "\n"}
    if any(edges):
        statement, told = _BY_HAND, {"quoted": f'[{re.escape(delimiter)}"#\\r\\n]|{_EDGE}'}
    told |= {"file": str(path), "delimiter": delimiter}
    if preamble:
        statement, told = statement + _ABOVE, told | {"preamble": preamble}
    engine.execute(statement + ")", told).fetchall()
    return int(count)


def write_rows(
    path: Path, preamble: str, delimiter: str, width: int, rows: Iterable[Sequence[str]]
) -> int:
    """As `write_cells`, from rows of texts.

    Raises:
        ImportFileError: a row has another width, or half a character.
    """
    names = [f"c{number}" for number in range(width)]
    batches = list(_batches(rows, names))
    with duckdb.connect() as engine:
        schema = pa.schema([(name, pa.string()) for name in names])
        engine.register(CELLS, pa.Table.from_batches(batches, schema))
        return write_cells(path, preamble, delimiter, width, engine)


def _batches(rows: Iterable[Sequence[str]], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    remaining, before = iter(rows), 0
    cells = [itemgetter(place) for place in range(len(names))]
    while batch := list(islice(remaining, _ROWS_AT_ONCE)):
        if set(map(len, batch)) != {len(names)}:
            number, row = next((n, r) for n, r in enumerate(batch, 1) if len(r) != len(names))
            msg = f"row {before + number} has {len(row)} cells, expected {len(names)}"
            raise ImportFileError(msg)
        try:
            columns = [pa.array(list(map(cell, batch)), pa.string()) for cell in cells]
        except UnicodeEncodeError as half:
            number = before + next(n for n, row in enumerate(batch, start=1) if _is_half(row))
            what = "half a character (a lone surrogate)"
            msg = f"row {number} holds {what}; correct it at its source"
            raise ImportFileError(msg) from half
        yield pa.RecordBatch.from_arrays(columns, names=list(names))
        before += len(batch)


def _is_half(row: Sequence[str]) -> bool:
    return any("\ud800" <= mark <= "\udfff" for cell in row for mark in cell)
