"""An ASGI application served on a free loopback port by a thread of this process."""

import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0


class HttpServer:
    """Serves one application on 127.0.0.1 until stopped."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._name = name
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=int(_STOP_TIMEOUT_S),
            )
        )
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Serve and return the port, once connections are accepted."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [listener]},
            name=self._name,
            daemon=True,
        )
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self._server.should_exit = True
                listener.close()
                raise RuntimeError(f"the server {self._name} did not start: see uvicorn's log")
            time.sleep(0.005)
        port: int = listener.getsockname()[1]
        return port

    def stop(self) -> None:
        """Answer what is under way, then stop serving."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_TIMEOUT_S + 5)
            self._thread = None
