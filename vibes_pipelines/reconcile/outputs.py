"""The files of a diff set: exact columns, sorted, byte-identical for equal content.

They are sorted by what tells their rows apart, and their row groups end where their size says.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

import hashlib
from pathlib import Path

import duckdb

from vibes_pipelines.data_files import exact
from vibes_pipelines.reconcile.cases import QUARANTINE
from vibes_pipelines.reconcile.sql import literal

_PERSON_CHANGES = """
    SELECT CASE WHEN is_add THEN 'add' ELSE 'update' END AS operation,
           contact_key AS external_person_id, person_key, mdn, matched_by, changes
    FROM outcome
    WHERE status IN ('added', 'updated')
    ORDER BY external_person_id"""

# Only where a destination deletes: what other diff sets are made of stays as it is.
_WITH_DELETIONS = f"""
    SELECT * FROM ({_PERSON_CHANGES})
    UNION ALL
    SELECT 'delete', external_person_id, person_key, NULL, matched_by, []
    FROM deletion
    ORDER BY external_person_id, operation"""

_CRM_CHANGES = """
    SELECT contact_id, change.field AS field, change.before AS before, change.after AS after,
           change.reason AS reason
    FROM (SELECT contact_key AS contact_id, unnest(crm_changes) AS change FROM outcome)
    ORDER BY contact_id, field"""

_SUBSCRIPTION_CHANGES = """
    SELECT side, action, external_person_id, person_key, mdn, subscription_list_id, evidence_at,
           reason
    FROM subscription_change
    ORDER BY side, action, external_person_id, person_key, mdn, subscription_list_id,
             evidence_at, reason"""

_QUARANTINE = f"""
    SELECT * FROM ({QUARANTINE})
    ORDER BY kind, source, external_person_id, person_key, mdn, detail"""

_FILES = {
    "person_changes.parquet": _PERSON_CHANGES,
    "subscription_changes.parquet": _SUBSCRIPTION_CHANGES,
    "crm_changes.parquet": _CRM_CHANGES,
    "quarantine.parquet": _QUARANTINE,
}

_ROW_GROUP_SIZE = 122_880
"""Rows; the engine's own."""


def write_outputs(connection: duckdb.DuckDBPyConnection, out: Path) -> dict[str, str]:
    """Writes the four Parquet files; returns the SHA-256 of each by file name."""
    out.mkdir(parents=True, exist_ok=True)
    # From statistics the writer would conclude which columns are never null, and the schema of the
    # files would depend on what is in them.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    files = dict(_FILES)
    if connection.execute("SELECT 1 FROM deletion LIMIT 1").fetchall():
        files["person_changes.parquet"] = _WITH_DELETIONS
    for name, sql in files.items():
        _write(connection, sql, out / name)
    return {name: _sha256(out / name) for name in _FILES}


def _write(connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> None:
    """Several threads end their row groups where the size says nearly always, but not always."""
    copy = f"""
        COPY ({sql}) TO {literal(str(path))}
        (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {_ROW_GROUP_SIZE})"""
    [(rows,)] = connection.execute(copy).fetchall()
    if _has_full_row_groups(connection, path, rows):
        return
    [(threads,)] = connection.execute("SELECT current_setting('threads')").fetchall()
    connection.execute("SET threads = 1")
    connection.execute(copy)
    connection.execute(f"SET threads = {int(threads)}")


def _has_full_row_groups(connection: duckdb.DuckDBPyConnection, path: Path, rows: int) -> bool:
    """Whether every row group but the last is full, as one thread writes them."""
    found = connection.execute(
        "SELECT row_group_num_rows FROM parquet_metadata(?) WHERE column_id = 0"
        " ORDER BY row_group_id",
        [exact(path)],
    ).fetchall()
    full, rest = divmod(rows, _ROW_GROUP_SIZE)
    return [size for (size,) in found] == [_ROW_GROUP_SIZE] * full + [rest] * bool(rest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
