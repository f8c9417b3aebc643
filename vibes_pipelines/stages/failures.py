"""What a delivery could not carry, row by row: why, and what an operator should do."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.records import Operation
from vibes_pipelines.vibes.error_classes import lookup

WITHDRAWN = "Withdrawn"
"""Stands for an error class where nothing failed: the person opted out before it left."""

_SCHEMA = pa.schema(
    [
        (name, pa.string())
        for name in (
            "lane",
            "route",
            "kind",
            "status",
            "error_class",
            "category",
            "advice",
            "external_person_id",
            "person_key",
            "subscription_list_id",
            "fields",
            "message",
        )
    ]
    + [("attempts", pa.int64())]
)
_WRITE_ROWS = 10_000


@dataclass(frozen=True)
class Failures:
    """The file of a day's failures, and how many there are of each error class."""

    path: Path
    by_class: dict[str, int]

    @property
    def advised(self) -> list[tuple[str, int, str, str]]:
        """Error class, rows, category, advice; the most frequent first."""
        ranked = sorted(self.by_class.items(), key=lambda item: (-item[1], item[0]))
        return [(name, rows, *_meaning(name)) for name, rows in ranked]


def write_failures(project: Project, day: str) -> Failures:
    """Writes `rejected.parquet` of the day: what was refused, got no answer or was withdrawn."""
    diff_set = read_summary(project, day).diff_set
    path = project.work_folder(day) / "rejected.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for page in chunks(_rows(project, diff_set), _WRITE_ROWS):
            counts.update(row["error_class"] for row in page)
            writer.write_table(pa.Table.from_pylist(page, _SCHEMA))
    return Failures(path, dict(sorted(counts.items())))


def _rows(project: Project, diff_set: str) -> Iterator[dict[str, Any]]:
    for operation in project.ledger.failures(diff_set):
        name = _class_of(operation)
        category, advice = _meaning(name)
        yield {
            "lane": operation.lane,
            "route": operation.route,
            "kind": operation.kind,
            "status": operation.status,
            "error_class": name,
            "category": category,
            "advice": advice,
            "external_person_id": operation.external_person_id,
            "person_key": operation.person_key,
            "subscription_list_id": operation.subscription_list_id,
            "fields": ", ".join(sorted(change.field for change in operation.changes)),
            "message": operation.message,
            "attempts": operation.attempts,
        }


def _class_of(operation: Operation) -> str:
    if operation.status == "superseded":
        return WITHDRAWN
    return operation.error_class or "unnamed"


def _meaning(name: str) -> tuple[str, str]:
    if name == WITHDRAWN:
        return "give_up", "The person opted out before it left; nothing is to be done."
    known = lookup(name)
    return known.category, known.advice
