"""Sends events to the platform: intent first, then the call, then the receipt.

A send that was cut is repeated under the same event id, which the platform ignores when it has it
(the Vibes documentation, Event API): no message goes out twice.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vibes_pipelines.store.events import EventReceipt, Events, EventStatus, PlannedEvent
from vibes_pipelines.store.kept_lease import KeptLease, kept_lease
from vibes_pipelines.vibes.api_calls import Answer
from vibes_pipelines.vibes.api_transport import VibesAuthError
from vibes_pipelines.vibes.error_classes import lookup
from vibes_pipelines.vibes.event_api import Event, InvalidEvent

CONCURRENCY = 32

LEASE = "events"

REPEAT_REFUSED = frozenset({400, 409, 422})
"""How the platform may refuse an id that it has: the documentation names no status."""


class EventSender(Protocol):
    """The Event API, as far as sending goes."""

    async def send(self, event: Event) -> Answer:
        """Sends one event."""
        ...


@dataclass(frozen=True)
class EventsSent:
    """Events by the answer of the platform; `error_classes` counts the others than accepted."""

    accepted: int = 0
    rejected: int = 0
    unknown: int = 0
    unclear: int = 0
    error_classes: Mapping[str, int] = field(default_factory=dict)


async def send_open_events(store: Events, api: EventSender) -> EventsSent:
    """Sends what is open, each event once; one process at a time.

    Raises:
        LaneBusy: another process sends events; nothing was sent.
        LeaseLost: this process stood still for so long that another one may have taken over.
        VibesAuthError: the platform refuses the login; what was not sent stays planned.
    """
    counts: Counter[EventStatus] = Counter()
    classes: Counter[str] = Counter()
    with kept_lease(store, LEASE) as lease:
        for page in store.open_events():
            receipts = await _send_page(store, api, page, lease)
            counts.update(receipt.status for receipt in receipts)
            classes.update(receipt.error_class for receipt in receipts if receipt.error_class)
    return EventsSent(
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        unknown=counts["unknown"],
        unclear=counts["unclear"],
        error_classes=dict(sorted(classes.items())),
    )


async def _send_page(
    store: Events, api: EventSender, page: Sequence[PlannedEvent], lease: KeptLease
) -> list[EventReceipt]:
    lease.require()
    leaving = store.mark_sent([planned.event_id for planned in page])
    page = [planned for planned in page if planned.event_id in leaving]
    slots, refused_login = asyncio.Semaphore(CONCURRENCY), asyncio.Event()

    async def send(planned: PlannedEvent) -> EventReceipt | None:
        async with slots:
            if refused_login.is_set():
                return None
            lease.require()
            try:
                return receipt_of(planned, await api.send(_event(planned)))
            except InvalidEvent as invalid:  # its person was erased since it was planned
                ended: EventStatus = "unclear" if planned.attempts else "rejected"
                return EventReceipt(planned.event_id, ended, "InvalidEvent", str(invalid))
            except VibesAuthError:
                refused_login.set()
                raise

    ends = await asyncio.gather(*map(send, page), return_exceptions=True)
    receipts = [end for end in ends if isinstance(end, EventReceipt)]
    store.record(receipts)
    pairs = list(zip(page, ends, strict=True))
    store.take_back([p.event_id for p, end in pairs if end is None or _is_login(end)])
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return receipts


def receipt_of(planned: PlannedEvent, answer: Answer) -> EventReceipt:
    """What is kept of an answer.

    A refusal that may be of the repeated id of an event that the platform took is `unclear`, and
    such an event is not sent again.
    """
    may_be_there = planned.attempts > 0 or answer.outcome == "unknown"
    if may_be_there and answer.outcome != "accepted" and answer.status in REPEAT_REFUSED:
        status: EventStatus = "unclear"
    elif (
        answer.outcome == "rejected" and lookup(answer.error_class or "").category == "retry_later"
    ):
        status = "unknown"
    else:
        status = answer.outcome
    return EventReceipt(planned.event_id, status, answer.error_class, answer.message)


def _event(planned: PlannedEvent) -> Event:
    return Event(planned.event_id, planned.event_type, planned.event_data, planned.debug_data)


def _is_login(end: EventReceipt | BaseException | None) -> bool:
    return isinstance(end, VibesAuthError)
