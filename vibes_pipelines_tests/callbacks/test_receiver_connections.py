"""Connections that bring no request are ended; slow ones that do are served."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection, create_server

import pytest

from vibes_pipelines.callbacks import connections
from vibes_pipelines.callbacks.receiver import Rules
from vibes_pipelines.callbacks.serve import Place, _Service
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.served_receiver import removal

SILENT_S = 0.3
HEAD = b"POST /callbacks HTTP/1.1\r\nHost: receiver\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "SILENT_S", SILENT_S)
    url, started = f"sqlite:///{tmp_path / 'ledger.db'}", threading.Event()
    with create_server(("127.0.0.1", 0)) as listener, Inbox(url) as inbox:
        service = _Service(url, Place(), Rules(), listener, None)
        server = service.server(inbox, started.set)
        thread = threading.Thread(
            target=asyncio.run, args=(server.serve(sockets=[listener]),), daemon=True
        )
        thread.start()
        assert started.wait(60)
        yield listener.getsockname()[1]
        server.stop()
        thread.join(60)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"POST /callbacks HTTP/1.1\r\nHost: rec",
        HEAD % len(removal("R1")) + removal("R1") + b"POST /call",
    ],
    ids=["nothing", "half a head", "half of another"],
)
def test_a_connection_that_brings_no_request_is_ended(port: int, said: bytes) -> None:
    with create_connection(("127.0.0.1", port), timeout=20 * SILENT_S) as client:
        client.sendall(said)
        answer = b""
        while part := client.recv(1_000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200") == (len(said) > 100)


def test_a_request_that_takes_longer_is_answered(port: int) -> None:
    body = removal("R2")
    with create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(HEAD % len(body) + body[:-1])
        time.sleep(2 * SILENT_S)
        client.sendall(body[-1:])
        assert client.recv(1_000).startswith(b"HTTP/1.1 200")
