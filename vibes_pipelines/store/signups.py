"""Web sign-ups: each wish written down before it is sent, and how many there were of late.

Only keeping belongs here; what a sign-up leads to is decided in `stages.signup`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.models import signups

IN_FLIGHT = timedelta(minutes=2)
"""For so long a sign-up without an answer may still get it; no call to the platform lasts longer.
"""

UNCONFIRMED: Final = "unconfirmed"
"""The result of a sign-up whose answer never came."""

NOT_SENT: Final = "unavailable"
"""The result of one that certainly did not leave: it counts for no limit."""

_LOCK = 7_245_190_312
"""Any constant: PostgreSQL's advisory lock under which sign-ups are counted, one at a time."""


@dataclass(frozen=True, slots=True)
class Window:
    """How many sign-ups are taken within a time."""

    most: int
    within: timedelta


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a sign-up may be sent. `number` is None when it may not.

    `look_first`: an earlier one of the same number got no answer, and may have arrived.
    `is_under_way`: it is being sent at this moment. `retry_after_s`: there were too many.
    """

    number: int | None = None
    look_first: bool = False
    is_under_way: bool = False
    retry_after_s: int | None = None


class Signups(Database):
    """The sign-ups of one ledger database; every method is one transaction."""

    def claim(
        self, mdn: str, campaign: str, address: str, per_mdn: Window, per_address: Window
    ) -> Claim:
        """Writes the intent to invite a number, unless it is on its way or there were too many."""
        now = self._clock()
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            last = connection.execute(_last(mdn, campaign)).first()
            if last and last.result is None and last.requested_at > now - IN_FLIGHT:
                return Claim(is_under_way=True)
            waits = (
                _wait(connection, signups.c.mdn == mdn, per_mdn, now),
                _wait(connection, signups.c.source_address == address, per_address, now),
            )
            if any(waits):
                return Claim(retry_after_s=max(waits))
            values = {
                "requested_at": now,
                "source_address": address,
                "mdn": mdn,
                "campaign_id": campaign,
            }
            written = connection.execute(sa.insert(signups).returning(signups.c.id), values)
            number: int = written.scalar_one()
        in_doubt = last is not None and last.result in {None, UNCONFIRMED}
        return Claim(number, look_first=in_doubt)

    def finish(self, number: int, result: str, error_class: str | None = None) -> None:
        """Records what became of a sign-up."""
        statement = sa.update(signups).where(signups.c.id == number)
        ended = {"result": result, "error_class": error_class, "finished_at": self._clock()}
        with self._writer.begin() as connection:
            connection.execute(statement.values(ended))


def _last(mdn: str, campaign: str) -> sa.Select[Any]:
    """The newest sign-up of a number that may have left."""
    table = signups.c
    query = sa.select(table.result, table.requested_at).where(
        table.mdn == mdn,
        table.campaign_id == campaign,
        sa.or_(table.result.is_(None), table.result != NOT_SENT),
    )
    return query.order_by(table.id.desc()).limit(1)


def _wait(
    connection: sa.Connection, about: sa.ColumnElement[bool], window: Window, now: datetime
) -> int:
    """The seconds until one more is taken; 0 when it is taken now."""
    table = signups.c
    found = connection.execute(
        sa.select(table.requested_at)
        .where(
            about,
            table.requested_at > now - window.within,
            sa.or_(table.result.is_(None), table.result != NOT_SENT),
        )
        .order_by(table.requested_at.desc())
        .limit(window.most)
    ).all()
    if len(found) < window.most:
        return 0
    oldest: datetime = found[-1].requested_at
    return max(1, round((oldest + window.within - now).total_seconds()))
