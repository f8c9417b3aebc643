"""Numbers of erased people, as keyed hashes: an opt-out outlives the erasure of who said it.

Of a number only its hash is kept, with the lists that it was opted out of and since when. Who asks
gives hashes; no number is ever seen here.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.store.models import erased_numbers, erasures

NO_LIST = ""
"""The list of a row that says no more than that the number was an erased person's."""

_rows = erased_numbers.c


@dataclass(frozen=True, slots=True)
class ErasedNumber:
    """One number of an erased person and one list. It is in doubt on days after `after_day`."""

    erasure_id: str
    number_hash: str
    subscription_list_id: str
    opted_out_at: datetime | None
    after_day: str


class ErasedNumbers(Database):
    """The numbers of one ledger database; every method is one transaction."""

    def keep(self, numbers: Iterable[ErasedNumber]) -> None:
        """Keeps numbers; of two opt-outs of one list the later one stays, of two days the first."""
        with self._writer.begin() as connection:
            for number in numbers:
                row = asdict(number)
                own = [_rows[name] == row[name] for name in _KEY]
                known = connection.execute(sa.select(_rows.opted_out_at).where(*own)).first()
                if known is None:
                    connection.execute(sa.insert(erased_numbers).values(row))
                elif number.opted_out_at and (known[0] is None or known[0] < number.opted_out_at):
                    later = {"opted_out_at": number.opted_out_at}
                    connection.execute(sa.update(erased_numbers).where(*own).values(later))

    def hashes_of(self, erasure_id: str) -> frozenset[str]:
        """The hashes of the numbers of one erased person."""
        query = sa.select(_rows.number_hash).where(_rows.erasure_id == erasure_id)
        with self._engine.begin() as connection:
            return frozenset(connection.execute(query).scalars())

    def opted_out(self, hashes: Collection[str]) -> dict[tuple[str, str], datetime]:
        """(hash, list) → when it was last opted out; also of erasures that were undone."""
        latest = sa.func.max(_rows.opted_out_at, type_=_rows.opted_out_at.type)
        query = (
            sa.select(_rows.number_hash, _rows.subscription_list_id, latest)
            .where(_rows.opted_out_at.is_not(None))
            .group_by(_rows.number_hash, _rows.subscription_list_id)
        )
        with self._engine.begin() as connection:
            return {
                (row[0], row[1]): row[2]
                for chunk in chunks(hashes)
                for row in connection.execute(query.where(_rows.number_hash.in_(chunk)))
            }

    def in_doubt(self, day: str) -> frozenset[str]:
        """Hashes of numbers that are in doubt on a day: those of erasures that stand."""
        query = (
            sa.select(_rows.number_hash)
            .join(erasures, erasures.c.erasure_id == _rows.erasure_id)
            .where(erasures.c.undone_at.is_(None), _rows.after_day < day)
        )
        with self._engine.begin() as connection:
            return frozenset(connection.execute(query.distinct()).scalars())


_KEY = ("erasure_id", "number_hash", "subscription_list_id")
