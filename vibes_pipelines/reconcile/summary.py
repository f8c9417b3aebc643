"""The summary of a diff set: its counts, breaches and hashes, and the id made of them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from vibes_pipelines.reconcile.errors import ReconcileError, unreadable
from vibes_pipelines.reconcile.guards import Breach

SUMMARY = "summary.json"

CONTACT_STATUSES = (
    "added",
    "updated",
    "unchanged",
    "filtered",
    "quarantined",
    "pending",
    "blocked",
)


@dataclass(frozen=True)
class Summary:
    """What a reconcile found. Every contact is in exactly one of `CONTACT_STATUSES`.

    `updated` counts contacts that meet the conditions and have a row in person_changes on an
    existing person; `filtered_updated` are filtered ones that have a row. `persons_only` are
    persons that no contact points to. `drift` counts, per field, contacts whose person's value was
    changed at the platform only (`platform_changed`), or on both sides (`both_changed`).
    `unreadable_conditions` counts, per column of a comparison, contacts that therefore do not meet
    it; `unknown_options`, per field, values at the platform with an option key that the config does
    not map (the daily job alone tells). `as_of` is None when no input says when it was taken.
    """

    contacts: int
    persons: int
    added: int
    updated: int
    unchanged: int
    filtered: int
    quarantined: int
    quarantined_persons: int
    pending: int
    blocked: int
    persons_only: int
    clears: int
    subscription_changes: int
    opt_outs_to_platform: int
    opt_outs_to_crm: int
    crm_changes: int
    quarantine_kinds: Mapping[str, int]
    breaches: tuple[Breach, ...]
    as_of: datetime | None
    config_hash: str
    mapping_hash: str
    content_hashes: Mapping[str, str]
    filtered_updated: int = 0
    invites: int = 0
    drift: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unreadable_conditions: Mapping[str, int] = field(default_factory=dict)
    unknown_options: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Law: nothing is lost."""
        told = sum(getattr(self, status) for status in CONTACT_STATUSES)
        if told != self.contacts:
            msg = (
                f"internal error: {self.contacts} contacts came in and {told} came out; do not"
                " deliver this diff set, report it with the inputs' shapes"
            )
            raise ReconcileError(msg)

    @property
    def status(self) -> Literal["ok", "held"]:
        """Held when any guard is breached."""
        return "held" if self.breaches else "ok"

    @property
    def diff_set(self) -> str:
        """The id: equal config, as-of and content make an equal id."""
        document = {
            "as_of": self._as_of_text(),
            "config": self.config_hash,
            "content": dict(self.content_hashes),
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def to_document(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        document = asdict(self)
        document["as_of"] = self._as_of_text()
        return document | {"status": self.status, "diff_set": self.diff_set}

    def to_json(self) -> str:
        """The text of summary.json: sorted keys, one trailing newline."""
        return json.dumps(self.to_document(), sort_keys=True, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Summary":
        """Reads what `to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        values = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        as_of = document["as_of"]
        values["as_of"] = None if as_of is None else datetime.fromisoformat(as_of)
        values["breaches"] = tuple(Breach(**breach) for breach in document["breaches"])
        return cls(**values)

    def _as_of_text(self) -> str | None:
        return None if self.as_of is None else self.as_of.isoformat()


def load_summary(folder: Path) -> Summary:
    """Reads the summary of the diff set of a day, whose folder this is.

    Raises:
        ReconcileError: there is none, or half of one; names it and the cure.
    """
    path = folder / SUMMARY
    try:
        return Summary.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as half:
        raise ReconcileError(unreadable(path)) from half
