"""Opening the inputs: Parquet files, CSV files and landed snapshot folders as relations.

Which columns exist, of which type, and as of when; what they mean belongs to the other modules.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import csv_file, exact, parquet
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.sql import ident, literal

ROW = "file_row_number"
_OTHER_DELIMITERS = (";", "\t", "|")


@dataclass(frozen=True)
class Source:
    """One opened input.

    `columns` maps lower-cased names to (quoted name, DuckDB type); `alike` those that several
    columns have to these, as they are written.
    """

    role: str
    path: Path
    relation: str
    columns: Mapping[str, tuple[str, str]]
    as_of: datetime | None
    alike: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def column(self, name: str, wanted_by: str) -> tuple[str, str]:
        """The quoted name and type of a column.

        Raises:
            ReconcileError: when there is none, or several that differ in case alone; `wanted_by`
                names the entry of the sync config.
        """
        if alike := self.alike.get(name.lower()):
            named = " and ".join(map(repr, alike))
            msg = f"{self.role} {self.path}: any of {named} may be meant by {wanted_by}; leave one"
            raise ReconcileError(msg)
        found = self.columns.get(name.lower())
        if found is None:
            msg = (
                f"{self.role} {self.path}: no column {name!r}, wanted by {wanted_by}; correct the"
                " sync config, or the header of this input"
            )
            raise ReconcileError(msg)
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a column, in any case."""
        return name.lower() in self.columns


def open_source(
    connection: duckdb.DuckDBPyConnection, role: str, path: Path, workspace: Path
) -> Source:
    """Opens one input; a CSV file is first copied into the workspace as Parquet, all text.

    Raises:
        ReconcileError: for a path that is missing, unreadable or of another kind.
    """
    data, as_of = _locate(role, path)
    try:
        if data.suffix == ".csv":
            above, header = _csv_header(data)
            _refuse_odd_header(role, path, header)
            data = _csv_to_parquet(connection, data, above, workspace / f"{role}.parquet")
        relation = numbered_rows(data)
        names = _names_in(connection, data)
        _refuse_own_name(role, path, names)
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except (duckdb.IOException, duckdb.OutOfMemoryException) as refused:
        msg = f"{role} {path}: {str(refused).partition(chr(10))[0]}"
        raise ReconcileError(msg) from None
    except duckdb.Error:
        # Without its cause: DuckDB's message repeats the line of the file.
        msg = f"{role} {path}: {_why_unreadable(data)}"
        raise ReconcileError(msg) from None
    # The engine gives a name of its own to what it takes for a repeated one.
    named = zip(names, described, strict=False)
    columns = {name.lower(): (ident(str(n)), str(t)) for name, (n, t, *_) in named}
    return Source(role, path, relation, columns, as_of, _alike(names))


def numbered_rows(*paths: Path | str, **options: str | bool) -> str:
    """SQL for the rows of Parquet inputs, with `ROW`; text that is not declared as such is text."""
    return parquet(*paths, file_row_number=True, binary_as_string=True, **options)


@contextmanager
def told_encoding() -> Iterator[None]:
    """Tells of a wrong encoding in place of the engine, which repeats the text that it refuses.

    Raises:
        ReconcileError: a Parquet input holds bytes that are no UTF-8.
    """
    try:
        yield
    except duckdb.InvalidInputException as error:
        found = re.search(
            r'^[^:]*: Invalid string encoding found in Parquet file "([^"]*)"', str(error)
        )
        if found is None:
            raise
        msg = f"{found.group(1)}: holds text that is not UTF-8; write it again in UTF-8"
        raise ReconcileError(msg) from None


def _names_in(connection: duckdb.DuckDBPyConnection, data: Path) -> list[str]:
    """The columns of a Parquet file in their order, as they are written; none of their parts."""
    elements = connection.execute(
        "SELECT name, coalesce(num_children, 0) FROM parquet_schema(?)", [exact(data)]
    ).fetchall()
    names, parts_left = [], 0
    for name, children in elements[1:]:
        if parts_left:
            parts_left -= 1
        else:
            names.append(name)
        parts_left += children
    return names


def _refuse_own_name(role: str, path: Path, names: Sequence[str]) -> None:
    if ROW in map(str.lower, names):
        msg = f"{role} {path}: a column is called {ROW}, which the reconcile needs; rename it"
        raise ReconcileError(msg)


def _alike(names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.lower(), []).append(name)
    return {name: written for name, written in found.items() if len(written) > 1}


def _csv_header(data: Path) -> tuple[int, list[str]]:
    """How many blank lines are above the header, and its names; none where it is unreadable."""
    try:
        with data.open(encoding="utf-8-sig", newline="") as file:
            for above, row in enumerate(csv.reader(file)):
                if not _is_blank(row):
                    return above, row
    except (UnicodeDecodeError, csv.Error):
        pass  # what is unreadable is told with its line when it is read
    return 0, []


def _refuse_odd_header(role: str, path: Path, header: Sequence[str]) -> None:
    """A header without commas is of another kind of file; of two equal names none can be meant."""
    names = [name.strip().lower() for name in header]
    other = next((mark for mark in _OTHER_DELIMITERS if len(names) == 1 and mark in names[0]), None)
    if other is not None:
        msg = f"{role} {path}: the header is separated by {other!r}; write the file with commas"
        raise ReconcileError(msg)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"{role} {path}: the header names {', '.join(repeated)} twice; leave one column each"
        raise ReconcileError(msg)


def _why_unreadable(data: Path) -> str:
    if data.suffix != ".csv":
        return "is not a readable Parquet file; write it again"
    if line := _line_of_other_encoding(data):
        return f"line {line} is not UTF-8; write the file again in UTF-8"
    line = _unreadable_line(data)
    if line is None and (mixed := _mixed_line_ends(data)):
        return f"{mixed}; write all lines of the file with one kind of end"
    place = f"line {line} cannot be read" if line else "cannot be read"
    return (
        f"{place}; expected UTF-8, a header row, commas, as many cells in each row as in the"
        " header, and cells with a comma or line break in double quotes"
    )


def _line_of_other_encoding(path: Path) -> int | None:
    """The first line (from 1) that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def _mixed_line_ends(path: Path) -> str | None:
    """The first line (from 1) that ends in another way than the header."""
    first = None
    is_quoted = False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            is_quoted ^= line.count(b'"') % 2 == 1
            if is_quoted:  # this end stands within a cell
                continue
            end = "CRLF" if line.endswith(b"\r\n") else "LF"
            first = first or end
            if end != first and line.endswith(b"\n"):
                return f"line {number} ends in {end} and the first in {first}"
    return None


def _unreadable_line(path: Path) -> int | None:
    """The first line (from 1) that has not as many cells as the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            width = next((len(row) for row in rows if not _is_blank(row)), 0)
            return next((rows.line_num for row in rows if row and len(row) != width), None)
        except csv.Error:
            return rows.line_num


def _is_blank(row: Sequence[str]) -> bool:
    """Whether a row of a CSV file is a line of blanks or nothing."""
    return len(row) <= 1 and not "".join(row).strip()


def _locate(role: str, path: Path) -> tuple[Path, datetime | None]:
    data = path
    if path.is_dir():
        named = (path / "data.parquet", path / f"{role.removeprefix('base ')}.parquet")
        data = next((file for file in named if file.is_file()), named[0])
    if not data.is_file():
        msg = f"{role} {path}: no such file; give a .parquet or .csv file or a landed snapshot"
        raise ReconcileError(msg)
    if data.suffix not in {".parquet", ".csv"}:
        msg = f"{role} {path}: {data.suffix or 'no'} suffix; give a .parquet or .csv file"
        raise ReconcileError(msg)
    return data, _as_of(role, data.parent / "manifest.json") if path.is_dir() else None


def _as_of(role: str, manifest: Path) -> datetime | None:
    if not manifest.is_file():
        return None
    try:
        text = json.loads(manifest.read_text(encoding="utf-8"))["as_of"]
        instant = datetime.fromisoformat(text)
    except (ValueError, KeyError, TypeError) as malformed:
        msg = f"{role} {manifest}: no readable as_of; land this day again into an empty folder"
        raise ReconcileError(msg) from malformed
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _csv_to_parquet(
    connection: duckdb.DuckDBPyConnection, source: Path, above: int, target: Path
) -> Path:
    """Comma separated, header row, UTF-8 with or without byte order mark; every cell as text.

    The header is below so many lines. By itself the engine would look for it, and leave out lines
    with fewer cells than most have.
    """
    read = csv_file(
        source,
        skip=above,
        header=True,
        all_varchar=True,
        delim=",",
        quote='"',
        escape='"',
        comment="",
        strict_mode=True,
        null_padding=False,
    )
    connection.execute(f"COPY (SELECT * FROM {read}) TO {literal(str(target))} (FORMAT parquet)")
    return target
