"""Keeping erased people out: whoever comes back from a source is blanked before it is landed.

The row stays, so that every count stays, and the reconcile puts it into quarantine as `erased`. Who
was erased is known by keyed hashes alone. `quarantine undo` lets a person in again.
"""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.erasing_parquet import plain, rewrite_parquet, rows_with
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.pseudonyms import BLANK, KEYS, pseudonym
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.records import Kind, Operation
from vibes_pipelines.store.snapshots import DATA, REJECTS
from vibes_pipelines.sync_config import SyncConfig


def standing_pseudonyms(settings: Settings) -> frozenset[str]:
    """The pseudonyms of everybody who was erased and not let in again, for any destination."""
    with closing(Erasures(settings.inbox_url)) as book:
        standing = [one for one in book.all() if one.undone_at is None]
    return frozenset(name for one in standing for name in one.pseudonyms)


def without_erased(settings: Settings, contacts: Collection[str]) -> list[str]:
    """The keys of contacts less those of erased people."""
    out = standing_pseudonyms(settings)
    if not out:
        return list(contacts)
    key = hash_key(settings.keys_home)
    return [one for one in contacts if pseudonym(one, key) not in out]


def named_erased(settings: Settings, operations: Sequence[Operation]) -> dict[str, str]:
    """Operations that would carry something of an erased person: operation id → why.

    Opt-outs are never among them.
    """
    carried = [one for one in operations if one.kind not in _OPT_OUTS]
    out = standing_pseudonyms(settings) if carried else frozenset()
    if not out:
        return {}
    key = hash_key(settings.keys_home)
    return {
        one.operation_id: ERASED_SINCE
        for one in carried
        if pseudonym(one.external_person_id or "", key) in out
        or pseudonym((one.person_key or "").lower(), key) in out
    }


def blank_returned(settings: Settings, config: SyncConfig) -> Callable[[Path], int]:
    """What blanks the rows of erased people in a folder that is being landed; returns how many.

    Lines that could not be read as rows are blanked too, and not counted.
    """
    in_lower_case = {"person_key"}
    in_lower_case |= {config.contacts.person_key} if config.contacts.person_key else set()
    columns = KEYS | {config.contacts.key} | in_lower_case

    def blank(folder: Path) -> int:
        out = standing_pseudonyms(settings)
        if not out:
            return 0
        known = _Known(out, hash_key(settings.keys_home))
        if (folder / REJECTS).exists():
            rewrite_parquet(folder / REJECTS, (), known.lines, lambda row: row | {"raw": BLANK})

        def of(column: str, value: object) -> str | None:
            return known.pseudonym_of(value, in_lower_case=column in in_lower_case)

        def is_erased(column: str, value: object) -> bool:
            return of(column, value) is not None

        def change(row: dict[str, Any]) -> dict[str, Any]:
            keys = {n: of(n, v) for n, v in row.items() if n in columns and v is not None}
            return {
                name: keys.get(name) if name in columns else value if name == _LIST else None
                for name, value in row.items()
            }

        def find(table: pa.Table) -> list[int]:
            found: set[int] = set()
            for name in columns:
                found |= rows_with(table, {name}, partial(is_erased, name))
            return sorted(found)

        return rewrite_parquet(folder / DATA, columns, find, change)

    return blank


class _Known:
    """Who was erased, by pseudonyms."""

    def __init__(self, out: Collection[str], key: bytes) -> None:
        self._out = out
        self._key = key

    def pseudonym(self, identifier: str) -> str | None:
        """That of an erased identifier, just as it is spelt."""
        found = pseudonym(identifier, self._key)
        return found if found in self._out else None

    def pseudonym_of(self, value: object, *, in_lower_case: bool) -> str | None:
        """That of an erased identifier in a cell.

        Erasures of earlier releases name it as it was spelt, with the blanks off that Python knows.
        """
        texts = (plain(value), str(value).strip())
        names = (self.pseudonym(one.lower() if in_lower_case else one) for one in texts)
        return next(filter(None, names), None)

    def lines(self, table: pa.Table) -> list[int]:
        """Rejected lines in which an identifier stands as a cell or a word."""
        return [
            number
            for number, line in enumerate(table.column("raw").to_pylist())
            if any(self.pseudonym(word) for word in _words(line or ""))
        ]


def _words(line: str) -> set[str]:
    """Cells and words of a line that could not be read, also in lower case.

    No delimiter is certain there, and a key may hold blanks or signs.
    """
    words = {line.strip()}
    for delimiter in (r"[,;|\t]", r"[,;|\t\s\"']", r"[^0-9A-Za-z_-]"):
        words |= {word.strip().strip("\"'").strip() for word in re.split(delimiter, line)}
    return {spelt for word in words if word for spelt in (word, word.lower())}


_LIST = "subscription_list_id"
_OPT_OUTS: frozenset[Kind] = frozenset({"opt_out", "crm_opt_out"})

ERASED_SINCE = "the person was erased after this was decided on"
