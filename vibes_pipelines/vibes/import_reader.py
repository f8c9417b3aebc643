"""The reader model: what the platform would read in an import file, told by the file alone.

It shares no code with the writer, nor the engine that writes, so that a cell which would be read as
something else is found before the file leaves. Rules: the Vibes documentation, File-Based Data
Imports; that header names may have any case is an assumption. Stricter than the platform may be: an
unknown header is refused, and a quote inside of a cell without quotes.
"""

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from vibes_pipelines.vibes.import_errors import ImportFileError
from vibes_pipelines.vibes.import_kinds import KINDS, PRECEDENCE, Identifier, ImportKind, kind_of

_HEADER_LINE = re.compile(r"([A-Za-z][A-Za-z-]*):(.*)")
_QUOTE = ord('"')


@dataclass(frozen=True)
class ImportFile:
    """One import file. In a person import a blank cell changes nothing, but clears a select.

    `cells` are texts, none is NULL; `headers` has the names of the header section in lower case.
    """

    name: str
    cells: pa.Table
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in their order."""
        return tuple(self.cells.column_names)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells row by row."""
        columns = [column.to_pylist() for column in self.cells.columns]
        return list(zip(*columns, strict=True))

    @property
    def multi_select_delimiter(self) -> str:
        """What stands between the options of one cell."""
        return self.headers.get("multi-select-delimiter", "|")


@dataclass(frozen=True, slots=True)
class NamedRow:
    """Whom a row is about: the first identifier of the documented precedence that is not blank.

    `others` are the cells that identify nobody, by column.
    """

    identifier: Identifier
    value: str
    others: Mapping[str, str]


@dataclass(frozen=True)
class ListRow:
    """One row of a `.subscriptions` or `.opt_outs` file: who, and which list."""

    identifier: Identifier
    value: str
    list_id: str


@dataclass(frozen=True)
class WalletRow:
    """One row of a `.wallet_update` file: which pass, of which campaigns, and its tokens."""

    uuid: str
    campaign_tokens: tuple[str, ...]
    expiration_date: str | None
    tokens: Mapping[str, str]


def read_file(path: Path) -> ImportFile:
    """Reads a file of any kind, with or without a header section.

    Raises:
        ImportFileError: not UTF-8 or with a NUL, malformed quotes, no identifying column, an
            unknown header, or a row of another width.
    """
    kind = kind_of(path.name)
    headers, body = _split_sections(_text(path)) if KINDS[kind].headers else ({}, _text(path))
    _check_headers(path, kind, headers)
    delimiter = headers.get("delimiter") or ","
    columns = _columns(path, kind, headers, body, delimiter)
    is_named_in_body = KINDS[kind].has_columns and "fields" not in headers
    cells = _cells(path, body, delimiter, columns, is_named_in_body=is_named_in_body)
    return ImportFile(path.name, cells, headers)


def read_list_file(path: Path) -> list[ListRow]:
    """What a `.subscriptions` or `.opt_outs` file says. A row's own list wins over the header's.

    Raises:
        ImportFileError: as `read_file`; also a row without identifier or without a numeric list.
    """
    file = read_file(path)
    rows = []
    for number, named in enumerate(read_named(file), start=1):
        row_list = named.others.get("subscription_list_id", "")
        list_id = row_list or file.headers.get("subscription-list-id", "")
        if not re.fullmatch(r"[0-9]+", list_id):
            msg = f"{path.name}: row {number} names no numeric subscription list"
            raise ImportFileError(msg)
        rows.append(ListRow(named.identifier, named.value, list_id))
    return rows


def read_named(file: ImportFile) -> list[NamedRow]:
    """Whom each row of a file is about, and its other cells: the variables of a recipient list.

    Raises:
        ImportFileError: a row names nobody.
    """
    return [
        _named(file.name, number, dict(zip(file.columns, row, strict=True)))
        for number, row in enumerate(file.rows, start=1)
    ]


def list_name(file: ImportFile) -> str:
    """The name of a recipient list: the header's, else the file's without its extension."""
    return file.headers.get("list-name") or file.name.rpartition(".")[0]


def read_wallet_file(path: Path) -> list[WalletRow]:
    """What a `.wallet_update` file says. A row's own campaign wins over the header's.

    Raises:
        ImportFileError: as `read_file`; also a row without a pass or without a campaign.
    """
    file = read_file(path)
    everywhere = _tokens(file.headers.get("campaign-token", ""))
    rows = []
    for number, row in enumerate(file.rows, start=1):
        cells = dict(zip(file.columns, row, strict=True))
        uuid = cells.pop("uuid", "")
        campaigns = _tokens(cells.pop("campaign_token", "")) or everywhere
        if not uuid or not campaigns:
            msg = f"{path.name}: row {number} names no {'campaign' if uuid else 'pass'}"
            raise ImportFileError(msg)
        rows.append(WalletRow(uuid, campaigns, cells.pop("expiration_date", "") or None, cells))
    return rows


def read_incentives(path: Path) -> tuple[str, list[str]]:
    """The pool that the file's name gives, and the codes for it.

    Raises:
        ImportFileError: as `read_file`.
    """
    return path.name.rpartition(".")[0], [row[0] for row in read_file(path).rows]


def _named(name: str, number: int, cells: dict[str, str]) -> NamedRow:
    identifier = next((key for key in PRECEDENCE if cells.get(key)), None)
    if identifier is None:
        msg = f"{name}: row {number} names nobody; fill one of {', '.join(PRECEDENCE)}"
        raise ImportFileError(msg)
    others = {column: value for column, value in cells.items() if column not in PRECEDENCE}
    return NamedRow(identifier, cells[identifier], others)


def _text(path: Path) -> str:
    content = path.read_bytes()
    if (place := content.find(b"\0")) >= 0:
        msg = f"{path.name}: NUL at byte {place}, which no text has; write it in UTF-8"
        raise ImportFileError(msg)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as undecodable:
        msg = f"{path.name}: not UTF-8 at byte {undecodable.start}; write it in UTF-8"
        raise ImportFileError(msg) from undecodable


def _split_sections(text: str) -> tuple[dict[str, str], str]:
    """The header section, names in lower case, and the body. Without a section: all is body."""
    headers: dict[str, str] = {}
    rest = text
    while rest:
        line, _, following = rest.partition("\n")
        line = line.removesuffix("\r")
        if not line:
            return headers, following
        match = _HEADER_LINE.fullmatch(line)
        if not match:
            return {}, text
        headers[match[1].lower()] = match[2].strip()
        rest = following
    return {}, text


def _check_headers(path: Path, kind: ImportKind, headers: Mapping[str, str]) -> None:
    unknown = sorted(name for name in headers if not KINDS[kind].knows(name))
    if unknown:
        msg = f"{path.name}: {kind} files have no header {', '.join(unknown)}; take it out"
        raise ImportFileError(msg)
    for name in ("delimiter", "multi-select-delimiter"):
        told = headers.get(name, ",")
        if len(told) != 1:
            msg = f"{path.name}: header {name} must be one character"
            raise ImportFileError(msg)
        if name == "delimiter" and (not told.isascii() or told == '"'):
            msg = f"{path.name}: header {name} must be an ASCII character other than a quote"
            raise ImportFileError(msg)


def _columns(
    path: Path, kind: ImportKind, headers: Mapping[str, str], body: str, delimiter: str
) -> tuple[str, ...]:
    if not KINDS[kind].has_columns:
        return ("code",)
    fields = headers.get("fields")
    if fields is None:
        names = next(_records(path, body, delimiter), [])
    else:
        names = [name.strip() for name in fields.split(",")]
    _check_names(path, names, KINDS[kind].identifying)
    return tuple(names)


def _check_names(path: Path, names: Sequence[str], identifying: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        msg = f"{path.name}: columns stand twice: {', '.join(repeated)}"
        raise ImportFileError(msg)
    if not set(identifying) & set(names):
        msg = f"{path.name}: no identifying column; one of {', '.join(sorted(identifying))}"
        raise ImportFileError(msg)


def _cells(
    path: Path, body: str, delimiter: str, columns: Sequence[str], *, is_named_in_body: bool
) -> pa.Table:
    """The cells below the names of the columns."""
    text = body.encode()
    if not _is_quoted_well(text, delimiter):
        raise _misread(path, body, delimiter, len(columns), is_named_in_body=is_named_in_body)
    try:
        return _parsed(text, delimiter, columns, is_named_in_body=is_named_in_body)
    except pa.ArrowInvalid:  # its words quote the row, which is about a person
        wrong = _misread(path, body, delimiter, len(columns), is_named_in_body=is_named_in_body)
    raise wrong


def _parsed(
    text: bytes, delimiter: str, columns: Sequence[str], *, is_named_in_body: bool
) -> pa.Table:
    if not text:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    if is_named_in_body and not text.endswith(b"\n"):
        text += b"\n"  # the parser takes no row of names for one that does not end
    source = pa.BufferReader(BOM_UTF8 + text)  # the parser drops one, which must not be a cell's
    reading = pa_csv.ReadOptions(
        use_threads=False,
        block_size=source.size(),  # a row must not reach over two blocks
        column_names=None if is_named_in_body else list(columns),
    )
    parsing = pa_csv.ParseOptions(
        delimiter=delimiter, escape_char=False, newlines_in_values=True, ignore_empty_lines=True
    )
    converting = pa_csv.ConvertOptions(default_column_type=pa.string(), strings_can_be_null=False)
    return pa_csv.read_csv(source, reading, parsing, converting)


def _is_quoted_well(text: bytes, delimiter: str) -> bool:
    """True when every quote opens or closes a whole cell, or is one of two inside of such a cell.

    Quotes open and close in turn. One that opens stands after a delimiter or a line end, one that
    closes before; the two of a pair inside of a cell close and open again. A parser that is milder
    would join what stands behind a closing quote to the cell.
    """
    marks = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(marks == _QUOTE)
    if len(quotes) % 2:
        return False
    bounds = np.frombuffer(f'{delimiter}\r\n"'.encode(), np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before = marks[opening[opening > 0] - 1]
    after = marks[closing[closing < len(marks) - 1] + 1]
    return bool(np.isin(before, bounds).all() and np.isin(after, bounds).all())


def _misread(
    path: Path, body: str, delimiter: str, width: int, *, is_named_in_body: bool
) -> ImportFileError:
    """What is wrong with a body that cannot be read, found record by record."""
    records = _records(path, body, delimiter)
    if is_named_in_body:
        next(records, None)
    try:
        for number, record in enumerate(records, start=1):
            if len(record) != width:
                msg = f"{path.name}: row {number} has {len(record)} cells, expected {width}"
                return ImportFileError(msg)
    except ImportFileError as malformed:
        return malformed
    return ImportFileError(f"{path.name}: a quote stands inside a cell without quotes; quote it")


def _records(path: Path, body: str, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if record:
                yield record
    except csv.Error as malformed:
        msg = f"{path.name}: line {reader.line_num} of the body is malformed: {malformed}"
        raise ImportFileError(msg) from malformed


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token.strip() for token in text.split(",") if token.strip())
