"""The lease of one lane of the API while it is pushed, and whom it has to let go first.

The rate of the platform is one for all lanes. Opt-outs have all of it: while their lease is held,
every other lane stands still between two of its operations.
"""

import asyncio
import time
from datetime import timedelta
from typing import Self

from vibes_pipelines.store.leases import Lease, LeaseLost, Leases
from vibes_pipelines.store.records import Lane

LEASE = timedelta(seconds=60)
"""Longer than any write to the ledger may take; renewed long before it ends."""

RENEW_S = 5.0
LOOK_S = 0.5
"""How often a lane looks whether opt-outs want to go first."""

PAUSE_S = 0.05

_FIRST: Lane = "opt_outs"
_OTHERS: tuple[Lane, ...] = ("persons", "invites", "deletes")


def lease_name(lane: Lane, route: str = "api") -> str:
    """The name of the lease of a lane on a road."""
    return f"{lane}/{route}"


class LaneLease:
    """Holds the lease of a lane within `async with`, and renews it meanwhile."""

    def __init__(self, ledger: Leases, lane: Lane) -> None:
        self._ledger = ledger
        self._lane = lane
        self.must_wait = False

    async def __aenter__(self) -> Self:
        self._lease = self._ledger.take_lease(lease_name(self._lane), LEASE)
        self._ends_at = time.monotonic() + LEASE.total_seconds()
        self._keeper = asyncio.create_task(self._keep())
        if self._lane != _FIRST:
            self._look()
        elif self._ledger.live_leases(map(lease_name, _OTHERS)):
            await asyncio.sleep(2 * LOOK_S)  # by then they stand still
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        self._ledger.give_lease_back(self._lease)

    @property
    def lease(self) -> Lease:
        """The lease as the ledger has it."""
        return self._lease

    @property
    def is_held(self) -> bool:
        """False when the lease ran out while this process stood still, or was not renewed."""
        return not self._keeper.done() and time.monotonic() < self._ends_at

    def require(self) -> None:
        """To be called right before each send.

        Raises:
            LeaseLost: it is not held any more.
        """
        if not self.is_held:
            msg = (
                f"the lease of {self._lease.name} could not be kept, so that another process may "
                "deliver it; nothing more is sent, run the delivery again"
            )
            raise LeaseLost(msg)

    async def _keep(self) -> None:
        """Renews until it is cancelled; when that fails it ends, and `require` stops the push."""
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._lane != _FIRST:
                self._look()
            now = time.monotonic()
            if now - renewed_at >= RENEW_S:
                self._ledger.renew_lease(self._lease)
                renewed_at, self._ends_at = now, now + LEASE.total_seconds()

    def _look(self) -> None:
        self.must_wait = bool(self._ledger.live_leases([lease_name(_FIRST)]))
