"""Writes import files of every kind: header section, column row, quoted cells, parts.

Rules: the Vibes documentation, File-Based Data Imports. UTF-8 without a byte order mark, LF line
ends, and equal input gives equal bytes. Values are written as they are: what a spreadsheet would
make of them (a formula, a number without its leading zero) is no concern of a machine's file.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from vibes_pipelines.vibes.import_cells import table_of, write_cells
from vibes_pipelines.vibes.import_errors import ImportFileError
from vibes_pipelines.vibes.import_kinds import KINDS, ImportKind, import_name

DELIMITERS = frozenset(",;|")
"""What the `Delimiter` headers can say: a header's value is trimmed, so that a tab would vanish."""

_HEADER_LIKE = re.compile(r"[A-Za-z][A-Za-z-]*:")
_HEADER_VALUE = re.compile(r"\S(?:[^\x00-\x1f\x7f]*\S)?")


@dataclass(frozen=True)
class Layout:
    """How a file is laid out. The default has no header section and the names as first row.

    `headers` are the kind's own, e.g. `Subscription-List-ID`.
    """

    delimiter: str = ","
    multi_select_delimiter: str = "|"
    fields_in_header: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartLimits:
    """The most rows and bytes of one file; None means any number."""

    max_rows: int | None = None
    max_bytes: int | None = None


BY_SFTP = PartLimits()
"""SFTP takes any size (the Vibes documentation, File-Based Data Imports)."""


@dataclass(frozen=True)
class WrittenFile:
    """A finished file and its count of rows."""

    path: Path
    rows: int


@dataclass(frozen=True)
class Table:
    """What stands above the rows of a file.

    Raises:
        ImportFileError: columns or headers that the platform would refuse or could misread.
    """

    kind: ImportKind
    columns: tuple[str, ...]
    layout: Layout = field(default_factory=Layout)

    def __post_init__(self) -> None:
        self._check_columns()
        self._check_delimiters()
        for name, value in self.layout.headers.items():
            if not KINDS[self.kind].knows(name):
                msg = f"{self.kind} file: no header {name}; leave it out"
                raise ImportFileError(msg)
            if not _HEADER_VALUE.fullmatch(value):
                msg = f"{self.kind} file: header {name} is blank or has a line break in it"
                raise ImportFileError(msg)

    def preamble(self) -> str:
        """The header section, if anything has to be said, and the column row, if there is one."""
        lines = [f"{name}: {value}" for name, value in self._headers().items()]
        section = "".join(f"{line}\n" for line in lines) + "\n" if lines else ""
        has_row = KINDS[self.kind].has_columns and not self.layout.fields_in_header
        return section + (_Liner(self.delimiter)(self.columns) if has_row else "")

    @property
    def delimiter(self) -> str:
        """The delimiter of the body."""
        return self.layout.delimiter

    def _headers(self) -> dict[str, str]:
        kind, layout = KINDS[self.kind], self.layout
        text = {"Content-Type": "TEXT"} if kind.is_text else {}
        fields = {"Fields": ",".join(self.columns)} if layout.fields_in_header else {}
        changed = {
            "Delimiter": (layout.delimiter, ","),
            "Multi-Select-Delimiter": (layout.multi_select_delimiter, "|"),
        }
        delimiters = {name: value for name, (value, usual) in changed.items() if value != usual}
        return {**text, **layout.headers, **fields, **delimiters}

    def _check_columns(self) -> None:
        repeated = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if repeated:
            msg = f"columns stand twice: {', '.join(repeated)}"
            raise ImportFileError(msg)
        unusable = [name for name in self.columns if not _is_column(name)]
        if unusable:
            msg = f"no column can have the name {unusable[0]!r}; rename it"
            raise ImportFileError(msg)
        if not self._headers() and _HEADER_LIKE.match(self.columns[0]):
            msg = f"the first column, {self.columns[0]!r}, would be read as a header; move it"
            raise ImportFileError(msg)
        wanted = KINDS[self.kind].identifying
        if wanted and not set(wanted) & set(self.columns):
            msg = f"no identifying column; one of {', '.join(sorted(wanted))}"
            raise ImportFileError(msg)

    def _check_delimiters(self) -> None:
        layout = self.layout
        wrong = {layout.delimiter, layout.multi_select_delimiter} - DELIMITERS
        if wrong:
            msg = f"delimiter {min(wrong)!r}: use one of {' '.join(sorted(DELIMITERS))}"
            raise ImportFileError(msg)
        rule = KINDS[self.kind]
        if not rule.headers and (layout.delimiter != "," or layout.fields_in_header):
            msg = f"{self.kind} file: it has no header section to say another form"
            raise ImportFileError(msg)
        if layout.multi_select_delimiter != "|" and not rule.knows("Multi-Select-Delimiter"):
            msg = f"{self.kind} file: no header Multi-Select-Delimiter; leave it out"
            raise ImportFileError(msg)
        if rule.knows("Multi-Select-Delimiter") and (
            layout.multi_select_delimiter == layout.delimiter
        ):
            msg = "Delimiter and Multi-Select-Delimiter must differ, or selects fall apart"
            raise ImportFileError(msg)


def write_columns(
    path: Path, table: Table, cells: pa.Table, engine: duckdb.DuckDBPyConnection
) -> None:
    """Writes one file of texts that stand in columns, named and in the order of the table's.

    Raises:
        ImportFileError: other columns than the table has, or a cell that is NULL.
        ImportFileUnwritable: the file cannot be written there.
    """
    with _named(path):
        if tuple(cells.column_names) != table.columns:
            msg = f"{cells.num_columns} columns of cells, not those of the file"
            raise ImportFileError(msg)
        write_cells(path, table.preamble(), table.delimiter, cells, engine)


def write_table(path: Path, table: Table, rows: Iterable[Sequence[str]]) -> int:
    """As `write_columns`, from rows of texts; returns their count.

    Raises:
        ImportFileError: a row does not fit the columns, or holds half a character.
        ImportFileUnwritable: the file cannot be written there.
    """
    with _named(path), duckdb.connect() as engine:
        cells = table_of(table.columns, rows)
        write_cells(path, table.preamble(), table.delimiter, cells, engine)
    return int(cells.num_rows)


def write_parts(
    folder: Path,
    stem: str,
    table: Table,
    rows: Iterable[Sequence[str]],
    limits: PartLimits = BY_SFTP,
) -> list[WrittenFile]:
    """Writes `<stem>-001.<kind>` and so on, each within the limits; none without rows.

    Raises:
        ImportFileError: as `write_table`, and for a row that no file can hold.
    """
    parts: list[WrittenFile] = []
    for number, part in enumerate(split_rows(table, rows, limits), start=1):
        path = folder / import_name(f"{stem}-{number:03d}", table.kind)
        parts.append(WrittenFile(path, write_table(path, table, part)))
    return parts


def split_rows(
    table: Table, rows: Iterable[Sequence[str]], limits: PartLimits
) -> Iterator[list[Sequence[str]]]:
    """The rows in parts that each make a file within the limits, in order.

    Raises:
        ImportFileError: one row alone is larger than a file may be.
    """
    preamble = len(table.preamble().encode())
    part: list[Sequence[str]] = []
    size = preamble
    line = _Liner(table.delimiter)
    for number, row in enumerate(rows, start=1):
        row_size = len(line(row).encode("utf-8", "surrogatepass")) if limits.max_bytes else 0
        if limits.max_bytes and preamble + row_size > limits.max_bytes:
            msg = f"row {number} alone has {row_size} bytes, a file may have {limits.max_bytes}"
            raise ImportFileError(msg)
        is_full = limits.max_rows and len(part) >= limits.max_rows
        if part and (is_full or (limits.max_bytes and size + row_size > limits.max_bytes)):
            yield part
            part, size = [], preamble
        part.append(row)
        size += row_size
    if part:
        yield part


class _Liner:
    """Turns single rows into lines, as `import_cells` does with all of a file at once."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._must_quote = re.compile(rf'[{re.escape(delimiter)}"#\r\n]|^\s|\s$').search
        self._around_blank = delimiter + " ", " " + delimiter

    def __call__(self, row: Sequence[str]) -> str:
        line = self._delimiter.join(row)
        if self._is_plain(line, len(row)):
            return f"{line}\n"
        must_quote = self._must_quote
        line = self._delimiter.join(_quoted(cell) if must_quote(cell) else cell for cell in row)
        # An empty line would end a header section or be skipped as no row at all.
        return f"{line}\n" if line else '""\n'

    def _is_plain(self, line: str, width: int) -> bool:
        """Whether no cell of a joined row needs quotes, told without a look at each.

        A printable text has no line end and no blank but the space.
        """
        after, before = self._around_blank
        return (
            line.count(self._delimiter) == width - 1
            and '"' not in line
            and "#" not in line
            and line.isprintable()
            and after not in line
            and before not in line
            and line[:1] not in {"", " "}
            and line[-1] != " "
        )


def _is_column(name: str) -> bool:
    """True for a name that a column row and the `Fields` header both say unmistakably."""
    return name.isprintable() and name == name.strip() != "" and not {'"', ","} & set(name)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except ImportFileError as wrong:
        raise type(wrong)(f"{path.name}: {wrong}") from wrong
