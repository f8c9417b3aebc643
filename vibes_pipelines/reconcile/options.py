"""Option keys: those that the platform shows, against those that the sync config maps.

A key that nothing maps is no doubt about anybody, for the platform may know more than we map. But
it is worth a look: a renamed option is a new key here, and every contact of the old one a change.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import duckdb

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.sources import Source, open_source
from vibes_pipelines.reconcile.values import platform_text
from vibes_pipelines.sync_config import MappedField, SyncConfig


def unknown_options(
    config: SyncConfig, seen: Mapping[str, Collection[str]]
) -> dict[str, frozenset[str]]:
    """Per field with options the keys among those seen that no option maps to; only where any."""
    unknown = {
        field.to: frozenset(seen.get(field.to, ())) - _known_keys(field) for field in config.fields
    }
    catalogued = {field.to for field in config.fields if field.options is not None}
    return {name: keys for name, keys in unknown.items() if keys and name in catalogued}


def count_unknown_options(
    config: SyncConfig, persons: Path, limits: Limits = Limits()
) -> dict[str, int]:
    """Per field with options the values of these persons with a key that no option maps to.

    Counts alone: where a column was mapped wrongly, what it holds is no option key.

    Raises:
        ReconcileError: persons that cannot be read, or lack a mapped field.
    """
    catalogued = [field for field in config.fields if field.options is not None]
    if not catalogued:
        return {}
    with (
        tempfile.TemporaryDirectory(prefix="options-", dir=limits.temp_dir) as workspace,
        engine(limits, Path(workspace)) as connection,
    ):
        source = open_source(connection, "persons", persons, Path(workspace))
        seen = {field.to: _seen(connection, field, source) for field in catalogued}
    unknown = unknown_options(config, seen)
    return {name: sum(seen[name][key] for key in keys) for name, keys in unknown.items()}


def _seen(
    connection: duckdb.DuckDBPyConnection, field: MappedField, persons: Source
) -> dict[str, int]:
    """Every option key of one field, and the persons that have it."""
    column = persons.column(field.to, f"fields.to: {field.to}")
    key = platform_text(field.type, *column)
    if field.type == "multi_select":
        key = f"unnest(string_split({key}, '|'))"
    found = connection.execute(
        f"SELECT key, count(*) FROM (SELECT {key} AS key FROM {persons.relation})"
        " WHERE key IS NOT NULL GROUP BY key"
    )
    return {str(key): int(rows) for key, rows in found.fetchall()}


def _known_keys(field: MappedField) -> frozenset[str | None]:
    return frozenset(map(trimmed, (field.options or {}).values()))
