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
import pyarrow.parquet as pq

from vibes_pipelines.orchestration.columns import COLUMNS
from vibes_pipelines.stages.masking import hash_key, mask
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.snapshots import Snapshot

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


def row_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.ParquetFile(path).metadata.num_rows)


def column_schema(path: Path) -> dg.TableSchema:
    """The columns of a Parquet file, their types and what they mean."""
    schema = pq.read_schema(path)
    return dg.TableSchema(
        [dg.TableColumn(f.name, str(f.type), COLUMNS.get(f.name)) for f in schema]
    )


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


def file_metadata(path: Path, project: Project, shown: AbstractSet[str] = frozenset()) -> Metadata:
    """Counts, schema and masked preview of one Parquet file; `shown` columns are in clear."""
    rows, key = row_count(path), hash_key(project.settings.home)
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


def snapshot_metadata(snapshot: Snapshot, project: Project, *, newly_landed: bool) -> Metadata:
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
    table = next(pq.ParquetFile(path).iter_batches(batch_size=PREVIEW_ROWS), None)
    if table is None or table.num_rows == 0:
        return "no rows"
    rows = table.slice(0, PREVIEW_ROWS).to_pylist()
    return as_markdown(
        table.schema.names,
        [[_masked(name, row[name], key, shown) for name in table.schema.names] for row in rows],
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
    return mask(value, key)


def _without_values(changes: object) -> str:
    """What is done to which field."""
    listed = changes if isinstance(changes, list) else []
    return ", ".join(f"{change['action']} {change['field']}" for change in listed)
