"""Which contacts changed in the CRM since it was last asked.

Two ways, chosen in `contacts.changes` of sync.yaml: an outbox table that the CRM fills, or the time
of change that each contact has. What a change means belongs elsewhere.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.cells import instant_of
from vibes_pipelines.crm.database import (
    CrmError,
    as_held,
    crm_engine,
    missing_column,
    reflect_table,
)
from vibes_pipelines.store.ledger_rows import chunks
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines.sync_config.realtime import Changes

CLOCK_SKEW = timedelta(hours=1)
"""How far the CRM's clock may run ahead before it is said."""


@dataclass(frozen=True)
class Changed:
    """Contacts that changed, and how far this was read.

    `position` is where the next look begins; of an outbox `rows` are to be taken off after the
    effects. `seen` are marks of what the next look at times reads again and need not act on.
    `ahead` counts changes of the page whose time is still to come.
    """

    contacts: tuple[str, ...]
    position: str | None
    rows: tuple[Any, ...] = ()
    seen: tuple[str, ...] = ()
    ahead: int = 0


@dataclass(frozen=True)
class CrmChanges:
    """The changes of one CRM. `hashed` makes the marks: a keyed hash, for they are stored."""

    crm_url: str
    config: SyncConfig
    changes: Changes
    hashed: Callable[[str], str]

    def since(self, position: str | None, seen: Collection[str] = ()) -> Iterator[Changed]:
        """What changed since a position, page by page of at most `max_batch`, in its order.

        `seen` are the marks that the last look gave. Without a position a look at times begins now
        and finds nothing. A time that is still to come moves no position: what changes before then
        is found all the same.

        Raises:
            CrmError: no connection, table or column, or a position that this way does not know.
        """
        with crm_engine(self.crm_url) as engine:
            if self.changes.by == "outbox":
                yield from self._of_outbox(engine)
            else:
                yield from self._of_times(engine, position, set(seen))

    def take_off(self, rows: Sequence[Any]) -> None:
        """Deletes rows of the outbox whose effects are done."""
        if not rows:
            return
        with crm_engine(self.crm_url) as engine, engine.begin() as connection:
            table = reflect_table(connection, self.changes.table or "", "contacts.changes.table")
            identifier = _column(table, self.changes.id, "contacts.changes.id")
            connection.execute(sa.delete(table).where(identifier.in_(rows)))

    def _of_outbox(self, engine: sa.Engine) -> Iterator[Changed]:
        # Rows are not taken to be older than others with a higher id: a transaction may end late.
        with engine.connect() as connection:
            table = reflect_table(connection, self.changes.table or "", "contacts.changes.table")
            identifier = _column(table, self.changes.id, "contacts.changes.id")
            key = _column(table, self.changes.key, "contacts.changes.key")
            query = sa.select(identifier, key).order_by(identifier)
            rows = [(number, as_text(contact)) for number, contact in connection.execute(query)]
        for page in chunks(rows, self.changes.max_batch):
            contacts = dict.fromkeys(contact for _, contact in page if contact)
            yield Changed(tuple(contacts), str(page[-1][0]), tuple(number for number, _ in page))

    def _of_times(
        self, engine: sa.Engine, position: str | None, seen: Collection[str]
    ) -> Iterator[Changed]:
        with engine.connect() as connection:
            table = reflect_table(connection, self.config.contacts.table)
            key = as_held(connection, _column(table, self.config.contacts.key, "contacts.key"))
            named = _column(table, self.changes.column or "", "contacts.changes.column")
            changed_at = as_held(connection, named)
            begins = position
            if begins is None:
                newest = connection.scalar(sa.select(sa.func.max(changed_at)).select_from(table))
                begins = _written(newest) or _BEGINNING
            begins = _of_one_zone(changed_at, begins)
            now = _now(changed_at, begins)
            begins = min(begins, now)
            query = sa.select(key, changed_at).select_from(table).order_by(changed_at, key)
            query = query.where(changed_at >= self._from(changed_at, begins))
            rows = [(as_text(contact), at) for contact, at in connection.execute(query)]
        ends = _newest(begins, now, rows)
        window = self._from(changed_at, ends)
        marks = tuple(self._mark(*row) for row in rows if _is_from(row[1], window))
        if position is None:
            yield Changed((), ends, seen=marks)
            return
        unseen = [row for row in rows if self._mark(*row) not in seen]
        for page in chunks(unseen, self.changes.max_batch):
            contacts = dict.fromkeys(contact for contact, _ in page if contact)
            begins = _newest(begins, now, page)
            ahead = sum((_written(at) or "") > _now(changed_at, now, CLOCK_SKEW) for _, at in page)
            yield Changed(tuple(contacts), begins, seen=marks, ahead=ahead)

    def _mark(self, contact: str | None, at: Any) -> str:
        """A contact at one time of change, without saying which."""
        return self.hashed(f"{_written(at)} {contact}")[:16]

    def _from(self, column: sa.ColumnElement[Any], position: str) -> Any:
        instant = instant_of(position)
        if instant is None:
            msg = (
                "the stored position is no time; contacts.changes was set otherwise before: delete "
                "the row crm_changes of the ledger's table cursors, and changes are read from now"
            )
            raise CrmError(msg)
        earlier = instant - timedelta(seconds=self.changes.overlap_s)
        return _as_the_column_writes(column, earlier, position)


def _is_from(at: Any, begin: Any) -> bool:
    """Whether a time of change is not before another, each as its column gives it."""
    return bool((as_text(at) or "") >= begin if isinstance(begin, str) else at >= begin)


def _newest(position: str, now: str, rows: Sequence[tuple[str | None, Any]]) -> str:
    """The newest time of change, other than those that are still to come."""
    times = (_written(at) or "" for _, at in rows)
    return max((time for time in times if time <= now), default=position)


def _now(column: sa.ColumnElement[Any], like: str, later: timedelta = timedelta()) -> str:
    """The present instant, or a later one, as text in the form of a position."""
    instant = datetime.now(UTC).replace(microsecond=0) + later
    return _written(_as_the_column_writes(column, instant, like)) or like


def _written(at: Any) -> str | None:
    """A time of change as text. Texts are compared, so that those of a zone are of one zone."""
    if isinstance(at, datetime) and at.tzinfo is not None:
        with suppress(OverflowError):  # of the last hours of the year 9999
            return as_text(at.astimezone(UTC))
    return as_text(at)


def _of_one_zone(column: sa.ColumnElement[Any], position: str) -> str:
    """A position that may be written in the zone of an earlier session."""
    if not (isinstance(column.type, sa.DateTime) and column.type.timezone):
        return position
    return _written(instant_of(position)) or position


_BEGINNING = "1970-01-01 00:00:00"


def _as_the_column_writes(column: sa.ColumnElement[Any], instant: datetime, like: str) -> Any:
    """An instant for a comparison in the database.

    A column of text is compared as text, so that it is written as its own values are.
    """
    if isinstance(column.type, sa.DateTime):
        return instant if column.type.timezone else instant.replace(tzinfo=None)
    if isinstance(column.type, sa.Date):
        return instant.date()
    separator = "T" if "T" in like else " "
    end = "Z" if like.endswith("Z") else ""
    return f"{instant:%Y-%m-%d}{separator}{instant:%H:%M:%S}{end}"


def _column(table: sa.Table, name: str, entry: str) -> sa.Column[Any]:
    if name not in table.columns:
        raise missing_column(entry, name, table.name, list(table.columns.keys()))
    return table.columns[name]
