"""Sorts the lines of an extract: those that are rows, and those that the parser must not see.

The cells of a whole block are counted at once; only a block with carriage returns or with bytes
that are not UTF-8 is looked at line by line.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

_BLOCK_BYTES = 16 * 2**20
_NEWLINE, _TAB = 10, 9
NOT_UTF8 = "not UTF-8"
LONGEST = 2**20
"""Bytes of a line that is read; the parser would leave out longer ones, some without a word."""


class Refused(NamedTuple):
    """Why a line is no row, and where it stands: its first byte and its bytes without the LF."""

    reason: str
    start: int
    length: int


class _Line(NamedTuple):
    """A refused line of a block: its place among the lines, why, and where it stands there."""

    place: int
    reason: str
    start: int
    end: int


def sort_lines(path: Path, copy: Path, width: int) -> dict[int, Refused]:
    """Writes the rows of `width` cells to `copy`, and tells of every other line by its number.

    A refused line is blank in the copy, so that the lines after it keep their numbers. The first
    line, the header, is never refused. Every line of the copy ends with LF alone.
    """
    refused: dict[int, Refused] = {}
    with path.open("rb") as source, copy.open("wb") as target:
        header = source.readline()
        target.write(_without_return(header))
        number, start = 2, len(header)
        for block in _whole_lines(source):
            lines = _refused_by_count(block, width) if _is_plain(block) else _refused(block, width)
            for line in lines:
                length = line.end - line.start
                refused[number + line.place] = Refused(line.reason, start + line.start, length)
            target.writelines(_kept(block, lines))
            number += block.count(b"\n")
            start += len(block)
    return refused


def _whole_lines(source: BinaryIO) -> Iterator[bytes]:
    """Blocks that end with a line."""
    while block := source.read(_BLOCK_BYTES):
        yield block if block.endswith(b"\n") else block + source.readline()


def _is_plain(block: bytes) -> bool:
    """Whether blank lines and a wrong count of cells are all that can be wrong with its lines."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return b"\r" not in block


def _refused_by_count(block: bytes, width: int) -> list[_Line]:
    """The refused lines of a plain block."""
    marks = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(marks == _NEWLINE)
    starts = np.append(0, ends[:-1] + 1)
    cells = 1 + np.diff(np.searchsorted(np.flatnonzero(marks == _TAB), ends), prepend=0)
    is_wrong = (cells != width) | (starts == ends) | (ends - starts > LONGEST)
    places = np.flatnonzero(is_wrong).tolist()
    found = ((place, int(starts[place]), int(ends[place])) for place in places)
    return [
        _Line(place, fault(block[start:end], width) or "", start, end)
        for place, start, end in found
    ]


def _refused(block: bytes, width: int) -> list[_Line]:
    """The refused lines of any block."""
    found, start = [], 0
    for place, line in enumerate(block.removesuffix(b"\n").split(b"\n")):
        reason = fault(line.removesuffix(b"\r"), width)
        if reason:
            found.append(_Line(place, reason, start, start + len(line)))
        start += len(line) + 1
    return found


def _kept(block: bytes, refused: list[_Line]) -> Iterator[bytes]:
    """The block with every refused line blank."""
    begin = 0
    for line in refused:
        yield _without_return(block[begin : line.start])
        begin = line.end
    yield _without_return(block[begin:])


def _without_return(lines: bytes) -> bytes:
    return lines.replace(b"\r\n", b"\n")


def fault(text: bytes, width: int) -> str | None:
    """Why a line is no row of `width` cells."""
    if not text:
        return "blank line"
    if b"\r" in text:
        return "carriage return inside the line"
    found = text.count(b"\t") + 1
    if found != width:
        return f"{found} columns, expected {width}"
    if len(text) > LONGEST:
        return f"longer than {LONGEST:,} bytes"
    try:
        text.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    return None
