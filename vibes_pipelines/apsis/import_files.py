"""The CSV files of bulk imports: what to write, into how many files, and what they mean.

A blank cell has two meanings, by an option of the whole import: keep what is stored, or erase it.
So rows that erase nothing share files in which a blank keeps; rows that erase go into files of
their own in which every cell is meant, grouped by their columns. Consents have their own files, one
kind for opt-ins and one for opt-outs, in which no cell is blank.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Final

from vibes_pipelines.apsis.consents import SettableType
from vibes_pipelines.apsis.definitions import Definitions
from vibes_pipelines.apsis.errors import ApsisError, ValueRefused
from vibes_pipelines.apsis.imports import ConsentColumn, ImportMapping

KEY_COLUMN: Final = "profile_key"
FLAG: Final = "1"
DEFAULT_BYTES: Final = 50_000_000


class Clear(Enum):
    """The wish to erase a stored value; nothing else erases one."""

    CLEAR = "clear"


CLEAR: Final = Clear.CLEAR


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One profile's values by attribute, as cells (`values.cell`) or `CLEAR`; others stay."""

    key: str
    attributes: Mapping[str, str | Clear]


@dataclass(frozen=True, slots=True)
class ConsentRow:
    """One profile's consent for an address: an e-mail address, or a number as MSISDN."""

    key: str
    address: str
    topic: str
    channel: str
    type: SettableType


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A written file and its meaning. `rows` are those below the header."""

    path: Path
    mapping: ImportMapping
    rows: int


def write_profile_files(
    rows: Iterable[ProfileRow],
    known: Definitions,
    folder: Path,
    max_bytes: int = DEFAULT_BYTES,
) -> list[ImportFile]:
    """Writes attribute files, none of more than `max_bytes`.

    Raises:
        ApsisSetupError: an attribute that the account has not.
        ValueRefused: a blank cell that is not `CLEAR`, a blank key.
        ApsisError: the same key twice; which row wins is nobody's to guess.
    """
    groups: dict[tuple[str, ...] | None, list[ProfileRow]] = {}
    for row in _unique(rows):
        groups.setdefault(_group(row), []).append(row)
    files: list[ImportFile] = []
    for columns, members in sorted(groups.items(), key=lambda group: group[0] or ()):
        clears = columns is not None
        names = columns or tuple(sorted({name for row in members for name in row.attributes}))
        versions = tuple((name, known.version_id(name)) for name in names)
        mapping = ImportMapping(KEY_COLUMN, versions, clear_existing=clears)
        lines = ([row.key, *(_cell(row, name) for name in names)] for row in members)
        files += _write(
            "profiles", mapping, [KEY_COLUMN, *names], lines, (folder, files, max_bytes)
        )
    return files


def write_consent_files(
    rows: Iterable[ConsentRow], folder: Path, max_bytes: int = DEFAULT_BYTES
) -> list[ImportFile]:
    """Writes consent files: opt-outs first, one (topic, channel) and type a file.

    Raises:
        ValueRefused: a blank key or address.
        ApsisError: a profile with both types for one topic and channel.
    """
    groups: dict[tuple[SettableType, str, str], dict[str, str]] = {}
    for row in rows:
        if not row.key.strip() or not row.address.strip():
            raise ValueRefused("text", "a blank key or address", "leave the consent out")
        other: SettableType = "opt-in" if row.type == "opt-out" else "opt-out"
        if row.key in groups.get((other, row.topic, row.channel), {}):
            msg = f"a profile is to be opted in and out of topic {row.topic}; decide which"
            raise ApsisError(msg)
        groups.setdefault((row.type, row.topic, row.channel), {})[row.key] = row.address
    files: list[ImportFile] = []
    for (consent_type, topic, channel), members in sorted(
        groups.items(), key=lambda group: (group[0][0] == "opt-in", group[0])
    ):
        consent = ConsentColumn(topic, "address", topic, channel)
        mapping = ImportMapping(KEY_COLUMN, consents=(consent,), consent_type=consent_type)
        lines = ([key, address, FLAG] for key, address in members.items())
        header = [KEY_COLUMN, "address", topic]
        files += _write(consent_type, mapping, header, lines, (folder, files, max_bytes))
    return files


def _group(row: ProfileRow) -> tuple[str, ...] | None:
    """The columns of a row that erases something; None for all others."""
    clears = any(value is CLEAR for value in row.attributes.values())
    return tuple(sorted(row.attributes)) if clears else None


def _unique(rows: Iterable[ProfileRow]) -> Iterator[ProfileRow]:
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if not row.key.strip():
            raise ValueRefused("text", f"row {number} has a blank key", "leave the row out")
        if row.key in seen:
            raise ApsisError(f"row {number} repeats a profile key; merge the rows first")
        seen.add(row.key)
        yield row


def _cell(row: ProfileRow, name: str) -> str:
    value = row.attributes.get(name, "")
    if value is CLEAR:
        return ""
    if name in row.attributes and not str(value).strip():
        raise ValueRefused("any", f"{name} is blank", "say CLEAR to erase it, or leave it out")
    return str(value)


def _write(
    kind: str,
    mapping: ImportMapping,
    header: Sequence[str],
    lines: Iterable[Sequence[str]],
    place: tuple[Path, Sequence[ImportFile], int],
) -> list[ImportFile]:
    """The lines in as many files as their size needs, numbered after those already written."""
    folder, before, max_bytes = place
    first = _line(header)
    written: list[ImportFile] = []
    chunk: list[bytes] = []
    size = len(first)

    def close() -> None:
        path = folder / f"{len(before) + len(written) + 1:04d}_{kind}.csv"
        path.write_bytes(b"".join([first, *chunk]))
        written.append(ImportFile(path, mapping, len(chunk)))
        chunk.clear()

    for fields in lines:
        line = _line(fields)
        if len(first) + len(line) > max_bytes:
            raise ApsisError(f"a row of {len(line):,} bytes fits into no import; map fewer fields")
        if chunk and size + len(line) > max_bytes:
            close()
            size = len(first)
        chunk.append(line)
        size += len(line)
    if chunk:
        close()
    return written


def _line(fields: Sequence[str]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode()
