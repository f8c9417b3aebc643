"""Samples of a diff set: a few changes of every kind, before and after, without personal values.

A mask keeps the shape of a value: letters become x, digits 9. So a wrong date order or a number
without its country is seen, and nobody is. Option keys are words of sync.yaml and stay.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vibes_pipelines.sync_config import SyncConfig

SAMPLES_OF_A_KIND = 2
LONGEST_MASK = 24
_ROWS_LOOKED_AT = 20_000
_LETTER = re.compile(r"[^\W\d_]")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Sample:
    """One change, masked; `before` and `after` are empty for nothing."""

    operation: str
    field: str
    before: str
    after: str
    reason: str


def shape(value: str | None) -> str:
    """The shape of a value; of a long one, its beginning."""
    if value is None:
        return ""
    masked = _DIGIT.sub("9", _LETTER.sub("x", value))
    masked = "".join(one if one.isprintable() else "?" for one in masked)
    return masked if len(masked) <= LONGEST_MASK else f"{masked[:LONGEST_MASK]}…"


def samples_of(folder: Path, config: SyncConfig) -> list[Sample]:
    """Up to two changes of each operation, field and action in a diff set's folder."""
    return sorted(_samples(folder, config), key=lambda one: (one.operation, one.field))


def _samples(folder: Path, config: SyncConfig) -> Iterator[Sample]:
    taken: dict[tuple[str, str, str], int] = defaultdict(int)
    options = {f.to: frozenset((f.options or {}).values()) for f in config.fields}
    for operation, change in _changes(folder):
        kind = (operation, change["field"], change["action"])
        if taken[kind] >= SAMPLES_OF_A_KIND:
            continue
        taken[kind] += 1
        keys = options.get(change["field"], frozenset())
        yield Sample(
            operation,
            change["field"],
            _masked(change["before"], keys),
            _masked(change["after"], keys),
            change["reason"].partition(":")[0],
        )


def _masked(value: str | None, option_keys: frozenset[str]) -> str:
    parts = (value or "").split("|")
    if option_keys and all(part in option_keys for part in parts):
        return value or ""
    return shape(value)


def _changes(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = 0
    file = pq.ParquetFile(folder / "person_changes.parquet")
    try:
        for batch in file.iter_batches(batch_size=2_000, columns=["operation", "changes"]):
            for row in batch.to_pylist():
                for change in row["changes"] or ():
                    yield row["operation"], change
            rows += batch.num_rows
            if rows >= _ROWS_LOOKED_AT:
                return
    finally:
        file.close()
