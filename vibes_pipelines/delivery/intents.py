"""Reads the files of a diff set as operations not yet planned: no route, no batch.

The columns are the reconcile's. Rows are streamed, so that memory does not grow with the diff set.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vibes_pipelines.store.records import Change, Kind, Lane, Operation, Route, operation_id

READ_ROWS = 10_000
"""Rows of a Parquet file held in memory at once."""

EVIDENCE = "evidence_at"
"""The one `change` of an opt-out: when the side that ended the subscription recorded it."""


class PlanError(ValueError):
    """A diff set cannot be planned; the message names its file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The diff set that operations belong to, and where its files are."""

    diff_set: str
    day: str
    as_of: datetime
    folder: Path


def person_intents(origin: Origin) -> Iterator[Operation]:
    """Adds and updates, in the order of the file."""
    for row in _rows(origin.folder / "person_changes.parquet"):
        if row["operation"] not in {"add", "update"}:
            raise PlanError(f"person_changes.parquet: unknown operation {row['operation']!r}")
        kind: Kind = row["operation"]
        changes = tuple(Change.from_json(change) for change in row["changes"])
        yield _operation(origin, "persons", "api", kind, row, changes)


def opt_out_intents(origin: Origin) -> Iterator[Operation]:
    """Opt-outs to the platform and to the CRM, in the order of the file."""
    for row in _rows(origin.folder / "subscription_changes.parquet"):
        road = _OPT_OUT_ROADS.get((row["side"], row["action"]))
        if road is None:
            raise PlanError(
                "subscription_changes.parquet: no delivery for action "
                f"{row['action']!r} on side {row['side']!r}"
            )
        route, kind = road
        changes = (_evidence(row["evidence_at"], row["reason"]),)
        yield _operation(origin, "opt_outs", route, kind, row, changes)


def crm_intents(origin: Origin) -> Iterator[Operation]:
    """Field write-backs, one operation per contact."""
    rows = _rows(origin.folder / "crm_changes.parquet")
    for contact_id, group in groupby(rows, key=lambda row: row["contact_id"]):
        changes = tuple(_write_back(row) for row in group)
        identifiers = {"external_person_id": contact_id}
        yield _operation(origin, "crm", "crm", "crm_update", identifiers, changes)


def evidence_at(operation: Operation) -> datetime | None:
    """When the opted-out side recorded it; None when that is unknown."""
    text = operation.after(EVIDENCE)
    return datetime.fromisoformat(text) if text else None


_OPT_OUT_ROADS: dict[tuple[str, str], tuple[Route, Kind]] = {
    ("platform", "opt_out"): ("api", "opt_out"),
    ("crm", "opt_out"): ("crm", "crm_opt_out"),
}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise PlanError(f"{path.name} is missing in {path.parent.name}; rebuild the diff set")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(READ_ROWS):
            yield from batch.to_pylist()


def _operation(
    origin: Origin,
    lane: Lane,
    route: Route,
    kind: Kind,
    row: dict[str, Any],
    changes: Iterable[Change],
) -> Operation:
    changes = tuple(changes)
    external, key = row.get("external_person_id"), row.get("person_key")
    person = external or key
    if not person:
        raise PlanError(f"a change of kind {kind} names no person; rebuild the diff set")
    subscription_list_id = row.get("subscription_list_id")
    return Operation(
        operation_id=operation_id(origin.diff_set, kind, person, subscription_list_id, changes),
        diff_set=origin.diff_set,
        day=origin.day,
        as_of=origin.as_of,
        lane=lane,
        route=route,
        route_reason="the only road",
        kind=kind,
        external_person_id=external,
        person_key=key,
        mdn=row.get("mdn"),
        subscription_list_id=subscription_list_id,
        changes=changes,
    )


def _evidence(instant: datetime | str | None, reason: str) -> Change:
    if isinstance(instant, datetime):
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        instant = aware.astimezone(UTC).isoformat()
    return Change(EVIDENCE, "set", None, instant, reason)


def _write_back(row: dict[str, Any]) -> Change:
    action = "clear" if row["after"] is None else "set"
    return Change(row["field"], action, row["before"], row["after"], row["reason"])  # type: ignore[arg-type]
