"""The ledger's records as typed values: operations, changes, receipts, batches, diff sets.

What a row means belongs here; how rows are kept is in `models`, how they are read and written in
`ledger`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Lane = Literal["opt_outs", "persons", "crm", "invites", "deletes"]
Route = Literal["file", "api", "crm"]
Kind = Literal[
    "add",
    "update",
    "mdn_replace",
    "opt_out",
    "invite",
    "opt_in",
    "delete",
    "crm_opt_out",
    "crm_update",
]
Status = Literal["planned", "sent", "accepted", "rejected", "unknown", "superseded"]
Outcome = Literal["confirmed", "pending", "rejected", "superseded", "unexplained"]

PERSON_KINDS: tuple[Kind, ...] = ("add", "update", "mdn_replace")
ERASED_PREFIX = "erased-"
"""Begins what stands in place of an identifier of somebody who was erased."""

INVITE_FIELD = "invite:"
"""Begins the field of an invitation's one change; the list follows, its value is the campaign."""

OPEN_STATUSES: tuple[Status, ...] = ("planned", "sent", "unknown")
FINAL_OUTCOMES: tuple[Outcome, ...] = ("confirmed", "rejected", "superseded", "unexplained")


class LedgerError(RuntimeError):
    """The ledger cannot do what was asked; the message names the record and the cure."""


class DiffSetSuperseded(LedgerError):  # noqa: N818 - the name says what is wrong
    """A newer diff set took the place of the one that was asked for; nothing was written."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of an operation: `before` and `after` are canonical text, None for empty."""

    field: str
    action: Literal["set", "clear"]
    before: str | None
    after: str | None
    reason: str

    def as_json(self) -> dict[str, str | None]:
        """The change as the ledger stores it."""
        return {
            "field": self.field,
            "action": self.action,
            "before": self.before,
            "after": self.after,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Change":
        """The inverse of `as_json`; also reads a row of a diff set."""
        return cls(
            field=document["field"],
            action=document["action"],
            before=document["before"],
            after=document["after"],
            reason=document["reason"],
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """One intended effect on one person or contact, and what became of it.

    `as_of` is the logical time of the operation's diff set. `row_number` counts the body rows of
    its batch from 1. `attempts` counts sends, so an operation sent again is visible as such.
    """

    operation_id: str
    diff_set: str
    day: str
    as_of: datetime
    lane: Lane
    route: Route
    route_reason: str
    kind: Kind
    external_person_id: str | None
    person_key: str | None
    mdn: str | None
    subscription_list_id: str | None
    changes: tuple[Change, ...]
    batch_id: str | None = None
    row_number: int | None = None
    status: Status = "planned"
    error_class: str | None = None
    message: str | None = None
    retry_later: bool = False
    attempts: int = 0
    outcome: Outcome | None = None

    def after(self, name: str) -> str | None:
        """The value a field is set to; None when it is cleared or not touched."""
        return next((change.after for change in self.changes if change.field == name), None)

    def touches(self, name: str) -> bool:
        """True when the operation changes this field."""
        return any(change.field == name for change in self.changes)


def operation_id(
    diff_set: str,
    kind: Kind,
    person: str,
    subscription_list_id: str | None,
    changes: Iterable[Change],
) -> str:
    """The same intent in the same diff set always has the same id, on every machine."""
    values = sorted((c.field, c.action, c.after) for c in changes)
    document = json.dumps([diff_set, kind, person, subscription_list_id, values])
    return hashlib.sha256(document.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one operation. `unknown` means no answer came: the effect may have happened.

    `retry_later` marks a refusal that says nothing against the values: they may be sent again.
    """

    operation_id: str
    status: Literal["accepted", "rejected", "unknown"]
    error_class: str | None = None
    message: str | None = None
    retry_later: bool = False


@dataclass(frozen=True, slots=True)
class OperationCount:
    """How many operations of a diff set are alike in everything but the person."""

    lane: Lane
    route: Route
    kind: Kind
    status: Status
    error_class: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One import file; `name` is its name on the server, `rows` its body rows."""

    batch_id: str
    diff_set: str
    name: str
    rows: int
    status: Literal["planned", "sent", "done"] = "planned"
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AcceptedSnapshot:
    """Size and hash of one landed snapshot that a diff set was made from."""

    rows: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class DiffSet:
    """A registered diff set. The newest one has the highest `sequence`."""

    diff_set: str
    sequence: int
    day: str
    as_of: datetime
    mapping_hash: str
    config_hash: str
    status: Literal["open", "delivered", "superseded"]
    summary: Mapping[str, Any]
    snapshots: Mapping[str, AcceptedSnapshot] = field(default_factory=dict)
    approved_reason: str | None = None
    approved_at: datetime | None = None
