"""A customer's receiver of callbacks: a real HTTP server that answers as a test scripts it."""

import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Received:
    """A callback as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    at_s: float

    @property
    def body(self) -> dict[str, Any]:
        content = json.loads(self.raw)
        assert isinstance(content, dict)
        return content


@dataclass
class Receiver:
    """What came in, and the statuses of the next answers; 200 when none is scripted.

    A scripted 0 means to say nothing until the receiver ends; every other answer is thought over
    for `pause_s`.
    """

    url: str
    received: list[Received] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)
    otherwise: int = 200
    pause_s: float = 0
    busiest: int = 0
    busy: int = 0
    lock: Lock = field(default_factory=Lock)
    ended: Event = field(default_factory=Event)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        with self.lock:
            return [entry.body for entry in self.received]

    @property
    def ids(self) -> list[str]:
        return [body["event_id"] for body in self.bodies]

    def take(self, entry: Received) -> int:
        with self.lock:
            self.received.append(entry)
            return self.answers.popleft() if self.answers else self.otherwise

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count how many callbacks are in work at once."""
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            yield
        finally:
            with self.lock:
                self.busy -= 1

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The bodies of the first `count` callbacks, waited for."""
        eventually(lambda: len(self.received) >= count, f"{count} callbacks to come in")
        return self.bodies


def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something, not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    receiver: Receiver

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self._receive()

    def do_PUT(self) -> None:
        self._receive()

    def _receive(self) -> None:
        receiver = self.server.receiver
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with receiver.at_work():
            status = receiver.take(
                Received(self.command, self.path, headers, raw, time.monotonic())
            )
            receiver.ended.wait(receiver.pause_s if status else None)
        self.close_connection = True
        if status:
            self._answer(status)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"{self.server.receiver.url}/elsewhere")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def receiving(port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on loopback, stopped at the end."""
    with _Server(("127.0.0.1", port), _Handler) as server:
        scheme = "https" if context else "http"
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.receiver = Receiver(f"{scheme}://127.0.0.1:{server.server_address[1]}/callbacks")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.receiver
        finally:
            server.receiver.ended.set()
            server.shutdown()
            thread.join()
