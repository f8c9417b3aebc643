"""Leases: which process is delivering which lane, so that no two send the same operation.

A lease ends when it is given back, when it runs out, or when the process that took it on this
machine is gone. Only taking, renewing and asking belongs here.
"""

import os
import platform
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from vibes_pipelines.store.database import Database
from vibes_pipelines.store.ledger_rows import insert_if_absent
from vibes_pipelines.store.models import leases
from vibes_pipelines.store.records import LedgerError

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class LaneBusy(LedgerError):  # noqa: N818 - the name says what is wrong
    """Another process is delivering this lane; nothing was sent."""


class LeaseLost(LedgerError):  # noqa: N818 - the name says what is wrong
    """The lease ran out and another process may deliver the lane now; sending must stop."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one process to deliver one lane, e.g. `opt_outs/api`."""

    name: str
    holder: str
    length: timedelta


class Leases(Database):
    """The leases of one ledger database; every method is one transaction."""

    def take_lease(self, name: str, length: timedelta) -> Lease:
        """Takes a lease that nobody holds.

        Raises:
            LaneBusy: somebody does.
        """
        lease = Lease(name, _new_holder(), length)
        with self._writer.begin() as connection:
            free = {"name": name, "holder": "", "until": _LONG_AGO}
            insert_if_absent(connection, leases, [free])
            row = connection.execute(
                sa.select(leases).where(leases.c.name == name).with_for_update()
            ).one()
            if self._is_live(row.holder, row.until):
                raise LaneBusy(
                    f"{name} is being delivered by another process until {row.until:%H:%M:%S} UTC "
                    "at the latest; wait for its end, or stop it"
                )
            self._extend(connection, lease)
        return lease

    def renew_lease(self, lease: Lease) -> None:
        """Begins the lease's length anew.

        Raises:
            LeaseLost: somebody else holds it, because it had run out.
        """
        with self._writer.begin() as connection:
            found = connection.execute(
                sa.select(leases.c.holder).where(leases.c.name == lease.name).with_for_update()
            ).scalar()
            if found != lease.holder:
                raise LeaseLost(
                    f"{lease.name}: the lease ran out and another process took it; nothing more "
                    "is sent here, what is open is sent there"
                )
            self._extend(connection, lease)

    def give_lease_back(self, lease: Lease) -> None:
        """Ends the lease now; one that somebody else holds stays theirs."""
        with self._writer.begin() as connection:
            connection.execute(
                sa.update(leases)
                .where(leases.c.name == lease.name, leases.c.holder == lease.holder)
                .values(holder="", until=_LONG_AGO)
            )

    def live_leases(self, names: Iterable[str]) -> set[str]:
        """Those of these names that somebody holds."""
        query = sa.select(leases).where(leases.c.name.in_(list(names)))
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {row.name for row in rows if self._is_live(row.holder, row.until)}

    def standing(self, name: str) -> str | None:
        """A text that is another one after each renewal; None when nobody holds the lease.

        No clock is asked: whoever reads it again and again sees a lease that runs out standing
        still, however much the clocks of two machines differ.
        """
        query = sa.select(leases).where(leases.c.name == name)
        with self._engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or not row.holder or _is_gone(row.holder):
            return None
        return f"{row.holder} {row.until.isoformat()}"

    def _is_live(self, holder: str, until: datetime) -> bool:
        return bool(holder) and until > self._clock() and not _is_gone(holder)

    def _extend(self, connection: sa.Connection, lease: Lease) -> None:
        connection.execute(
            sa.update(leases)
            .where(leases.c.name == lease.name)
            .values(holder=lease.holder, until=self._clock() + lease.length)
        )


def _new_holder() -> str:
    return f"{_machine()} {os.getpid()} {uuid.uuid4().hex}"


def _machine() -> str:
    """This machine, and on Linux this space of process ids: containers may share a name."""
    space = Path("/proc/self/ns/pid")
    return f"{platform.node() or 'unknown'}/{space.readlink() if space.is_symlink() else ''}"


def _is_gone(holder: str) -> bool:
    """True when the holder was a process of this machine that has ended; False when in doubt.

    A process id that was given to another process since keeps a lease until it runs out.
    """
    machine, process, _ = holder.rsplit(" ", 2)
    if machine != _machine() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)  # asks only whether it is there
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
