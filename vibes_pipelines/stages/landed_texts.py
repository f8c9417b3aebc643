"""Landed columns as the texts by which the reconcile knows them: of a double 2 it is `2`."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.reconcile.sql import ident
from vibes_pipelines.reconcile.values import as_text


def landed_texts(engine: duckdb.DuckDBPyConnection, files: Iterable[Path], **columns: str) -> str:
    """SQL for columns of all these landed files, under the names that they are given here.

    A column that only some of the files have is NULL in the others.
    """
    groups: dict[tuple[str | None, ...], list[Path]] = defaultdict(list)
    for path in files:
        types = _types(engine, path)
        groups[tuple(types.get(name.lower()) for name in columns.values())].append(path)
    somewhere = [any(kinds) for kinds in zip(*groups, strict=True)]
    parts = []
    for kinds, alike in groups.items():
        texts = [
            f"{_text(name, kind) if kind or not is_known else 'NULL'} AS {ident(alias)}"
            for (alias, name), kind, is_known in zip(columns.items(), kinds, somewhere, strict=True)
        ]
        relation = parquet(*alike, union_by_name=True, binary_as_string=True)
        parts.append(f"SELECT {', '.join(texts)} FROM {relation}")  # noqa: S608 - quoted
    return f"({' UNION ALL '.join(parts)})"


def _text(name: str, kind: str | None) -> str:
    """Of a column that is nowhere the name alone, by which the engine refuses it."""
    return ident(name) if kind in {None, "VARCHAR"} else as_text(ident(name), str(kind))


def _types(engine: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    relation = parquet(path, binary_as_string=True)
    rows = engine.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()  # noqa: S608
    return {str(name).lower(): str(kind) for name, kind, *_ in rows}
