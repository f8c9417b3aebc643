"""What of the platform's rate a process may take: all of it, or all but what opt-outs need.

Deliveries and the lane of opt-outs are processes that share nothing but the ledger. The lane's
lease tells that it is at work, and it waits before its first request for as long as it may take
until every delivery knows. A delivery may take the whole rate for a moment after each look that
found nobody; when a look is late or fails, that moment ends by itself.

The times below make both together keep the limit in every second, however the seconds are cut. Only
durations within one process are compared, never the clocks of two.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import monotonic

import sqlalchemy as sa

from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.database import DatabaseUnavailable
from vibes_pipelines.store.kept_lease import LENGTH, KeptLease
from vibes_pipelines.store.leases import Leases
from vibes_pipelines.vibes.rate_limit import SECOND_S, RateLimiter

LEASE = "opt_outs/real_time"
"""Its holder is the one process that carries opt-outs beside another job."""

LOOK_S = 0.5
"""How far the looks of a delivery are apart: each reads one row of the ledger."""

GOOD_S = 1.0
"""How long a look that found nobody is good for, from when it began."""

ANNOUNCED_S = GOOD_S + SECOND_S
"""How long the lane waits: until no look is good any more, and what was sent by then is past."""

log = logging.getLogger("vibes_pipelines.api_rate")


class GivingWay:
    """The rate of a delivery by what its looks found: `rest_per_s` until it is known to be alone.

    Looks are told by one thread; the rate may be asked for by another.
    """

    def __init__(
        self, whole_per_s: float, rest_per_s: float, now: Callable[[], float] = monotonic
    ) -> None:
        self._whole_per_s = whole_per_s
        self._rest_per_s = rest_per_s
        self._now = now
        self._standing: str | None = None
        self._standing_since = 0.0
        self._alone_since: float | None = None
        self._last_look = 0.0
        self._good_until = float("-inf")

    def rate_per_s(self) -> float:
        """What may be taken now."""
        return self._whole_per_s if self._now() < self._good_until else self._rest_per_s

    def looked(self, began: float, standing: str | None) -> None:
        """Tells what a look found: of the lane's lease, `standing` as `Leases.standing` has it.

        The first look that finds nobody does not suffice: what the lane sent last must be past.
        """
        if self._is_held(began, standing):
            self.knows_nothing()
            return
        if self._alone_since is None or began - self._last_look > GOOD_S:
            self._alone_since = began
        self._last_look = began
        if began - self._alone_since >= SECOND_S:
            self._good_until = began + GOOD_S

    def knows_nothing(self) -> None:
        """A look failed: the lane is taken to be at work."""
        self._alone_since, self._good_until = None, float("-inf")

    def _is_held(self, began: float, standing: str | None) -> bool:
        """A lease that nobody renews, of a process elsewhere that was killed, runs out."""
        if standing != self._standing:
            self._standing, self._standing_since = standing, began
        return standing is not None and began - self._standing_since < LENGTH.total_seconds()


def delivery_rate_per_s(project: Project) -> int:
    """The most that a delivery may take.

    Where sign-ups are taken a part is always left: a form cannot announce itself in time.
    """
    account = project.settings.api
    return account.rate_per_s if project.config.signup is None else account.bulk_rate_per_s


@contextmanager
def calls_of_deliveries(project: Project) -> Iterator[RateLimiter]:
    """The limiter of a delivery: the whole rate while no lane of opt-outs is at work.

    Every client of the process that is at work meanwhile must have it.
    """
    whole, rest = delivery_rate_per_s(project), project.settings.api.bulk_rate_per_s
    if whole == rest:
        yield RateLimiter(rest)
        return
    way, ended = GivingWay(whole, rest), threading.Event()
    arguments = (project.settings.ledger_url, way, ended)
    looks = threading.Thread(target=_look, args=arguments, name="looks at opt-outs", daemon=True)
    looks.start()
    try:
        yield RateLimiter(way.rate_per_s)
    finally:
        ended.set()
        looks.join()


def calls_of_opt_outs(settings: Settings, lease: KeptLease) -> RateLimiter:
    """The limiter of the lane, of which `LEASE` was just taken; it sends nothing without it.

    The platform's account is not asked for before something is to be sent.
    """

    def share_per_s() -> float:
        lease.require()
        return settings.api.opt_out_rate_per_s

    return RateLimiter(share_per_s, wait_s=ANNOUNCED_S)


def _look(ledger_url: str, way: GivingWay, ended: threading.Event) -> None:
    """Looks until the delivery has ended; after a look that fails it goes on at its lower rate."""
    with closing(Leases(ledger_url)) as leases:
        while True:
            began = monotonic()
            try:
                way.looked(began, leases.standing(LEASE))
            except (sa.exc.SQLAlchemyError, DatabaseUnavailable) as failed:
                way.knows_nothing()
                log.warning(
                    "the ledger did not tell whether opt-outs leave beside this delivery (%s); it "
                    "leaves them their share of the rate",
                    type(failed).__name__,
                )
            if ended.wait(LOOK_S):
                return
