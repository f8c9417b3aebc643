"""Sends callbacks to the customer's receivers: at least once, in threads of the sandbox.

An answer of 2XX is success and 4XX loses the callback for ever; 3XX, 5XX, silence and broken
connections are tried again, and a URL that keeps failing rests for a while (Vibes documentation,
Callbacks). What is under way when the sender stops stays in the queue.
"""

from http.client import HTTPException
from threading import Event, Lock, Thread

from vibes_pipelines.sandbox.callbacks_http import Attempt
from vibes_pipelines.sandbox.callbacks_manner import MAX_CONNECTIONS, MAX_RETRIES
from vibes_pipelines.sandbox.callbacks_records import Delivery, Destination
from vibes_pipelines.sandbox.callbacks_registry import Callbacks


class CallbackSender:
    """Works off the queue of `callbacks` until stopped; another sender may go on then."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._queue = callbacks.queue
        self._is_over = Event()
        self._lock = Lock()
        self._under_way: set[Attempt] = set()
        self._threads = [
            Thread(target=self._work, name=f"callback-sender-{number}")
            for number in range(MAX_CONNECTIONS)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop at once; callbacks without an answer are sent again by the next sender."""
        self._is_over.set()
        self._queue.wake()
        with self._lock:
            for attempt in self._under_way:
                attempt.abort()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (delivery := self._queue.take(self._is_over)) is not None:
            destination = self._callbacks.destination(delivery.registration)
            if destination is None:
                self._finish("cancelled", delivery)
            elif (rest_s := self._queue.suspended_for_s(destination.url)) > 0:
                self._queue.again(delivery, rest_s)
            else:
                self._deliver(delivery, destination)

    def _deliver(self, delivery: Delivery, destination: Destination) -> None:
        status = self._send(delivery, destination)
        if status is None and self._is_over.is_set():
            self._queue.again(delivery)
            return
        delivery.attempts += 1
        if delivery.is_copy:
            self._callbacks.audit.callback("duplicate", delivery.kind)
            self._queue.finish(delivery)
        elif status is not None and 200 <= status < 300:
            self._queue.answered(destination.url)
            self._finish("delivered", delivery)
        elif status is not None and 400 <= status < 500:
            self._queue.answered(destination.url)
            self._finish("lost", delivery)
        else:
            self._retry(delivery, destination)

    def _send(self, delivery: Delivery, destination: Destination) -> int | None:
        """The status of the answer; `None` when there was none that could be read."""
        timeout_s = self._queue.manner.timeout_s
        attempt = Attempt(destination, self._callbacks.content(delivery), timeout_s)
        with self._lock:
            if self._is_over.is_set():
                return None
            self._under_way.add(attempt)
        try:
            return attempt.send()
        except (OSError, HTTPException):
            return None
        finally:
            with self._lock:
                self._under_way.discard(attempt)

    def _retry(self, delivery: Delivery, destination: Destination) -> None:
        if self._queue.failed(destination.url):
            self._callbacks.count("downed", delivery)
        if delivery.attempts > MAX_RETRIES:
            self._finish("given_up", delivery)
            return
        self._callbacks.count("retried", delivery)
        self._queue.again(delivery, self._queue.manner.retry_after_s)

    def _finish(self, outcome: str, delivery: Delivery) -> None:
        self._callbacks.count(outcome, delivery)
        self._queue.finish(delivery)
