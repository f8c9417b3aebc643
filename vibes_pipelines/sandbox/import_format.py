"""The format of imports: an optional header section, a blank line, a delimited body.

Reads bytes into column names and rows of text, and refuses files that cannot be read. What rows
mean is in `import_rows` and `import_kinds`, which also say what headers a kind of import knows.
Source: Vibes documentation, File-Based Data Imports and Person Import.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_HEADER = re.compile(r"([A-Za-z][A-Za-z-]*):(.*)")

PERSON_HEADERS = frozenset({"fields", "delimiter", "multi-select-delimiter"})
"""Headers of person imports, in lower case."""

ENCODING_ERROR = "FileEngine::EncodingDetection::Unknown8BitEncodingDetected"
FORMAT_ERROR = "PersonErrors::InvalidImportFileFormat"


class ImportFileError(Exception):
    """The whole file is refused and nothing applied; `error_class` as in the platform's report."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True)
class ImportText:
    """A readable import: `columns` name the cells of every row of the body.

    `headers` is the header section by lower-case name; `None` when there is no section.
    """

    columns: tuple[str, ...]
    multi_select_delimiter: str
    delimiter: str
    body: str
    headers: Mapping[str, str] | None = field(default=None, repr=False)

    def rows(self) -> Iterator[list[str]]:
        """The rows of the body in order, without the row of field names."""
        return csv.reader(io.StringIO(self.body, newline=""), delimiter=self.delimiter, strict=True)


def parse_import(data: bytes, known: frozenset[str] = PERSON_HEADERS) -> ImportText:
    """The columns and the body of an import; every row has been seen and fits the columns.

    `known` are the headers of its kind, in lower case. Raises ImportFileError.
    """
    try:
        parsed = _parse(decode(data), known)
        _check_rows(parsed)
    except csv.Error as error:
        raise ImportFileError(FORMAT_ERROR, f"the rows cannot be parted: {error}") from error
    return parsed


def _parse(text: str, known: frozenset[str]) -> ImportText:
    section, body = _split(text, known)
    headers = section or {}
    delimiter = _one_character(headers, "delimiter", ",")
    separator = _one_character(headers, "multi-select-delimiter", "|")
    if delimiter == separator:
        raise ImportFileError(FORMAT_ERROR, "Delimiter and Multi-Select-Delimiter are the same")
    if "fields" in headers:
        names = next(csv.reader([headers["fields"]]), [])
    else:
        names, body = _take_first_row(body, delimiter)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ImportFileError(FORMAT_ERROR, f"Field named twice: {', '.join(repeated)}")
    return ImportText(tuple(names), separator, delimiter, body, section)


def decode(data: bytes) -> str:
    """UTF-8 text, of which ASCII is a part; a byte order mark is dropped.

    Raises ImportFileError.
    """
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ImportFileError(ENCODING_ERROR, "the file is neither UTF-8 nor ASCII") from error
    if "\0" in text:
        raise ImportFileError(ENCODING_ERROR, "the file holds NUL: it is not UTF-8 text")
    return text


def _split(text: str, known: frozenset[str]) -> tuple[dict[str, str] | None, str]:
    """The header section by lower-case name, and the body; without a section everything is body.

    A first line in the form `Name: value` with a known name opens a section.
    """
    first = _HEADER.match(text)
    if first is None or first[1].lower() not in known:
        return None, text
    headers: dict[str, str] = {}
    lines = io.StringIO(text, newline="")
    for line in lines:
        content = line.rstrip("\r\n")
        if not content:
            return headers, lines.read()
        _add_header(headers, content, known)
    raise ImportFileError(FORMAT_ERROR, "no blank line ends the header section")


def _add_header(headers: dict[str, str], line: str, known: frozenset[str]) -> None:
    match = _HEADER.fullmatch(line)
    name = match[1].lower() if match else ""
    if match is None or name not in known:
        raise ImportFileError(FORMAT_ERROR, "unknown header in the header section")
    if name in headers:
        raise ImportFileError(FORMAT_ERROR, f"header given twice: {name}")
    headers[name] = match[2].removeprefix(" ")


def _one_character(headers: dict[str, str], name: str, default: str) -> str:
    value = headers.get(name, default)
    if len(value) != 1 or value == '"':
        raise ImportFileError(FORMAT_ERROR, f"{name} takes one character that is no quote")
    return value


def _take_first_row(body: str, delimiter: str) -> tuple[list[str], str]:
    """The row of field names, and the body after it."""
    line, _, rest = body.partition("\n")
    return next(csv.reader([line.removesuffix("\r")], delimiter=delimiter), []), rest


def _check_rows(parsed: ImportText) -> None:
    """Every row must be there whole before the first is applied."""
    width = len(parsed.columns)
    for number, row in enumerate(parsed.rows(), 1):
        if len(row) != width and not (width == 1 and not row):
            message = f"row {number} has {len(row)} cells, the file has {width} fields"
            raise ImportFileError(FORMAT_ERROR, message)
