"""Keeping erased people out: whoever comes back from a source is blanked before it is landed.

The row stays, so that every count stays, and the reconcile puts it into quarantine as `erased`. Who
was erased is known by keyed hashes alone. `quarantine undo` lets a person in again.
"""

from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.erasing_parquet import plain, rewrite_parquet, rows_with
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.pseudonyms import KEYS, pseudonym
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.snapshots import DATA
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


def blank_returned(settings: Settings, config: SyncConfig) -> Callable[[Path], int]:
    """What blanks the rows of erased people in a folder that is being landed; returns how many."""
    columns = KEYS | {config.contacts.key}
    columns |= {config.contacts.person_key} if config.contacts.person_key else set()

    def blank(folder: Path) -> int:
        out = standing_pseudonyms(settings)
        if not out:
            return 0
        key = hash_key(settings.keys_home)

        def known(text: str) -> str | None:
            """The pseudonym of an erased identifier; a person_key counts in lower case."""
            spellings = {text, text.lower()}
            return next((p for one in spellings if (p := pseudonym(one, key)) in out), None)

        def change(row: dict[str, Any]) -> dict[str, Any]:
            keys = {n: known(plain(v)) for n, v in row.items() if n in columns and v is not None}
            return {
                name: keys.get(name) if name in columns else value if name == _LIST else None
                for name, value in row.items()
            }

        def find(table: pa.Table) -> list[int]:
            return sorted(rows_with(table, columns, lambda text: known(text) is not None))

        return rewrite_parquet(folder / DATA, columns, find, change)

    return blank


_LIST = "subscription_list_id"
