"""Connections of the receiver: one that brings no request does not keep a place for ever.

The receiver takes so many at once and answers any further one with 503. Those of scanners, of
clients that went away without a word, and heads of requests that never end would fill it up.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

SILENT_S = 30.0
"""How long a connection may take for the head of a request; bodies have a limit of their own."""


class ReceiverProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP of uvicorn, which itself waits without end for a request to begin."""

    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """From now on the first request is waited for."""
        super().connection_made(transport)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        """From now on the next request is waited for."""
        super().on_response_complete()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._silence = self.loop.call_later(SILENT_S, self._end_if_silent)

    def _stop_waiting(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    def _end_if_silent(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
