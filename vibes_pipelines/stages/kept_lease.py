"""A lease that is held as long as its block runs, whatever the block does meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from vibes_pipelines.store.leases import Leases
from vibes_pipelines.store.records import LedgerError

LENGTH = timedelta(seconds=60)
RENEW_S = 10.0


@contextmanager
def kept_lease(leases: Leases, name: str) -> Iterator[None]:
    """Takes the lease, renews it from a thread of its own, and gives it back.

    Raises:
        LaneBusy: somebody holds it.
    """
    lease = leases.take_lease(name, LENGTH)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_S):
            try:
                leases.renew_lease(lease)
            except LedgerError:
                return  # somebody took it over; the writes of lanes have leases of their own

    keeper = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        leases.give_lease_back(lease)
