"""Reads the files of a diff set as operations not yet planned: no route, no batch.

The columns are the reconcile's. Rows are streamed, so that memory does not grow with the diff set.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.reconcile.errors import unreadable
from vibes_pipelines.store.records import (
    ERASED_PREFIX,
    INVITE_FIELD,
    Change,
    Kind,
    Lane,
    Operation,
    Route,
    operation_id,
)

READ_ROWS = 10_000
"""Rows of a Parquet file held in memory at once."""

EVIDENCE = "evidence_at"
"""A `change` of opt-outs and invitations: when the side that decided recorded it."""


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
    """Adds, updates and deletions, in the order of the file.

    A number in place of another is an operation of its own, behind what else changes of the person.
    """
    for row in _rows(origin.folder / "person_changes.parquet"):
        if row["operation"] == "delete":
            yield _operation(origin, "deletes", "api", "delete", row, ())
            continue
        if row["operation"] not in {"add", "update"}:
            raise PlanError(f"person_changes.parquet: unknown operation {row['operation']!r}")
        kind: Kind = row["operation"]
        changes = tuple(Change.from_json(change) for change in row["changes"])
        replaced = tuple(change for change in changes if _replaces_number(change))
        others = tuple(change for change in changes if not _replaces_number(change))
        if others or not replaced:
            yield _operation(origin, "persons", "api", kind, row, others)
        if replaced:
            yield _operation(origin, "persons", "api", "mdn_replace", row, replaced)


def opt_out_intents(origin: Origin) -> Iterator[Operation]:
    """Opt-outs to the platform and to the CRM, in the order of the file."""
    for row in _rows(origin.folder / "subscription_changes.parquet"):
        side_and_action = (row["side"], row["action"])
        if side_and_action in {_INVITE, _OPT_IN}:
            continue
        if side_and_action not in _OPT_OUT_ROADS:
            raise PlanError(
                "subscription_changes.parquet: no delivery for action "
                f"{row['action']!r} on side {row['side']!r}"
            )
        route, kind = _OPT_OUT_ROADS[side_and_action]
        changes = (_evidence(row["evidence_at"], row["reason"]),)
        yield _operation(origin, "opt_outs", route, kind, row, changes)


def invite_intents(origin: Origin, campaigns: Mapping[str, str]) -> Iterator[Operation]:
    """Invitations by the acquisition campaign of their list, in the order of the file.

    Raises:
        PlanError: a list has no campaign.
    """
    for row in _rows(origin.folder / "subscription_changes.parquet"):
        if (row["side"], row["action"]) != _INVITE:
            continue
        listed = row["subscription_list_id"]
        if listed not in campaigns:
            raise PlanError(
                f"subscription_changes.parquet: an invitation to list {listed}, which no "
                "consents entry of sync.yaml invites to; rebuild the diff set"
            )
        asked = Change(INVITE_FIELD + listed, "set", None, campaigns[listed], row["reason"])
        changes = (_evidence(row["evidence_at"], row["reason"]), asked)
        yield _operation(origin, "invites", "api", "invite", row, changes)


def opt_in_intents(origin: Origin) -> Iterator[Operation]:
    """Opt-ins that are written as they are, in the order of the file."""
    for row in _rows(origin.folder / "subscription_changes.parquet"):
        if (row["side"], row["action"]) == _OPT_IN:
            changes = (_evidence(row["evidence_at"], row["reason"]),)
            yield _operation(origin, "invites", "api", "opt_in", row, changes)


def crm_intents(origin: Origin) -> Iterator[Operation]:
    """Field write-backs, one operation per contact."""
    rows = _rows(origin.folder / "crm_changes.parquet")
    for contact_id, group in groupby(rows, key=lambda row: row["contact_id"]):
        changes = tuple(_write_back(row) for row in group)
        identifiers = {"external_person_id": contact_id}
        yield _operation(origin, "crm", "crm", "crm_update", identifiers, changes)


def evidence_at(operation: Operation) -> datetime | None:
    """When the side that decided recorded the opt-out or opt-in; None when that is unknown."""
    text = operation.after(EVIDENCE)
    return datetime.fromisoformat(text) if text else None


def campaign_of(operation: Operation) -> str:
    """The acquisition campaign of an invitation."""
    found = operation.after(f"{INVITE_FIELD}{operation.subscription_list_id}")
    if found is None:
        raise PlanError(
            f"invitation {operation.operation_id} names no campaign; rebuild the diff set"
        )
    return found


def _replaces_number(change: Change) -> bool:
    """A number in place of another one: the platform only takes it in two steps."""
    return change.field == "mdn" and change.before is not None


_INVITE = ("platform", "invite")
_OPT_IN = ("platform", "opt_in")

_OPT_OUT_ROADS: dict[tuple[str, str], tuple[Route, Kind]] = {
    ("platform", "opt_out"): ("api", "opt_out"),
    ("crm", "opt_out"): ("crm", "crm_opt_out"),
}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise PlanError(f"{path.name} is missing in {path.parent.name}; rebuild the diff set")
    try:
        opened = pq.ParquetFile(path)
    except pa.ArrowInvalid as half:
        raise PlanError(unreadable(path)) from half
    with opened as file:
        for batch in file.iter_batches(READ_ROWS):
            yield from (row for row in batch.to_pylist() if not _is_erased(row))


def _is_erased(row: Mapping[str, Any]) -> bool:
    """Whether the row is a blank one: its person was erased after the diff set was made."""
    keys = (row.get(name) or "" for name in ("external_person_id", "person_key", "contact_id"))
    return any(key.startswith(ERASED_PREFIX) for key in keys)


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
