"""What an asset shows in the UI: counts, schema, column lineage, masked previews.

The event log keeps metadata for ever and every user of the UI can read it, so nothing here may
carry personal data: previews are masked and at most five rows.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import dagster as dg

from vibes_pipelines import stages, store
from vibes_pipelines.orchestration.columns import COLUMNS

PREVIEW_ROWS = 5
# Columns of our own files, whose values are our own words. In a landed feed a column of the same
# name holds whatever the customer keeps in it, and is never shown.
# fmt: off
SHOWN_COLUMNS = frozenset({
    "operation", "matched_by", "side", "action", "subscription_list_id", "field", "reason", "kind",
    "source", "outcome", "changes", "error_class", "evidence", "lane", "route", "day", "status",
})
# fmt: on

Metadata = dict[str, dg.MetadataValue[Any] | int | float | str]


def column_schema(path: Path) -> dg.TableSchema:
    """The columns of a Parquet file, their types and what they mean."""
    types = stages.parquet_facts.column_types(path)
    return dg.TableSchema([dg.TableColumn(n, kind, COLUMNS.get(n)) for n, kind in types.items()])


def column_lineage(
    sources: Mapping[str, Iterable[tuple[dg.AssetKey, str]]],
) -> dg.TableColumnLineage:
    """Column → the columns it is made from."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key, column_name=name) for key, name in deps]
            for column, deps in sources.items()
        }
    )


def file_metadata(
    path: Path, project: "stages.project.Project", shown: AbstractSet[str] = frozenset()
) -> Metadata:
    """Counts, schema and masked preview of one Parquet file; `shown` columns are in clear."""
    rows = stages.parquet_facts.row_count(path)
    key = stages.masking.hash_key(project.settings.home)
    return {
        "dagster/partition_row_count": rows,
        "dagster/column_schema": dg.MetadataValue.table_schema(column_schema(path)),
        "dagster/uri": dg.MetadataValue.path(str(path)),
        "preview": dg.MetadataValue.md(masked_preview(path, key, shown)),
    }


def content_hash(path: Path) -> Metadata:
    """The SHA-256 of a file that no manifest has the hash of."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"content_hash": dg.MetadataValue.text(digest)}


def snapshot_metadata(
    snapshot: "store.snapshots.Snapshot", project: "stages.project.Project", *, newly_landed: bool
) -> Metadata:
    """What a landed feed shows."""
    manifest = snapshot.manifest
    return {
        "as_of": dg.MetadataValue.text(manifest.as_of.isoformat()),
        "source": dg.MetadataValue.text(manifest.source),
        "content_hash": dg.MetadataValue.text(manifest.content_hash),
        "rejected_rows": manifest.rejected,
        "rejected_share": share(manifest.rejected, manifest.rejected + manifest.rows),
        "bytes": manifest.bytes,
        "landed": "now" if newly_landed else "before; a landed day is never landed again",
        **file_metadata(snapshot.data, project),
    }


def share(part: int, whole: int) -> float:
    """A part of a whole; 0 of nothing."""
    return part / whole if whole else 0.0


def masked_preview(path: Path, key: bytes, shown: AbstractSet[str]) -> str:
    """Up to five rows as Markdown: `shown` columns in clear, everything else as a keyed hash."""
    rows = stages.parquet_facts.first_rows(path, PREVIEW_ROWS)
    if not rows:
        return "no rows"
    return as_markdown(
        list(rows[0]),
        [[_masked(name, value, key, shown) for name, value in row.items()] for row in rows],
    )


def as_markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _masked(column: str, value: object, key: bytes, shown: AbstractSet[str]) -> str:
    if value is None:
        return ""
    if column in shown:
        return _without_values(value) if column == "changes" else str(value)
    return stages.masking.mask(value, key)


def _without_values(changes: object) -> str:
    """What is done to which field."""
    listed = changes if isinstance(changes, list) else []
    return ", ".join(f"{change['action']} {change['field']}" for change in listed)
