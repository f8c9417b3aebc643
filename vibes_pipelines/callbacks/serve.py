"""Serving the receiver with uvicorn until SIGTERM or SIGINT; requests under way are answered."""

import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
import uvicorn

from vibes_pipelines.callbacks.receiver import Receiver, Rules
from vibes_pipelines.store.inbox import Inbox

STOP_TIMEOUT_S = 15
MOST_AT_ONCE = 1_000
"""Connections; any further one is answered with 503, and the platform sends again."""


class InboxUnavailable(RuntimeError):  # noqa: N818 - the name says what is wrong
    """The ledger's database cannot be opened; the message says where to look."""


@dataclass(frozen=True)
class Place:
    """Where to listen (port 0: any free one), and which reverse proxies may name their clients."""

    host: str = "127.0.0.1"
    port: int = 8700
    proxies: Sequence[str] = ("127.0.0.1",)


def serve(ledger_url: str, place: Place, rules: Rules, ready: Callable[[str], None]) -> None:
    """Serves until stopped; `ready` is told the address once connections are accepted.

    Raises:
        InboxUnavailable: the database does not answer.
        OSError: nothing can listen at the address.
    """
    with _listening(place) as listener, _open_inbox(ledger_url) as inbox, _quiet_signals():
        app = Receiver(inbox, rules).app()
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,  # an address is personal data
            lifespan="on",
            ws="none",
            server_header=False,
            limit_concurrency=MOST_AT_ONCE,
            forwarded_allow_ips=list(place.proxies),
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        _Server(config, lambda: ready(_address(listener))).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

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
def _open_inbox(ledger_url: str) -> Iterator[Inbox]:
    try:
        inbox = Inbox(ledger_url).open()
    except (sa.exc.SQLAlchemyError, ImportError) as failed:
        msg = (
            f"the ledger's database cannot be opened ({type(failed).__name__}); check "
            "VIBES_LEDGER_URL, or VIBES_HOME when it is not set"
        )
        raise InboxUnavailable(msg) from None  # the cause may hold the password
    try:
        yield inbox
    finally:
        inbox.close()


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


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
