"""A lease that is held as long as its block runs, whatever the block does meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from vibes_pipelines.store.database import DatabaseUnavailable
from vibes_pipelines.store.leases import LeaseLost, Leases
from vibes_pipelines.store.records import LedgerError

LENGTH = timedelta(seconds=60)
RENEW_S = 10.0


class KeptLease:
    """The lease while it is held; `renewed_at` is when it began anew, by this process's clock."""

    def __init__(self, name: str, renewed_at: float) -> None:
        self._name = name
        self.renewed_at = renewed_at

    def require(self) -> None:
        """To be called right before what nobody may do without it.

        Raises:
            LeaseLost: it was not renewed in time, because this process stood still or the ledger
                did not answer; nobody else goes by it any more.
        """
        if time.monotonic() >= self.renewed_at + LENGTH.total_seconds():
            msg = (
                f"the lease {self._name} could not be kept; nothing more is sent here, what is "
                "open is sent by the next run"
            )
            raise LeaseLost(msg)


@contextmanager
def kept_lease(leases: Leases, name: str) -> Iterator[KeptLease]:
    """Takes the lease, renews it from a thread of its own, and gives it back.

    Raises:
        LaneBusy: somebody holds it.
    """
    kept = KeptLease(name, time.monotonic())
    lease = leases.take_lease(name, LENGTH)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_S):
            began_at = time.monotonic()
            try:
                leases.renew_lease(lease)
            except DatabaseUnavailable:
                continue  # it may be back before the lease runs out
            except LedgerError:
                return  # somebody took it over; the writes of lanes have leases of their own
            kept.renewed_at = began_at

    keeper = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield kept
    finally:
        ended.set()
        keeper.join()
        leases.give_lease_back(lease)
