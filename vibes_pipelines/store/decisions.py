"""Decisions: what a person decided about a case of the quarantine, why, and from which day on.

Nothing is ever changed or removed: of several decisions about a case the last one stands. Which
decision is possible is decided in `stages.quarantine_desk`, what it does in `reconcile.decisions`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.models import case_decisions

Action = Literal["link", "ignore", "new-person", "undo"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. It counts from the first day after `after_day` (ISO date).

    `record` is the identifier of the contact or person in doubt, as the reconcile names it;
    `target` the person_key of a link; `evidence` the fingerprint of what was decided upon.
    """

    case_id: str
    kind: str
    source: str
    action: Action
    record: str | None
    target: str | None
    evidence: str | None
    reason: str
    decided_by: str
    after_day: str
    decided_at: datetime | None = None


_COLUMNS = tuple(case_decisions.c[name] for name in Decision.__dataclass_fields__)


class Decisions(Database):
    """The decisions of one ledger database; every method is one transaction."""

    def add(self, decision: Decision) -> None:
        """Records a decision, stamped with the present time."""
        row = asdict(decision) | {"decided_at": self._clock()}
        with self._writer.begin() as connection:
            connection.execute(sa.insert(case_decisions), row)

    def standing(self, day: str | None = None) -> dict[str, Decision]:
        """The last decision about each case, undone ones left out, in the order of the cases.

        With `day`, those that count on that day.
        """
        return {
            case: decisions[-1]
            for case, decisions in self.history(day).items()
            if decisions[-1].action != "undo"
        }

    def history(self, day: str | None = None) -> Mapping[str, list[Decision]]:
        """Every decision about each case, oldest first; with `day`, those that count then."""
        query = sa.select(*_COLUMNS).order_by(case_decisions.c.case_id, case_decisions.c.id)
        if day is not None:
            query = query.where(case_decisions.c.after_day < day)
        found: dict[str, list[Decision]] = {}
        with self._engine.begin() as connection:
            for row in connection.execute(query):
                found.setdefault(row.case_id, []).append(_decision(row))
        return found


def _decision(row: sa.Row[Any]) -> Decision:
    return Decision(**row._mapping)  # noqa: SLF001 - the documented way to a row's names
