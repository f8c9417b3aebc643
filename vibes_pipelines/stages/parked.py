"""The desk of parked callbacks: what is there, and what a person decided about it.

A decision has a reason, which is kept beside the callback. Bodies are not shown: whoever needs one
reads it in the table `callbacks`.
"""

from collections.abc import Collection
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.callbacks.tribe import REFUSED
from vibes_pipelines.stages.late_joins import look_again
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.realtime import RealtimeBook


class DecisionError(ValueError):
    """A decision that cannot be taken; the message says what is missing."""


@dataclass(frozen=True)
class Parked:
    """One parked callback, without anything personal."""

    id: int
    event_type: str | None
    event_at: str
    received_at: str
    reason: str | None
    decided_reason: str | None

    @property
    def line(self) -> str:
        """One line for a person."""
        before = f"  [retried: {self.decided_reason}]" if self.decided_reason else ""
        kind = self.event_type or "unreadable"
        return f"{self.id:>8}  {self.event_at}  {kind:28}  {self.reason}{before}"

    def as_json(self) -> dict[str, Any]:
        """The callback for machines."""
        return asdict(self)


def list_parked(project: Project) -> list[Parked]:
    """What is parked, the oldest event first."""
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        return [
            Parked(
                callback.id,
                callback.event_type,
                f"{callback.order_at:%Y-%m-%dT%H:%M:%SZ}",
                f"{callback.received_at:%Y-%m-%dT%H:%M:%SZ}",
                callback.reason,
                callback.decided_reason,
            )
            for callback in inbox.parked()
        ]


def retry_parked(project: Project, ids: Collection[int], reason: str) -> list[int]:
    """Reads parked callbacks again and lets them wait for the next drain; returns those that do.

    Raises:
        DecisionError: no reason, or one of them is not parked or was refused.
    """
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        _require(inbox, ids, reason)
        _require_not_refused(inbox, ids)
        bodies = inbox.bodies(ids)
        read = {n: read_arrival(posted("", "", body)) for n, body in bodies.items()}
        waiting = inbox.retry(read, reason.strip())
    with closing(RealtimeBook(project.settings.ledger_url)) as book:
        look_again(book, waiting)
    return waiting


def drop_parked(project: Project, ids: Collection[int], reason: str) -> list[int]:
    """Ends parked callbacks without an effect; returns them.

    Raises:
        DecisionError: no reason, or one of them is not parked.
    """
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        _require(inbox, ids, reason)
        return inbox.drop(ids, reason.strip())


def _require_not_refused(inbox: Inbox, ids: Collection[int]) -> None:
    """A message whose signature was wrong stays refused: nobody knows whose word it is."""
    refused = sorted({callback.id for callback in inbox.parked([REFUSED])} & set(ids))
    if refused:
        listed = ", ".join(map(str, refused))
        msg = (
            f"not Tribe's own by their signature: {listed}; drop them, Tribe's are read anew daily"
        )
        raise DecisionError(msg)


def _require(inbox: Inbox, ids: Collection[int], reason: str) -> None:
    if not reason.strip():
        msg = "a decision needs a reason; say why with --reason"
        raise DecisionError(msg)
    parked = {callback.id for callback in inbox.parked()}
    unknown = sorted(set(ids) - parked)
    if unknown:
        listed = ", ".join(map(str, unknown))
        msg = f"not parked: {listed}; see `vibes-pipelines callbacks parked list`"
        raise DecisionError(msg)
