"""Serving the receiver with uvicorn until SIGTERM or SIGINT; requests under way are answered."""

import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any

import uvicorn

from vibes_pipelines.callbacks.connections import ReceiverProtocol
from vibes_pipelines.callbacks.metrics import Board, Tally
from vibes_pipelines.callbacks.receiver import Receiver, Rules
from vibes_pipelines.callbacks.signup import OpenSignup
from vibes_pipelines.callbacks.tls import Tls, apply_tls
from vibes_pipelines.callbacks.tribe import TribeGate
from vibes_pipelines.callbacks.workers import Workers, when_orphaned
from vibes_pipelines.callbacks.workers import context as workers_context
from vibes_pipelines.store.inbox import Inbox

STOP_TIMEOUT_S = 15
_STOP_MARGIN_S = 5
MOST_AT_ONCE = 1_000
"""Connections; any further one is answered with 503, and the platform sends again."""


class StartFailed(RuntimeError):  # noqa: N818 - the name says what happened
    """The application did not start; the log says why."""


@dataclass(frozen=True)
class Place:
    """Where to listen (port 0: any free one), and which reverse proxies may name their clients.

    `processes` share the address and the inbox; one is enough for hundreds of callbacks a second.
    """

    host: str = "127.0.0.1"
    port: int = 8700
    proxies: Sequence[str] = ("127.0.0.1",)
    processes: int = 1
    tls: Tls | None = None


@dataclass(frozen=True)
class _Service:
    """What one process needs to serve; sent to the others, where there are some."""

    ledger_url: str
    place: Place
    rules: Rules
    listener: socket.socket
    signup: OpenSignup | None
    cells: Any = None
    tribe: TribeGate | None = None

    def __call__(self, number: int, serves: Event) -> None:
        """The work of one process among several."""
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        board = Board(self.cells, number)
        with Inbox(self.ledger_url) as inbox, _quiet_signals():
            server = self.server(inbox, serves.set, board)
            when_orphaned(server.stop)
            server.serve_until_stopped(self.listener)

    def server(
        self, inbox: Inbox, started: Callable[[], None], board: Board | None = None
    ) -> "_Server":
        """A server over an open inbox."""
        tally = board.own() if board else Tally()
        receiver = Receiver(inbox, self.rules, tally, board, self.signup, self.tribe)
        config = uvicorn.Config(
            receiver.app(),
            http=ReceiverProtocol,
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,  # an address is personal data
            lifespan="on",
            ws="none",
            server_header=False,
            limit_concurrency=MOST_AT_ONCE,
            forwarded_allow_ips=list(self.place.proxies),
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        if self.place.tls:
            apply_tls(config, self.place.tls)
        return _Server(config, started)


def serve(
    ledger_url: str,
    place: Place,
    rules: Rules,
    ready: Callable[[str], None],
    signup: OpenSignup | None = None,
    tribe: TribeGate | None = None,
) -> None:
    """Serves until stopped; `ready` is told the address once connections are accepted.

    Raises:
        DatabaseUnavailable: the ledger's database cannot be opened.
        StartFailed: e.g. what is needed for sign-ups cannot be opened.
        TlsError: a certificate or key cannot be used.
        WorkerFailed: one of several processes did not start.
        OSError: nothing can listen at the address.
    """
    if place.tls:
        place.tls.context()  # refused here, before any process is started
        if place.tls.client_authority:
            rules = replace(rules, client_names=place.tls.client_names)
    with _listening(place) as listener, Inbox(ledger_url) as inbox:
        tell = partial(ready, _address(listener, place))
        service = _Service(ledger_url, place, rules, listener, signup, tribe=tribe)
        if place.processes == 1:
            with _quiet_signals():
                service.server(inbox, tell).serve_until_stopped(listener)
            return
        inbox.close()  # each process has its own
        cells = workers_context().RawArray("q", Board.size(place.processes))
        shared = replace(service, cells=cells)
        Workers(shared, place.processes, STOP_TIMEOUT_S + _STOP_MARGIN_S).run(tell)


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    def serve_until_stopped(self, listener: socket.socket) -> None:
        """Raises `StartFailed` when it never served; some versions of uvicorn exit, some log."""
        with suppress(SystemExit):
            self.run(sockets=[listener])
        if not self.started:
            msg = "the receiver did not start to serve; the error logged above says why"
            raise StartFailed(msg)

    def stop(self) -> None:
        """Ends it as a signal would; may be called from another thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


@contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.create_server((place.host, place.port), family=family) as listener:
        yield listener


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Keeps a stop from ending the process: uvicorn raises the signal again once it has stopped."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    former = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _address(listener: socket.socket, place: Place) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if place.tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
