"""Callbacks that wait to be sent: which one goes next, when, and to which URL not for the moment.

The queue lives as long as the platform's state; senders come and go. A callback that a sender has
taken counts as waiting until the sender says what became of it.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from threading import Condition, Event
from time import monotonic

from vibes_pipelines.sandbox.callbacks_manner import DOWNED_AFTER, CallbackManner
from vibes_pipelines.sandbox.callbacks_records import Delivery
from vibes_pipelines.sandbox.shelf import Shelf


class CallbackQueue:
    """Deliveries in waiting; safe for any number of senders. `now_s` is any steady clock."""

    def __init__(
        self, manner: CallbackManner | None = None, now_s: Callable[[], float] = monotonic
    ) -> None:
        self._manner = manner or CallbackManner()
        self._now_s = now_s
        self._changed = Condition()
        self._ready: deque[Delivery] = deque()
        self._later: list[tuple[float, int, Delivery]] = []
        self._numbers = itertools.count()
        self.waiting: Shelf[int, Delivery] = Shelf("deliveries")
        self._last_number = 0
        self._under_way = 0
        self._random = Random("callbacks")  # noqa: S311 — repeatable, not secret
        self._failures: dict[str, int] = {}
        self._downed_until: dict[str, float] = {}

    def __len__(self) -> int:
        """How many are still to be sent, those under way and copies among them."""
        with self._changed:
            return len(self._ready) + len(self._later) + self._under_way

    @property
    def manner(self) -> CallbackManner:
        """The manner in force."""
        return self._manner

    def set_manner(self, manner: CallbackManner) -> None:
        """Go on in another manner; what waits already keeps its time."""
        with self._changed:
            self._manner = manner
            self._changed.notify_all()

    def resume(self) -> None:
        """Queue what the journal has put back; every wait is over."""
        with self._changed:
            for number, delivery in sorted(self.waiting.items()):
                self._last_number = number
                self._ready.append(delivery)
            self._changed.notify_all()

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Queue callbacks of an event that has just happened, with the copies that are scripted."""
        with self._changed:
            due = self._now_s() + self._manner.delay_s
            for delivery in deliveries:
                self._push(due, delivery)
                for _ in range(self._manner.duplicates):
                    copy = Delivery(
                        delivery.registration, delivery.kind, delivery.body, is_copy=True
                    )
                    self._push(due, copy)
            self._changed.notify()

    def take(self, is_over: Event) -> Delivery | None:
        """The next callback, waited for; `None` once it is over. Say `again` or `finish` then."""
        with self._changed:
            while not is_over.is_set():
                self._ripen()
                if self._ready and not self._must_wait():
                    self._under_way += 1
                    self._changed.notify()  # the next one may be for another sender
                    return self._pick()
                self._changed.wait(self._wait_s())
        return None

    def again(self, delivery: Delivery, after_s: float = 0) -> None:
        """Send a taken callback again, after a while."""
        with self._changed:
            self._under_way -= 1
            self._push(self._now_s() + after_s, delivery)
            self._changed.notify()

    def finish(self, delivery: Delivery) -> None:
        """A taken callback needs no more sending."""
        with self._changed:
            del self.waiting[delivery.number]
            self._under_way -= 1
            self._changed.notify()

    def drop(self, registration: int) -> list[Delivery]:
        """Take a cancelled registration's callbacks out; those under way are the sender's."""
        with self._changed:
            waiting = [*self._ready, *(delivery for _, _, delivery in self._later)]
            self._ready = deque(d for d in self._ready if d.registration != registration)
            self._later = [entry for entry in self._later if entry[2].registration != registration]
            heapq.heapify(self._later)
            dropped = [d for d in waiting if d.registration == registration]
            for delivery in dropped:
                del self.waiting[delivery.number]
            return dropped

    def make_due(self) -> None:
        """Let every wait be over, because the sandbox's time has jumped."""
        with self._changed:
            self._ready.extend(delivery for _, _, delivery in sorted(self._later))
            self._later.clear()
            self._downed_until.clear()
            self._changed.notify_all()

    def wake(self) -> None:
        """Let senders look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def suspended_for_s(self, url: str) -> float:
        """For how long a downed URL is sent nothing yet."""
        with self._changed:
            return max(0.0, self._downed_until.get(url, 0.0) - self._now_s())

    def answered(self, url: str) -> None:
        """The URL works: its failures are forgotten."""
        with self._changed:
            self._failures.pop(url, None)

    def failed(self, url: str) -> bool:
        """Count a failure of the URL; True when it goes into the downed state by this."""
        with self._changed:
            self._failures[url] = self._failures.get(url, 0) + 1
            if self._failures[url] < DOWNED_AFTER:
                return False
            self._downed_until[url] = self._now_s() + self._manner.downed_for_s
            return True

    def _push(self, due: float, delivery: Delivery) -> None:
        if not delivery.number:
            self._last_number += 1
            delivery.number = self._last_number
        self.waiting[delivery.number] = delivery
        heapq.heappush(self._later, (due, next(self._numbers), delivery))

    def _ripen(self) -> None:
        now = self._now_s()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])

    def _must_wait(self) -> bool:
        return self._manner.hold or self._under_way >= self._manner.connections

    def _wait_s(self) -> float | None:
        """Until when nothing can change by itself; `None` for ever."""
        if self._must_wait() or not self._later:
            return None
        return max(0.0, self._later[0][0] - self._now_s())

    def _pick(self) -> Delivery:
        match self._manner.order:
            case "as_happened":
                return self._ready.popleft()
            case "reversed":
                return self._ready.pop()
            case "shuffled":
                place = self._random.randrange(len(self._ready))
                delivery = self._ready[place]
                del self._ready[place]
                return delivery
