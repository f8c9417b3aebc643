"""The registered callbacks, and the callbacks that events of the platform turn into.

Only events after a registration are sent, none is replayed (Vibes documentation, Data Syncing
Guide). Everything here happens under the platform's lock; only the queue is shared with senders.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from vibes_pipelines.sandbox.callbacks_bodies import envelope, payload_of
from vibes_pipelines.sandbox.callbacks_manner import CallbackManner
from vibes_pipelines.sandbox.callbacks_queue import CallbackQueue
from vibes_pipelines.sandbox.callbacks_records import (
    MAX_DESTINATIONS,
    Delivery,
    Destination,
    Registration,
    Wish,
)
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_mdn import ApiVersion
from vibes_pipelines.sandbox.platform_records import Happening, Notice
from vibes_pipelines.sandbox.platform_refusals import (
    CallbackNotFoundError,
    CallbackTakenError,
    InvalidBodyError,
    TooManyCallbacksError,
)
from vibes_pipelines.sandbox.shelf import Shelf
from vibes_pipelines.sandbox.switches import Switches

_NEXT = "next"


class Callbacks:
    """One company's registrations and what is to be sent for them; listens to the platform."""

    def __init__(
        self,
        platform: Platform,
        switches: Switches | None = None,
        manner: CallbackManner | None = None,
    ) -> None:
        self.queue = CallbackQueue(manner)
        self.audit = platform.audit
        self._platform = platform
        self._switches = switches or Switches()
        self._registrations: Shelf[int, Registration] = Shelf("registrations")
        self._numbers: Shelf[str, int] = Shelf("registration_numbers")
        platform.on_happening = self._report
        platform.on_notice = self._report_notice

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return self._registrations, self._numbers, self.queue.waiting

    @property
    def registrations(self) -> list[Registration]:
        """All registrations, the oldest first."""
        return list(self._registrations.values())

    def get(self, number: int) -> Registration:
        """A registration by its number; raises CallbackNotFoundError."""
        if number not in self._registrations:
            raise CallbackNotFoundError("the callback cannot be found")
        return self._registrations[number]

    def destination(self, number: int) -> Destination | None:
        """Where a registration's callbacks go at present; `None` when it was cancelled."""
        registration = self._registrations.get(number)
        return None if registration is None else registration.destination

    def register(self, wish: Wish, version: ApiVersion) -> Registration:
        """Register a callback.

        Raises InvalidBodyError, CallbackTakenError, TooManyCallbacksError (their status is an
        assumption: the documentation names the limits only).
        """
        self._check(wish, None)
        now = self._platform.clock()
        number = self._numbers.get(_NEXT, 1)
        registration = Registration(
            number,
            wish.kind,
            wish.config,
            wish.destination,
            version,
            wish.start or now,
            wish.end,
            now,
            now,
        )
        self._numbers[_NEXT] = number + 1
        self._registrations[number] = registration
        return registration

    def alter(self, number: int, wish: Wish, version: ApiVersion) -> Registration:
        """Replace what a registration says; callbacks that wait go to the new destination.

        Raises CallbackNotFoundError and the refusals of `register`.
        """
        former = self.get(number)
        self._check(wish, number)
        altered = replace(
            former,
            kind=wish.kind,
            config=wish.config,
            destination=wish.destination,
            version=version,
            start=wish.start or former.start,
            end=wish.end,
            updated_at=self._platform.clock(),
        )
        self._registrations[number] = altered
        return altered

    def cancel(self, number: int) -> Registration:
        """End a registration; its callbacks that wait are sent no more."""
        registration = self.get(number)
        del self._registrations[number]
        for delivery in self.queue.drop(number):
            self.count("cancelled", delivery)
        return registration

    def test(self, kind: str, config: Mapping[str, str], payload: Mapping[str, Any]) -> str:
        """Queue a test event for the active registrations of the type; returns the event's id.

        Raises CallbackNotFoundError when there is none.
        """
        at = self._platform.clock()
        active = [
            registration
            for registration in self._registrations.values()
            if registration.kind == kind and registration.is_active(at)
            if all(registration.config.get(key) == value for key, value in config.items())
        ]
        if not active:
            raise CallbackNotFoundError("an active callback of this type does not exist")
        event_id = str(uuid4())
        self._queue(
            (entry, envelope(entry, event_id, at, payload, self._switches)) for entry in active
        )
        return event_id

    def content(self, delivery: Delivery) -> bytes:
        """What the next attempt sends; the former body says which attempt it is."""
        body = dict(delivery.body)
        if self._switches.callback_body == "former":
            body["delivery_attempt"] = str(delivery.attempts + 1)
        return json.dumps(body).encode()

    def count(self, outcome: str, delivery: Delivery) -> None:
        """Tell the audit what became of a callback; copies have no outcome of their own."""
        if not delivery.is_copy:
            self.audit.callback(outcome, delivery.kind)

    def _check(self, wish: Wish, number: int | None) -> None:
        """Raise what stands against a registration beside the one that it replaces."""
        list_id = wish.config.get("list_id")
        if list_id is not None and list_id not in self._platform.lists:
            raise InvalidBodyError(f"{wish.kind}.list_id: the subscription list cannot be found")
        same = [
            entry
            for entry in self._registrations.values()
            if (entry.kind, entry.config) == (wish.kind, wish.config) and entry.number != number
        ]
        if same and self._switches.callback_registrations == "one":
            raise CallbackTakenError("the callback is registered already")
        if any(entry.destination.url == wish.destination.url for entry in same):
            raise CallbackTakenError("the callback is registered already for this destination.url")
        if len(same) >= MAX_DESTINATIONS:
            raise TooManyCallbacksError(f"a callback goes to at most {MAX_DESTINATIONS} URLs")

    def _report(self, happening: Happening) -> None:
        """Queue a callback for every registration that asks for this event."""
        if not happening.changed and self._switches.person_updated_on == "change":
            return
        asking = [entry for entry in self._registrations.values() if _asks_for(entry, happening)]
        if not asking:
            return
        event_id = str(uuid4())
        payloads = {
            version: payload_of(self._platform, happening, version, self._switches)
            for version in {entry.version for entry in asking}
        }
        self._queue(
            (
                entry,
                envelope(entry, event_id, happening.at, payloads[entry.version], self._switches),
            )
            for entry in asking
        )

    def _report_notice(self, notice: Notice) -> None:
        """Queue a callback for every registration that asks for what is told."""
        asking = [
            entry
            for entry in self._registrations.values()
            if entry.kind == notice.kind and entry.is_active(notice.at)
            if _is_told(entry.config, notice)
        ]
        event_id = str(uuid4())
        self._queue(
            (
                entry,
                envelope(entry, event_id, notice.at, notice.show(entry.version), self._switches),
            )
            for entry in asking
        )

    def _queue(self, bodies: Iterable[tuple[Registration, dict[str, Any]]]) -> None:
        deliveries = [Delivery(entry.number, entry.kind, body) for entry, body in bodies]
        for delivery in deliveries:
            self.count("queued", delivery)
        self.queue.put(deliveries)


def _is_told(config: Mapping[str, str], notice: Notice) -> bool:
    """Whether a registration's configuration covers the notice; event types know no case."""
    wanted = config.get("callbacks_to_send", "all")
    is_wanted = wanted in {"all", notice.stage} or (wanted == "only_failures" and notice.is_failure)
    return is_wanted and all(
        value.lower() == notice.config.get(key, "").lower()
        for key, value in config.items()
        if key != "callbacks_to_send"
    )


def _asks_for(registration: Registration, happening: Happening) -> bool:
    subscription = happening.subscription
    return (
        registration.kind == happening.kind
        and (subscription is None or registration.config["list_id"] == subscription.list_id)
        and registration.is_active(happening.at)
    )
