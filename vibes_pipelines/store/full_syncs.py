"""Full syncs: which ran, how far each is, whether it is to stop, and what it came to.

Only keeping belongs here; what a full sync does is in `stages.full_sync`.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.models import full_syncs

State = Literal["running", "held", "cancelled", "failed", "finished"]
Phase = Literal["download", "read_back", "reconcile", "write", "messages", "done"]

OPEN_STATES: tuple[State, ...] = ("running", "held", "failed", "cancelled")
"""States from which a full sync may be taken up again."""

_syncs = full_syncs.c


@dataclass(frozen=True, slots=True)
class FullSync:
    """One full sync. `progress` has counts by name, its results once it has ended."""

    sync_id: str
    day: str
    started_at: datetime
    state: State
    phase: Phase
    progress: Mapping[str, Any] = field(default_factory=dict)
    finished_at: datetime | None = None
    cancel_reason: str | None = None


class FullSyncs(Database):
    """The full syncs of one ledger database; every method is one transaction."""

    def begin(self, day: str) -> FullSync:
        """Records a new one, running."""
        values = {
            "sync_id": uuid.uuid4().hex[:12],
            "day": day,
            "started_at": self._clock(),
            "state": "running",
            "phase": "download",
            "progress": {},
        }
        with self._writer.begin() as connection:
            connection.execute(sa.insert(full_syncs).values(values))
        return FullSync(**values)  # type: ignore[arg-type]

    def newest(self) -> FullSync | None:
        """The one that began last."""
        return next(iter(self.all(limit=1)), None)

    def all(self, limit: int = 20) -> list[FullSync]:
        """The newest ones first."""
        query = sa.select(*(_syncs[name] for name in FullSync.__dataclass_fields__))
        query = query.order_by(_syncs.started_at.desc()).limit(limit)
        with self._engine.begin() as connection:
            return [FullSync(*row) for row in connection.execute(query)]

    def newest_finished(self) -> FullSync | None:
        """The one that began last of those that came to their end."""
        query = sa.select(*(_syncs[name] for name in FullSync.__dataclass_fields__))
        query = query.where(_syncs.state == "finished").order_by(_syncs.started_at.desc()).limit(1)
        with self._engine.begin() as connection:
            row = connection.execute(query).first()
        return FullSync(*row) if row else None

    def note(self, sync_id: str, *, phase: Phase, progress: Mapping[str, Any]) -> None:
        """Records how far a running one is."""
        self._set(sync_id, phase=phase, progress=dict(progress))

    def resume(self, sync_id: str) -> None:
        """Lets one run on; an earlier wish to cancel it is forgotten."""
        self._set(sync_id, state="running", cancel_reason=None, finished_at=None)

    def finish(self, sync_id: str, state: State, progress: Mapping[str, Any]) -> None:
        """Records how it ended; `held` waits for an approval."""
        phase = {"phase": "done"} if state == "finished" else {}
        self._set(sync_id, state=state, progress=dict(progress), finished_at=self._clock(), **phase)

    def cancel(self, sync_id: str, reason: str) -> None:
        """Asks a running one to stop; it does so between two calls."""
        self._set(sync_id, cancel_reason=reason)

    def cancel_reason(self, sync_id: str) -> str | None:
        """Why it is to stop; None when it is not."""
        query = sa.select(_syncs.cancel_reason).where(_syncs.sync_id == sync_id)
        with self._engine.begin() as connection:
            reason: str | None = connection.execute(query).scalar()
        return reason

    def ids_before(self, day: str) -> frozenset[str]:
        """The full syncs of earlier days."""
        query = sa.select(_syncs.sync_id).where(_syncs.day < day)
        with self._engine.begin() as connection:
            return frozenset(connection.execute(query).scalars())

    def _set(self, sync_id: str, **values: object) -> None:
        with self._writer.begin() as connection:
            connection.execute(
                sa.update(full_syncs).where(_syncs.sync_id == sync_id).values(**values)
            )
