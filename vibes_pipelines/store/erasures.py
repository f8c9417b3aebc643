"""Erasures: that somebody was erased, when, why, and how to know the person again.

Of the person only pseudonyms are kept, keyed hashes of its identifiers: who has no key cannot try
identifiers until one fits. What an erasure does is in `stages.erasing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.models import erasures
from vibes_pipelines.store.records import LedgerError


@dataclass(frozen=True, slots=True)
class Erasure:
    """One person who was erased; `outcome` counts what was blanked, per place."""

    erasure_id: str
    pseudonyms: Sequence[str]
    reason: str
    decided_by: str
    began_at: datetime
    finished_at: datetime | None
    outcome: Mapping[str, Any] | None
    undone_at: datetime | None
    undone_by: str | None
    undone_reason: str | None


class Erasures(Database):
    """The erasures of one ledger database; every method is one transaction."""

    def begin(
        self, erasure_id: str, pseudonyms: Sequence[str], reason: str, decided_by: str
    ) -> None:
        """Records that an erasure begins; once more for the same person, it is taken up again.

        Who was known by more pseudonyms before stays known by them: what is left to be found of a
        person who was erased is less than there was.
        """
        named = set(pseudonyms)
        values = {
            "reason": reason,
            "decided_by": decided_by,
            "began_at": self._clock(),
            "finished_at": None,
            "undone_at": None,
            "undone_by": None,
            "undone_reason": None,
        }
        own = erasures.c.erasure_id == erasure_id
        with self._writer.begin() as connection:
            for (known,) in connection.execute(sa.select(erasures.c.pseudonyms)).all():
                named.update(known if named.intersection(known) else ())
            values |= {"pseudonyms": sorted(named)}
            changed = connection.execute(sa.update(erasures).where(own).values(values))
            if not changed.rowcount:
                connection.execute(sa.insert(erasures), values | {"erasure_id": erasure_id})

    def finish(self, erasure_id: str, outcome: Mapping[str, Any]) -> None:
        """Records that nothing of the person is left here."""
        with self._writer.begin() as connection:
            connection.execute(
                sa.update(erasures)
                .where(erasures.c.erasure_id == erasure_id)
                .values(finished_at=self._clock(), outcome=dict(outcome))
            )

    def undo(self, erasure_id: str, reason: str, decided_by: str) -> None:
        """Lets the person in again; what was blanked stays blank.

        Raises:
            LedgerError: there is no such erasure, or it was undone before.
        """
        with self._writer.begin() as connection:
            changed = connection.execute(
                sa.update(erasures)
                .where(erasures.c.erasure_id == erasure_id, erasures.c.undone_at.is_(None))
                .values(undone_at=self._clock(), undone_by=decided_by, undone_reason=reason)
            )
            if not changed.rowcount:
                raise LedgerError(f"no erasure {erasure_id} stands; see `quarantine list`")

    def all(self) -> list[Erasure]:
        """Every erasure, oldest first, undone ones too."""
        query = sa.select(*erasures.c).order_by(erasures.c.began_at, erasures.c.erasure_id)
        with self._engine.begin() as connection:
            return [
                Erasure(**row._mapping)  # noqa: SLF001 - the documented way to a row's names
                for row in connection.execute(query)
            ]
