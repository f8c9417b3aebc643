"""Blanking one person's rows in files: Parquet of every kind, and import files.

A row stays where it is, so that every count stays: its identifiers become pseudonyms and its values
go. Each file is written beside its place and renamed there; again is a no-op. Rows are told by
identifiers that are the person's alone; by a number only where a row has no other identifier.
"""

import csv
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vibes_pipelines.reconcile.landed import HASHES
from vibes_pipelines.stages.erasing_parquet import (
    count_changes,
    is_blank,
    plain,
    rewrite_parquet,
    rows_with,
)
from vibes_pipelines.stages.erasing_subject import Subject
from vibes_pipelines.stages.pseudonyms import BLANK, KEYS, PREFIX, pseudonym
from vibes_pipelines.store.placing import put
from vibes_pipelines.store.snapshots import DATA, MANIFEST, REJECTS, Manifest
from vibes_pipelines.sync_config import SyncConfig

NUMBERS = frozenset({"mdn", "mdn_e164_format"})
RECORDS = frozenset({"record", "target"})
"""Columns of cases and decisions: a key, or a key with a word before it."""

STRUCTURE = frozenset(
    {
        *("operation", "matched_by", "kind", "source", "side", "action", "field", "fields"),
        *("subscription_list_id", "person_row", "is_judged", "passes", "is_settled", "unknown"),
        *("has_matched", "state", "lane", "route", "status", "error_class", "category", "advice"),
        *("attempts", "operation_id", "outcome", "day", "diff_set", "line", "reason", "since"),
        *("changes", "accepted_at", "batch_id", "row_number", "was_accepted"),
    }
)
"""Columns of our own files that say what a row is, and nothing about whom."""

_TEXTS = frozenset({"detail", "raw"})
"""Columns of text that a reader expects to be there."""


@dataclass(frozen=True)
class Naming:
    """How the person is told in a file, and what its identifiers become."""

    subject: Subject
    key: bytes
    key_columns: frozenset[str]
    number_columns: frozenset[str]

    @classmethod
    def of(cls, subject: Subject, key: bytes, config: SyncConfig) -> "Naming":
        """With the columns of the CRM that the sync config names."""
        contacts = config.contacts
        keys = {contacts.key} | ({contacts.person_key} if contacts.person_key else set())
        numbers = {contacts.mdn.column} if contacts.mdn else set()
        return cls(subject, key, KEYS | keys, NUMBERS | numbers)

    def is_theirs(self, row: dict[str, Any]) -> bool:
        """Whether a row is this person's; a case about another contact is that contact's."""
        if self._is_case_of_another(row):
            return False
        own = [plain(row[name]) for name in self.key_columns if row.get(name) is not None]
        if any(self.is_key(value) for value in own):
            return True
        if any(self._is_record(row.get(name)) for name in RECORDS):
            return True
        numbers = [plain(row[n]) for n in self.number_columns if row.get(n) is not None]
        return not own and any(number in self.subject.mdns for number in numbers)

    def blanked(self, row: dict[str, Any], kept: Collection[str]) -> dict[str, Any]:
        """The row without anything of the person."""
        return {name: self._cell(name, value, kept) for name, value in row.items()}

    def without_mentions(self, row: dict[str, Any]) -> dict[str, Any]:
        """Another's row, whose case names rows that point to it, or the person that it matched."""
        named: dict[str, Any] = {
            name: self._pseudonym(plain(value))
            for name, value in row.items()
            if name in self.key_columns and value is not None and self.is_key(plain(value))
        }
        others = row.get("others")
        if others and any(self._is_pointed_to(text) for text in others):
            named["others"] = [BLANK if self._is_pointed_to(text) else text for text in others]
        return row | named

    def is_in(self, text: str) -> bool:
        """Whether a text holds one of the identifiers as a word of its own."""
        return bool(text) and self._words.search(text) is not None

    def _cell(self, name: str, value: Any, kept: Collection[str]) -> Any:
        if value is None or (name in kept and name != "changes"):
            return value
        if name in self.key_columns:
            return self._key(plain(value))
        if name in RECORDS:
            return self._record(value)
        if name == "changes" and name in kept:
            return [change | {"before": None, "after": None} for change in value]
        return BLANK if name in _TEXTS else None

    def _key(self, text: str) -> str | None:
        if self.is_key(text):
            return self._pseudonym(text)
        return text if is_blank(text) else None

    def _record(self, value: str) -> str | None:
        word, _, rest = value.rpartition(" ")
        if self.is_key(rest):
            return f"{word} {self._pseudonym(rest)}".strip()
        return value if is_blank(rest) else None

    def _is_case_of_another(self, row: dict[str, Any]) -> bool:
        """Whether it is a case of a contact with another key: its person_key is whom it matched."""
        contact = row.get("external_person_id")
        is_case = row.get("source") == "contact" and "kind" in row and contact is not None
        return is_case and not self.is_key(plain(contact)) and not is_blank(plain(contact))

    def _is_pointed_to(self, text: str) -> bool:
        """Whether a row that a case names, its keys and its number, is this person's."""
        if text == BLANK:
            return False
        *keys, number = json.loads(text)
        own = [key for key in keys if key is not None]
        return any(map(self.is_key, own)) or (not own and number in self.subject.mdns)

    def _is_record(self, value: str | None) -> bool:
        if value is None:
            return False
        word, _, rest = value.rpartition(" ")
        return self.is_key(rest) or (word == "mdn" and rest in self.subject.mdns)

    def is_key(self, text: str) -> bool:
        """Whether a text is an identifier that is the person's alone."""
        return text in self.subject.keys or text.lower() in self.subject.person_keys

    def _pseudonym(self, text: str) -> str:
        is_external = text == self.subject.external_person_id
        return pseudonym(text if is_external else text.lower(), self.key)

    @property
    def _words(self) -> re.Pattern[str]:
        known = sorted({*self.subject.keys, *self.subject.mdns}, key=len, reverse=True)
        words = "|".join(re.escape(one) for one in known if one)
        return re.compile(rf"(?<![0-9A-Za-z])(?:{words})(?![0-9A-Za-z])", re.IGNORECASE)


def blank_parquet(path: Path, naming: Naming, *, dry_run: bool = False) -> int:
    """Blanks the person's rows of one file; returns how many blank rows it has now.

    With `dry_run`, how many rows would be changed; nothing is written.
    """
    kept = frozenset({"subscription_list_id"}) if path.name == DATA else STRUCTURE
    if path.stem == "certificate":
        kept |= {"evidence"}
    if path.stem == "decisions":
        kept -= {"reason"}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if path.name == REJECTS:
            return row | {"raw": BLANK} if naming.is_in(row["raw"] or "") else row
        if naming.is_theirs(row):
            return naming.blanked(row, kept)
        return naming.without_mentions(row)

    def find(table: pa.Table) -> list[int]:
        if {*RECORDS, "others", "raw"}.intersection(table.column_names):
            return list(range(table.num_rows))  # few rows, told by more than a column
        mdns = naming.subject.mdns
        return sorted(
            rows_with(table, naming.key_columns, lambda value: naming.is_key(plain(value)))
            | rows_with(table, naming.number_columns, lambda value: plain(value) in mdns)
        )

    if dry_run:
        return count_changes(path, find, change)
    return rewrite_parquet(path, {*naming.key_columns, *RECORDS}, find, change)


def mark_snapshot(folder: Path, erased: int) -> None:
    """Lets the manifest of a landed snapshot say how many of its rows are blank.

    All else in it stays as it was landed, also the content hash, by which other files name it. The
    stored hashes of the rows go: they are made anew from the data where they are missing.
    """
    path = folder / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    (folder / HASHES).unlink(missing_ok=True)
    if document.get("erased", 0) == erased:
        return
    manifest = Manifest.from_json(json.dumps(document | {"erased": erased}))
    draft = folder / f".{MANIFEST}"
    draft.write_text(manifest.to_json(), encoding="utf-8")
    put(draft, path)


def blank_import_file(path: Path, naming: Naming, *, dry_run: bool = False) -> int:
    """Blanks the person's rows of an import file; other rows keep their bytes.

    Layout: the Vibes documentation, File-Based Data Imports: headers up to a blank line, if there
    are any, the column row, and the rows.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    start, delimiter = _body(lines)
    if start >= len(lines):
        return 0
    columns = next(csv.reader([lines[start]], delimiter=delimiter))
    kept = lines[: start + 1]
    blank, is_changed = 0, False
    for raw, cells in _records(lines[start + 1 :], delimiter):
        row = dict(zip(columns, cells, strict=False))
        text = raw
        if naming.is_theirs({name: value or None for name, value in row.items()}):
            cleaned = naming.blanked({n: v or None for n, v in row.items()}, frozenset())
            text = delimiter.join(cleaned[name] or "" for name in columns) + "\n"
            is_changed = True
        blank += PREFIX in text
        kept.append(text)
    if is_changed and not dry_run:
        draft = path.with_name(f".{path.name}.erasing")
        draft.write_text("".join(kept), encoding="utf-8", newline="")
        put(draft, path)
    return blank


def _body(lines: Sequence[str]) -> tuple[int, str]:
    """The line of the column row, and the delimiter."""
    delimiter = ","
    if not lines or not re.match(r"[A-Za-z][A-Za-z-]*:", lines[0]):
        return 0, delimiter
    for number, line in enumerate(lines):
        if line.startswith("Delimiter:"):
            delimiter = line.partition(":")[2].strip() or ","
        if not line.strip():
            return number + 1, delimiter
    return len(lines), delimiter


def _records(lines: Sequence[str], delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Each record with the very text that it was read from."""
    reader = csv.reader(lines, delimiter=delimiter)
    start = 0
    for cells in reader:
        yield "".join(lines[start : reader.line_num]), cells
        start = reader.line_num
