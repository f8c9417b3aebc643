"""Which diff set may be delivered: the newest one, when no guard holds it or a person released it.

Nothing is sent here; approvals and snapshots are recorded in the ledger.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from vibes_pipelines.delivery.ports import DiffSetSummary, LandedSnapshot
from vibes_pipelines.reconcile.destinations import DESTINATIONS, VIBES
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import AcceptedSnapshot, DiffSet, Lane

INPUT_OF_FEED: Mapping[str, str] = {
    feed: name
    for one in DESTINATIONS.values()
    for feed, name in ((one.feeds.contacts, "contacts"), (one.feeds.persons, "persons"))
}
"""The feeds whose size is compared with the last accepted one, by the reconcile's name for them."""

_GUARD_LANES: Mapping[Lane, frozenset[str]] = {
    "opt_outs": frozenset({"opt_outs"}),
    "persons": frozenset({"persons"}),
    "crm": frozenset({"persons"}),
    # A text cannot be taken back: whatever looks wrong holds the invitations too.
    "invites": frozenset({"opt_outs", "persons", "invites"}),
    "deletes": frozenset({"opt_outs", "persons", "invites"}),
}

_MAPPED_LANES: frozenset[Lane] = frozenset({"persons", "crm", "invites", "deletes"})
"""Lanes that are sent by today's mapping; an opt-out names its list itself, and always leaves."""


class ApprovalError(ValueError):
    """An approval cannot be recorded; the message says which diff set can be approved."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one lane of a diff set may be delivered, why not, and what to do about it."""

    status: Literal["allowed", "held", "refused"]
    reasons: tuple[str, ...] = ()
    cure: str | None = None

    @property
    def allowed(self) -> bool:
        """True when the lane may be delivered now."""
        return self.status == "allowed"


def register_diff_set(
    ledger: Ledger, day: str, summary: DiffSetSummary, snapshots: Iterable[LandedSnapshot]
) -> DiffSet:
    """Records the diff set of `day`; open ones of the same or an earlier day are superseded.

    The identical one again is a no-op. One of a day before the newest is superseded from the start.
    """
    manifests = [snapshot.manifest for snapshot in snapshots]
    record = DiffSet(
        diff_set=summary.diff_set,
        sequence=0,
        day=day,
        as_of=summary.as_of or _start_of(day),
        mapping_hash=summary.mapping_hash,
        config_hash=summary.config_hash,
        status="open",
        summary=json.loads(summary.to_json()),
        snapshots={m.feed: AcceptedSnapshot(m.rows, m.content_hash) for m in manifests},
    )
    return ledger.register(record)


def may_deliver(
    ledger: Ledger,
    diff_set: str,
    lane: Lane,
    *,
    mapping_hash: str | None = None,
    force_reason: str | None = None,
) -> Verdict:
    """Whether this lane of a registered diff set may be delivered now.

    `mapping_hash` is that of today's sync.yaml: values that were compared, and approved, under
    another one are refused, but no opt-out. `force_reason` lifts the refusal of a diff set that is
    not the newest; it lifts nothing else and spares no approval.
    """
    record = ledger.diff_set(diff_set)
    if record is None:
        return Verdict("refused", (f"diff set {diff_set} is not registered",), "rebuild its day")
    newest = ledger.newest_diff_set()
    if newest is not None and newest.diff_set != diff_set and not force_reason:
        reason = f"a newer diff set is there: {newest.diff_set} of {newest.day}"
        return Verdict("refused", (reason,), "deliver the newest, or force with a reason")
    is_of_today = mapping_hash in {None, record.mapping_hash}
    if lane in _MAPPED_LANES and not is_of_today:
        reason = f"the diff set of {record.day} was made under another mapping of sync.yaml"
        return Verdict("refused", (reason,), f"reconcile the day {record.day} again")
    held_by = () if record.approved_reason else tuple(_holds(ledger, record, lane))
    if held_by:
        cure = f"vibes-pipelines approve {diff_set[:12]} --reason TEXT{_option(record)}"
        return Verdict("held", held_by, cure)
    return Verdict("allowed")


def approve(ledger: Ledger, diff_set: str, reason: str) -> DiffSet:
    """Releases a held diff set for good; only the newest can be approved.

    Raises:
        ApprovalError: no reason, an unknown diff set, or one that is not the newest.
    """
    if not reason.strip():
        raise ApprovalError("an approval needs a reason; say why these changes are right")
    newest = ledger.newest_diff_set()
    if newest is None:
        raise ApprovalError("there is no diff set to approve; run the reconcile first")
    if newest.diff_set != diff_set:
        raise ApprovalError(
            f"{diff_set} is not the newest diff set, which is {newest.diff_set[:12]} of "
            f"{newest.day}: look at that one, and approve it by at least six characters"
        )
    if newest.status == "delivered":
        raise ApprovalError(f"diff set {diff_set[:12]} of {newest.day} is delivered already")
    return ledger.approve(diff_set, reason.strip())


def accept_if_delivered(ledger: Ledger, diff_set: str) -> bool:
    """Closes a planned diff set once nothing of it waits to be sent; True when it is closed.

    Its snapshots become the accepted ones, which the next day is measured against: those of a diff
    set with a lane that a guard holds never do without an approval, even if that lane is empty.
    """
    record = ledger.diff_set(diff_set)
    if record is None or ledger.plan(diff_set) is None:
        return False
    if record.summary.get("breaches") and not record.approved_reason:
        return False
    waiting = [key for key in ledger.status_counts(diff_set) if key[2] == "planned"]
    if waiting:
        return False
    ledger.mark_delivered(diff_set)
    return True


def accepted_rows(ledger: Ledger, day: str) -> dict[str, int] | None:
    """Rows of the last accepted contacts and persons before `day`; None on a first run."""
    feeds = ledger.accepted_rows(day)
    if feeds is None:
        return None
    return {name: feeds[feed] for feed, name in INPUT_OF_FEED.items() if feed in feeds} or None


def _holds(ledger: Ledger, record: DiffSet, lane: Lane) -> Iterable[str]:
    for breach in record.summary.get("breaches", ()):
        if breach["lane"] in _GUARD_LANES[lane]:
            yield str(breach["message"])
    if lane == "deletes":
        yield "deletes: what is deleted is gone for ever; look at each of them"
    delivered = ledger.last_delivered()
    if delivered is None:
        yield "first run: nothing was delivered before"
    elif delivered.mapping_hash != record.mapping_hash:
        yield "the mapping changed since the last delivery"


def _option(record: DiffSet) -> str:
    """How a command names the destination of a diff set; Vibes needs no name."""
    others = (one for one in DESTINATIONS.values() if one is not VIBES)
    name = next((one.name for one in others if one.feeds.contacts in record.snapshots), None)
    return f" --destination {name}" if name else ""


def _start_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
